-- title: Offer volume
-- definition: Offers made to sellers and how they were answered. An offer counts when it was generated; an answer counts when it was given (acceptedAt, rejectedAt, expiredAt), else at its event's time.
-- owner: Acquisition
-- better: up
-- input: acquisition.ai_offer_generated
-- input: acquisition.offer_accepted at accepted_at
-- input: acquisition.offer_rejected at rejected_at
-- input: acquisition.offer_expired at expired_at
-- dimension: make of vehicles by vehicle_id; manufacturer
-- dimension: model of vehicles by vehicle_id; model
-- dimension: body_type of vehicles by vehicle_id; body style
-- value: offers_generated integer = count(DISTINCT generated); offers made, each once
-- value: offers_accepted integer = count(accepted); offers accepted in the bucket
-- value: offers_rejected integer = count(rejected); offers rejected in the bucket
-- value: offers_expired integer = count(expired); offers that lapsed in the bucket
-- value: acceptance_rate ratio = CAST(count(accepted) AS DOUBLE) / nullif(count(DISTINCT generated), 0); accepted per generated in the bucket, null when none was generated
-- value: average_offer CAD = CAST(sum(offer_amount) AS DOUBLE) / nullif(count(offer_amount), 0); mean amount offered, null when none was generated
SELECT event_time AS at, vehicle_id, offer_id AS generated, offer_amount, CAST(NULL AS VARCHAR) AS accepted, CAST(NULL AS VARCHAR) AS rejected, CAST(NULL AS VARCHAR) AS expired
FROM acquisition.ai_offer_generated
UNION ALL
SELECT accepted_at, vehicle_id, NULL, NULL, offer_id, NULL, NULL
FROM acquisition.offer_accepted
UNION ALL
SELECT coalesce(rejected_at, event_time), vehicle_id, NULL, NULL, NULL, offer_id, NULL
FROM acquisition.offer_rejected
UNION ALL
SELECT coalesce(expired_at, event_time), vehicle_id, NULL, NULL, NULL, NULL, offer_id
FROM acquisition.offer_expired
