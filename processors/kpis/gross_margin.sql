-- title: Gross margin
-- definition: What sales brought in beyond what the vehicles cost: the final price less what the seller was paid (the vehicle's latest purchase before the sale) and less its repairs completed between the two. Only sales whose purchase is known count, when they were made (soldAt).
-- owner: Finance
-- better: up
-- input: inventory.vehicle_sold at sold_at
-- input: inventory.vehicle_listing_created by listing_id
-- input: acquisition.vehicle_purchased by vehicle_id
-- input: production.repair_completed by vehicle_id
-- dimension: make of listings by listing_id; manufacturer
-- dimension: model of listings by listing_id; model
-- dimension: body_type of listings by listing_id; body style
-- dimension: fuel_type of listings by listing_id; energy source
-- dimension: province of listings by listing_id; where it stands
-- dimension: dealer of listings by listing_id; who sells it
-- value: units integer = count(final_price); sales whose purchase is known
-- value: revenue CAD = sum(final_price); their final prices
-- value: purchase_cost CAD = sum(paid); what sellers were paid
-- value: reconditioning_cost CAD = sum(repaired); what repairs cost
-- value: gross_margin CAD = sum(final_price) - sum(paid) - sum(repaired); revenue less both
-- value: margin_per_unit CAD = CAST(sum(final_price) - sum(paid) - sum(repaired) AS DOUBLE) / nullif(count(final_price), 0); per sale
-- value: margin_rate ratio = CAST(sum(final_price) - sum(paid) - sum(repaired) AS DOUBLE) / nullif(CAST(sum(final_price) AS DOUBLE), 0); of revenue
-- headline: gross_margin
SELECT
    at, listing_id, vehicle_id, paid,
    CASE WHEN paid IS NOT NULL THEN final_price END AS final_price,
    CASE WHEN paid IS NOT NULL THEN coalesce(repaired, 0) END AS repaired
FROM (
    SELECT
        bought.at,
        bought.listing_id,
        bought.vehicle_id,
        bought.final_price,
        bought.paid,
        sum(repair.actual_cost) AS repaired
    FROM (
        SELECT
            sold.at,
            sold.position,
            sold.listing_id,
            sold.vehicle_id,
            sold.final_price,
            max(purchase.event_time) AS bought_at,
            last_value(purchase.amount ORDER BY purchase.event_time, purchase.event_id) AS paid
        FROM (
            SELECT
                made.sold_at AS at,
                made.position,
                made.listing_id,
                made.final_price,
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
        GROUP BY sold.at, sold.position, sold.listing_id, sold.vehicle_id, sold.final_price
    ) AS bought
    LEFT JOIN production.repair_completed AS repair
        ON repair.vehicle_id = bought.vehicle_id
        AND repair.event_time >= bought.bought_at AND repair.event_time <= bought.at
    GROUP BY bought.at, bought.position, bought.listing_id, bought.vehicle_id, bought.final_price, bought.paid
)
