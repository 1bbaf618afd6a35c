-- title: Trade-ins
-- definition: Vehicles that buyers gave in part payment: asked for, offered for, accepted, declined and agreed, each at its own time, and the values agreed.
-- owner: Retail
-- better: up
-- input: trade_in.trade_in_requested at requested_at
-- input: trade_in.trade_in_offer_generated at generated_at
-- input: trade_in.trade_in_offer_accepted at accepted_at
-- input: trade_in.trade_in_offer_declined at declined_at
-- input: trade_in.trade_in_value_adjusted
-- input: trade_in.trade_in_completed at completed_at
-- value: requested integer = count(requested); asked for
-- value: offered integer = count(offer_amount); offers made
-- value: accepted integer = count(accepted); offers accepted
-- value: declined integer = count(declined); offers declined
-- value: acceptance_rate ratio = CAST(count(accepted) AS DOUBLE) / nullif(count(accepted) + count(declined), 0); accepted of those answered
-- value: adjusted integer = count(adjusted); values changed by an appraisal
-- value: completed integer = count(final_value); trades agreed
-- value: value_agreed CAD = sum(final_value); sum of the values agreed
-- value: average_value CAD = CAST(sum(final_value) AS DOUBLE) / nullif(count(final_value), 0); mean value agreed
SELECT coalesce(requested_at, event_time) AS at, trade_in_id AS requested, CAST(NULL AS DECIMAL(12, 2)) AS offer_amount, CAST(NULL AS VARCHAR) AS accepted, CAST(NULL AS VARCHAR) AS declined, CAST(NULL AS VARCHAR) AS adjusted, CAST(NULL AS DECIMAL(12, 2)) AS final_value
FROM trade_in.trade_in_requested
UNION ALL
SELECT coalesce(generated_at, event_time), NULL, offer_amount, NULL, NULL, NULL, NULL FROM trade_in.trade_in_offer_generated
UNION ALL
SELECT coalesce(accepted_at, event_time), NULL, NULL, trade_in_id, NULL, NULL, NULL FROM trade_in.trade_in_offer_accepted
UNION ALL
SELECT coalesce(declined_at, event_time), NULL, NULL, NULL, trade_in_id, NULL, NULL FROM trade_in.trade_in_offer_declined
UNION ALL
SELECT event_time, NULL, NULL, NULL, NULL, trade_in_id, NULL FROM trade_in.trade_in_value_adjusted
UNION ALL
SELECT coalesce(completed_at, event_time), NULL, NULL, NULL, NULL, NULL, final_value FROM trade_in.trade_in_completed
