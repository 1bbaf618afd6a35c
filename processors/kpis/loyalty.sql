-- title: Loyalty
-- definition: Points earned, redeemed and expired, customers enrolled, and moves to a higher tier; each at its event's time.
-- owner: Loyalty
-- better: up
-- input: loyalty.points_earned
-- input: loyalty.points_redeemed
-- input: loyalty.points_expired
-- input: loyalty.customer_enrolled
-- input: loyalty.tier_upgraded
-- dimension: program; the programme
-- value: earned points = sum(points_earned); points earned
-- value: redeemed points = sum(points_redeemed); points redeemed
-- value: expired points = sum(points_expired); points expired
-- value: redemption_rate ratio = CAST(coalesce(sum(points_redeemed), 0) AS DOUBLE) / nullif(sum(points_earned), 0); redeemed per earned
-- value: enrolled integer = count(enrolled); customers enrolled
-- value: upgraded integer = count(upgraded); moves to a higher tier
SELECT event_time AS at, program_id AS program, points_earned, CAST(NULL AS BIGINT) AS points_redeemed, CAST(NULL AS BIGINT) AS points_expired, CAST(NULL AS VARCHAR) AS enrolled, CAST(NULL AS VARCHAR) AS upgraded
FROM loyalty.points_earned
UNION ALL
SELECT event_time, program_id, NULL, points_redeemed, NULL, NULL, NULL FROM loyalty.points_redeemed
UNION ALL
SELECT event_time, program_id, NULL, NULL, points_expired, NULL, NULL FROM loyalty.points_expired
UNION ALL
SELECT event_time, program_id, NULL, NULL, NULL, customer_id, NULL FROM loyalty.customer_enrolled
UNION ALL
SELECT event_time, program_id, NULL, NULL, NULL, NULL, customer_id FROM loyalty.tier_upgraded
