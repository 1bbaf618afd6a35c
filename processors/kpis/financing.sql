-- title: Financing
-- definition: Loan applications sent (submittedAt), decided (approvedAt, deniedAt), the share approved of those decided, the hours from sending to the decision, and the terms of approved loans.
-- owner: Finance
-- better: up
-- input: financing.financing_application_submitted at submitted_at
-- input: financing.financing_application_submitted by application_id
-- input: financing.financing_approved at approved_at
-- input: financing.financing_denied at denied_at
-- dimension: lender; who lends
-- value: applications integer = count(sent); applications sent
-- value: approvals integer = count(approved); approved
-- value: denials integer = count(denied); refused
-- value: approval_rate ratio = CAST(count(approved) AS DOUBLE) / nullif(count(approved) + count(denied), 0); approved of those decided
-- value: average_hours hours = CAST(sum(micros) AS DOUBLE) / 3600000000 / nullif(count(micros), 0); mean time to the decision
-- value: average_rate percent = CAST(sum(rate) AS DOUBLE) / nullif(count(rate), 0); mean yearly interest of approved loans
-- value: average_term months = CAST(sum(term) AS DOUBLE) / nullif(count(term), 0); mean term of approved loans
-- value: amount_approved CAD = sum(amount); sum of the loans approved
-- headline: approval_rate
SELECT
    coalesce(submitted_at, event_time) AS at, application_id, lender_id AS lender,
    application_id AS sent, CAST(NULL AS VARCHAR) AS approved, CAST(NULL AS VARCHAR) AS denied,
    CAST(NULL AS BIGINT) AS micros, CAST(NULL AS DECIMAL(9, 4)) AS rate, CAST(NULL AS BIGINT) AS term, CAST(NULL AS DECIMAL(12, 2)) AS amount
FROM financing.financing_application_submitted
UNION ALL
SELECT
    decided.at, decided.application_id, coalesce(decided.lender_id, asked.lender_id), NULL, decided.approved, decided.denied,
    CAST(decided.at AS BIGINT) - CAST(asked.sent_at AS BIGINT), decided.rate, decided.term, decided.amount
FROM (
    SELECT coalesce(approved_at, event_time) AS at, application_id, lender_id, application_id AS approved, CAST(NULL AS VARCHAR) AS denied,
        CAST(interest_rate AS DECIMAL(9, 4)) AS rate, term, approved_amount AS amount
    FROM financing.financing_approved
    UNION ALL
    SELECT coalesce(denied_at, event_time), application_id, lender_id, NULL, application_id AS denied, NULL, NULL, NULL
    FROM financing.financing_denied
) AS decided
LEFT JOIN (
    SELECT application_id, min(coalesce(submitted_at, event_time)) AS sent_at, last_value(lender_id ORDER BY event_time, event_id) AS lender_id
    FROM financing.financing_application_submitted
    GROUP BY application_id
) AS asked ON asked.application_id = decided.application_id
