-- title: Pricing
-- definition: Asking prices set, sales beside the first asking price of their listing, and how often prices change. A price counts at its event's time, a sale when it was made (soldAt); a price after a listing's first is a change. Deals compare what was asked, by us first for a listing and by a dealer at each listing (listedAt), with the market value (else the estimated) that the vehicle was last valued at by then; below 40 % of it is a mistake and no deal.
-- owner: Pricing
-- input: inventory.price_set
-- input: inventory.price_set by listing_id
-- input: inventory.vehicle_sold at sold_at
-- input: inventory.vehicle_listing_created by listing_id
-- input: dealers.vehicle_listed at listed_at
-- input: dealers.vehicle_valuation_updated by vehicle_id
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
-- value: deals_rated integer = count(of_value); asking prices of vehicles that had been valued
-- value: great_deals ratio = CAST(count(CASE WHEN of_value <= 0.90 THEN 1 END) AS DOUBLE) / nullif(count(of_value), 0); of these, at most 90 % of the market value
-- value: good_deals ratio = CAST(count(CASE WHEN of_value > 0.90 AND of_value <= 0.96 THEN 1 END) AS DOUBLE) / nullif(count(of_value), 0); of these, over 90 % and at most 96 %
-- value: fair_deals ratio = CAST(count(CASE WHEN of_value > 0.96 AND of_value <= 1.05 THEN 1 END) AS DOUBLE) / nullif(count(of_value), 0); of these, over 96 % and at most 105 %
-- value: high_prices ratio = CAST(count(CASE WHEN of_value > 1.05 AND of_value <= 1.15 THEN 1 END) AS DOUBLE) / nullif(count(of_value), 0); of these, over 105 % and at most 115 %
-- value: overpriced ratio = CAST(count(CASE WHEN of_value > 1.15 THEN 1 END) AS DOUBLE) / nullif(count(of_value), 0); of these, over 115 %
SELECT
    event_time AS at, listing_id, CAST(NULL AS VARCHAR) AS vehicle_id, listing_id AS priced,
    CASE WHEN before IS NULL THEN price END AS listed,
    CASE WHEN before <> price THEN price - before END AS change,
    CAST(NULL AS DECIMAL(12, 2)) AS final_price, CAST(NULL AS DECIMAL(12, 2)) AS first_price,
    CAST(NULL AS DOUBLE) AS of_value
FROM (
    SELECT event_time, listing_id, price, lag(price) OVER (PARTITION BY listing_id ORDER BY event_time, event_id) AS before
    FROM inventory.price_set
)
UNION ALL
SELECT sold.sold_at, sold.listing_id, NULL, NULL, NULL, NULL, sold.final_price, asked.first_price, NULL
FROM inventory.vehicle_sold AS sold
LEFT JOIN (
    SELECT listing_id, first_value(price ORDER BY event_time, event_id) AS first_price
    FROM inventory.price_set
    GROUP BY listing_id
) AS asked ON asked.listing_id = sold.listing_id
UNION ALL
SELECT at, listing_id, vehicle_id, NULL, NULL, NULL, NULL, NULL, CASE WHEN of_value >= 0.4 THEN of_value END
FROM (
    SELECT
        asked.at, asked.listing_id, asked.vehicle_id,
        CAST(asked.price AS DOUBLE) / nullif(CAST(last_value(valued.market_value ORDER BY valued.at, valued.event_id) AS DOUBLE), 0) AS of_value
    FROM (
        SELECT first.event_id, first.at, first.listing_id, first.price, listed.vehicle_id
        FROM (
            SELECT
                listing_id, min(event_time) AS at,
                first_value(event_id ORDER BY event_time, event_id) AS event_id,
                first_value(price ORDER BY event_time, event_id) AS price
            FROM inventory.price_set
            GROUP BY listing_id
        ) AS first
        JOIN (
            SELECT listing_id, last_value(vehicle_id ORDER BY event_time, event_id) AS vehicle_id
            FROM inventory.vehicle_listing_created
            GROUP BY listing_id
        ) AS listed ON listed.listing_id = first.listing_id
        UNION ALL
        SELECT event_id, coalesce(listed_at, event_time), listing_id, price, vehicle_id
        FROM dealers.vehicle_listed
        WHERE price IS NOT NULL
    ) AS asked
    JOIN (
        SELECT vehicle_id, event_id, coalesce(valuation_date, event_time) AS at, coalesce(market_value, estimated_value) AS market_value
        FROM dealers.vehicle_valuation_updated
    ) AS valued ON valued.vehicle_id = asked.vehicle_id AND valued.at <= asked.at
    GROUP BY asked.event_id, asked.at, asked.listing_id, asked.vehicle_id, asked.price
)
