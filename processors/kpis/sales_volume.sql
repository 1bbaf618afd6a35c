-- title: Sales volume
-- definition: Vehicles sold and returned, and what the sales brought in. A sale counts when it was made (soldAt), a return when the vehicle came back (returnedAt).
-- owner: Retail
-- better: up
-- input: inventory.vehicle_sold at sold_at
-- input: trial.vehicle_returned at returned_at
-- dimension: make of listings by listing_id; manufacturer
-- dimension: model of listings by listing_id; model
-- dimension: body_type of listings by listing_id; body style
-- dimension: fuel_type of listings by listing_id; energy source
-- dimension: province of listings by listing_id; where it stands
-- dimension: dealer of listings by listing_id; who sells it
-- dimension: price_band; the final price
-- value: units_sold integer = count(DISTINCT sold); listings sold, each once
-- value: revenue CAD = sum(final_price); sum of the final prices
-- value: average_price CAD = CAST(sum(final_price) AS DOUBLE) / nullif(count(DISTINCT sold), 0); revenue per unit sold, null when nothing was sold
-- value: units_returned integer = count(returned); vehicles that came back
-- value: net_units integer = count(DISTINCT sold) - count(returned); units sold less units returned
-- headline: units_sold
SELECT
    sold_at AS at, listing_id, listing_id AS sold, final_price,
    CASE WHEN final_price < 10000 THEN 'under 10k' WHEN final_price < 20000 THEN '10k to 20k' WHEN final_price < 30000 THEN '20k to 30k' WHEN final_price < 50000 THEN '30k to 50k' WHEN final_price IS NOT NULL THEN '50k and more' END AS price_band,
    CAST(NULL AS VARCHAR) AS returned
FROM inventory.vehicle_sold
UNION ALL
SELECT returned_at, listing_id, NULL, NULL, NULL, return_id
FROM trial.vehicle_returned
