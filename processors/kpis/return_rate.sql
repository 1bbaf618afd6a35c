-- title: Return rate
-- definition: How trials ended: vehicles returned (returnedAt), exchanged (exchangedAt) or kept (keptAt), and the share that came back. A return's reason is what was given when it was asked for.
-- owner: Customer care
-- better: down
-- input: trial.vehicle_returned at returned_at
-- input: trial.return_requested by return_id
-- input: trial.vehicle_exchanged at exchanged_at
-- input: trial.vehicle_kept at kept_at
-- dimension: reason; why a vehicle was returned
-- dimension: make of vehicles by vehicle_id; manufacturer
-- dimension: model of vehicles by vehicle_id; model
-- dimension: body_type of vehicles by vehicle_id; body style
-- value: returned integer = count(returned); vehicles that came back
-- value: exchanged integer = count(exchanged); vehicles given for another
-- value: kept integer = count(kept); vehicles kept
-- value: return_rate ratio = CAST(count(returned) AS DOUBLE) / nullif(count(returned) + count(exchanged) + count(kept), 0); returned of all trials that ended
-- value: exchange_rate ratio = CAST(count(exchanged) AS DOUBLE) / nullif(count(returned) + count(exchanged) + count(kept), 0); exchanged of all trials that ended
-- headline: return_rate
SELECT
    back.returned_at AS at, back.return_id, back.vehicle_id, asked.reason,
    back.return_id AS returned, CAST(NULL AS VARCHAR) AS exchanged, CAST(NULL AS VARCHAR) AS kept
FROM trial.vehicle_returned AS back
LEFT JOIN (
    SELECT return_id, last_value(reason ORDER BY event_time, event_id) AS reason
    FROM trial.return_requested
    GROUP BY return_id
) AS asked ON asked.return_id = back.return_id
UNION ALL
SELECT coalesce(exchanged_at, event_time), NULL, vehicle_id, NULL, NULL, exchange_id, NULL FROM trial.vehicle_exchanged
UNION ALL
SELECT coalesce(kept_at, event_time), NULL, vehicle_id, NULL, NULL, NULL, trial_id FROM trial.vehicle_kept
