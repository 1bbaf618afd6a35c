-- title: Warranty claims
-- definition: Claims made (submittedAt) and approved (approvedAt) under warranties, what they cover, and extended warranties sold (purchasedAt).
-- owner: Customer care
-- better: down
-- input: warranty.warranty_claim_submitted at submitted_at
-- input: warranty.warranty_claim_approved at approved_at
-- input: warranty.extended_warranty_purchased at purchased_at
-- dimension: make of vehicles by vehicle_id; manufacturer
-- dimension: model of vehicles by vehicle_id; model
-- dimension: body_type of vehicles by vehicle_id; body style
-- value: claims integer = count(claim); claims made
-- value: approved integer = count(approved); claims approved
-- value: approval_rate ratio = CAST(count(approved) AS DOUBLE) / nullif(count(claim), 0); approved per claim made in the bucket
-- value: covered CAD = sum(coverage_amount); sum of the amounts approved
-- value: average_covered CAD = CAST(sum(coverage_amount) AS DOUBLE) / nullif(count(coverage_amount), 0); mean amount approved
-- value: extended_sold integer = count(extended); extended warranties sold
-- value: extended_revenue CAD = sum(cost); what they brought in
SELECT coalesce(submitted_at, event_time) AS at, vehicle_id, claim_id AS claim, CAST(NULL AS VARCHAR) AS approved, CAST(NULL AS DECIMAL(12, 2)) AS coverage_amount, CAST(NULL AS VARCHAR) AS extended, CAST(NULL AS DECIMAL(12, 2)) AS cost
FROM warranty.warranty_claim_submitted
UNION ALL
SELECT coalesce(approved_at, event_time), NULL, NULL, claim_id, coverage_amount, NULL, NULL FROM warranty.warranty_claim_approved
UNION ALL
SELECT coalesce(purchased_at, event_time), vehicle_id, NULL, NULL, NULL, warranty_id, cost FROM warranty.extended_warranty_purchased
