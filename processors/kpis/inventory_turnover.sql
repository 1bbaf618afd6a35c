-- title: Inventory turnover
-- definition: How often a year the stock is sold: 365 per mean days in stock of the vehicles sold in the bucket, from the vehicle's latest purchase (VehiclePurchased) before the sale to the sale (soldAt).
-- owner: Retail
-- better: up
-- input: inventory.vehicle_sold at sold_at
-- input: inventory.vehicle_listing_created by listing_id
-- input: acquisition.vehicle_purchased by vehicle_id
-- dimension: make of listings by listing_id; manufacturer
-- dimension: model of listings by listing_id; model
-- dimension: body_type of listings by listing_id; body style
-- dimension: fuel_type of listings by listing_id; energy source
-- dimension: province of listings by listing_id; where it stands
-- dimension: dealer of listings by listing_id; who sells it
-- value: turns_per_year turns = 365.0 * 86400000000 * count(micros) / nullif(CAST(sum(micros) AS DOUBLE), 0); times a year, null when nothing was sold
-- value: days_in_stock days = CAST(sum(micros) AS DOUBLE) / 86400000000 / nullif(count(micros), 0); mean days from purchase to sale
-- value: units integer = count(micros); vehicles sold whose purchase is known
SELECT
    sold.at,
    sold.listing_id,
    sold.vehicle_id,
    CAST(sold.at AS BIGINT) - CAST(max(purchase.event_time) AS BIGINT) AS micros
FROM (
    SELECT
        made.sold_at AS at,
        made.position,
        made.listing_id,
        coalesce(made.vehicle_id, listed.vehicle_id) AS vehicle_id
    FROM inventory.vehicle_sold AS made
    LEFT JOIN (
        SELECT listing_id, last_value(vehicle_id ORDER BY event_time, event_id) AS vehicle_id
        FROM inventory.vehicle_listing_created
        GROUP BY listing_id
    ) AS listed ON listed.listing_id = made.listing_id
) AS sold
LEFT JOIN acquisition.vehicle_purchased AS purchase
    ON purchase.vehicle_id = sold.vehicle_id AND purchase.event_time <= sold.at
GROUP BY sold.at, sold.position, sold.listing_id, sold.vehicle_id
