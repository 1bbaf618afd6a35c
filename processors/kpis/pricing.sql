-- title: Pricing
-- definition: Asking prices set, sales beside the first asking price of their listing, and how often prices change. A price counts at its event's time, a sale when it was made (soldAt); a price after a listing's first is a change.
-- owner: Pricing
-- input: inventory.price_set
-- input: inventory.price_set by listing_id
-- input: inventory.vehicle_sold at sold_at
-- dimension: make of listings by listing_id; manufacturer
-- dimension: model of listings by listing_id; model
-- dimension: body_type of listings by listing_id; body style
-- dimension: fuel_type of listings by listing_id; energy source
-- dimension: province of listings by listing_id; where it stands
-- dimension: dealer of listings by listing_id; who sells it
-- value: average_list_price CAD = CAST(sum(listed) AS DOUBLE) / nullif(count(listed), 0); mean first asking price of listings first priced in the bucket
-- value: average_sale_price CAD = CAST(sum(final_price) AS DOUBLE) / nullif(count(final_price), 0); mean final price
-- value: average_discount ratio = CAST(sum(first_price) - sum(CASE WHEN first_price IS NOT NULL THEN final_price END) AS DOUBLE) / nullif(CAST(sum(first_price) AS DOUBLE), 0); how far sales were below the first asking price
-- value: price_changes integer = count(change); prices changed
-- value: price_cuts integer = count(CASE WHEN change < 0 THEN 1 END); of these, lowered
-- value: changes_per_listing changes = CAST(count(change) AS DOUBLE) / nullif(count(DISTINCT priced), 0); per listing priced in the bucket
SELECT
    event_time AS at, listing_id, listing_id AS priced,
    CASE WHEN before IS NULL THEN price END AS listed,
    CASE WHEN before <> price THEN price - before END AS change,
    CAST(NULL AS DECIMAL(12, 2)) AS final_price, CAST(NULL AS DECIMAL(12, 2)) AS first_price
FROM (
    SELECT event_time, listing_id, price, lag(price) OVER (PARTITION BY listing_id ORDER BY event_time, event_id) AS before
    FROM inventory.price_set
)
UNION ALL
SELECT sold.sold_at, sold.listing_id, NULL, NULL, NULL, sold.final_price, asked.first_price
FROM inventory.vehicle_sold AS sold
LEFT JOIN (
    SELECT listing_id, first_value(price ORDER BY event_time, event_id) AS first_price
    FROM inventory.price_set
    GROUP BY listing_id
) AS asked ON asked.listing_id = sold.listing_id
