-- title: Funnel
-- definition: How many come how far: shoppers who searched and who viewed a vehicle, reservations confirmed, agreements signed, vehicles delivered or picked up, and vehicles kept after the trial; each counted once in a bucket, when it happened.
-- owner: Growth
-- better: up
-- input: browsing.user_searched
-- input: browsing.vehicle_viewed
-- input: purchase.reservation_confirmed
-- input: purchase.documents_signed
-- input: delivery.delivery_completed
-- input: delivery.customer_pickup_completed
-- input: trial.vehicle_kept
-- dimension: make of vehicles by vehicle_id; manufacturer
-- dimension: model of vehicles by vehicle_id; model
-- dimension: body_type of vehicles by vehicle_id; body style
-- value: searched integer = count(DISTINCT searched); shoppers who searched
-- value: viewed integer = count(DISTINCT viewed); shoppers who viewed a vehicle
-- value: reserved integer = count(DISTINCT reserved); reservations confirmed
-- value: agreed integer = count(DISTINCT agreed); agreements signed
-- value: delivered integer = count(DISTINCT delivered); vehicles delivered or picked up
-- value: kept integer = count(DISTINCT kept); trials that ended with the vehicle kept
-- value: reserved_per_viewer ratio = CAST(count(DISTINCT reserved) AS DOUBLE) / nullif(count(DISTINCT viewed), 0); reservations per shopper who viewed
-- value: kept_per_delivery ratio = CAST(count(DISTINCT kept) AS DOUBLE) / nullif(count(DISTINCT delivered), 0); kept per delivered
-- headline: kept
SELECT event_time AS at, CAST(NULL AS VARCHAR) AS vehicle_id, user_id AS searched, CAST(NULL AS VARCHAR) AS viewed, CAST(NULL AS VARCHAR) AS reserved, CAST(NULL AS VARCHAR) AS agreed, CAST(NULL AS VARCHAR) AS delivered, CAST(NULL AS VARCHAR) AS kept
FROM browsing.user_searched
UNION ALL
SELECT event_time, vehicle_id, NULL, user_id, NULL, NULL, NULL, NULL FROM browsing.vehicle_viewed
UNION ALL
SELECT event_time, vehicle_id, NULL, NULL, reservation_id, NULL, NULL, NULL FROM purchase.reservation_confirmed
UNION ALL
SELECT event_time, vehicle_id, NULL, NULL, NULL, agreement_id, NULL, NULL FROM purchase.documents_signed
UNION ALL
SELECT event_time, vehicle_id, NULL, NULL, NULL, NULL, delivery_id, NULL FROM delivery.delivery_completed
UNION ALL
SELECT event_time, vehicle_id, NULL, NULL, NULL, NULL, pickup_id, NULL FROM delivery.customer_pickup_completed
UNION ALL
SELECT event_time, vehicle_id, NULL, NULL, NULL, NULL, NULL, trial_id FROM trial.vehicle_kept
