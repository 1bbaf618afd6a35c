-- title: Support
-- definition: Tickets opened (createdAt), how long the first answer (sentAt) and the solution (resolvedAt) took from then, and how many were passed up; answers, solutions and escalations count with their ticket, when it was opened.
-- owner: Customer care
-- better: down
-- input: support.support_ticket_created at created_at
-- input: support.advisor_response_sent by ticket_id
-- input: support.issue_resolved by ticket_id
-- input: support.issue_escalated by ticket_id
-- dimension: priority; the ticket's priority
-- value: tickets integer = count(ticket_id); tickets opened
-- value: first_response_hours hours = CAST(sum(response_micros) AS DOUBLE) / 3600000000 / nullif(count(response_micros), 0); mean hours to the first answer
-- value: median_first_response_hours hours = median(CAST(response_micros AS DOUBLE)) / 3600000000; half were answered within
-- value: resolution_hours hours = CAST(sum(resolution_micros) AS DOUBLE) / 3600000000 / nullif(count(resolution_micros), 0); mean hours to the solution
-- value: resolved integer = count(resolution_micros); tickets solved by now
-- value: escalated integer = count(escalated_at); tickets passed up
-- value: escalation_rate ratio = CAST(count(escalated_at) AS DOUBLE) / nullif(count(ticket_id), 0); of those opened
-- headline: first_response_hours
-- target: first_response_hours 4
SELECT
    opened.at,
    opened.ticket_id,
    opened.priority,
    CAST(answered.answered_at AS BIGINT) - CAST(opened.at AS BIGINT) AS response_micros,
    CAST(solved.solved_at AS BIGINT) - CAST(opened.at AS BIGINT) AS resolution_micros,
    passed.escalated_at
FROM (
    SELECT coalesce(created_at, event_time) AS at, ticket_id, priority FROM support.support_ticket_created
) AS opened
LEFT JOIN (
    SELECT ticket_id, min(coalesce(sent_at, event_time)) AS answered_at FROM support.advisor_response_sent GROUP BY ticket_id
) AS answered ON answered.ticket_id = opened.ticket_id
LEFT JOIN (
    SELECT ticket_id, max(coalesce(resolved_at, event_time)) AS solved_at FROM support.issue_resolved GROUP BY ticket_id
) AS solved ON solved.ticket_id = opened.ticket_id
LEFT JOIN (
    SELECT ticket_id, min(coalesce(escalated_at, event_time)) AS escalated_at FROM support.issue_escalated GROUP BY ticket_id
) AS passed ON passed.ticket_id = opened.ticket_id
