-- title: Inventory
-- definition: What is on offer at the end of a bucket. A listing is on offer from its publication (or VehicleListedForSale) until it is sold or deactivated; it is worth its latest asking price. It is reserved from the confirmation of a reservation until that expires, ends, or the listing leaves the offer.
-- owner: Retail
-- measures: level
-- input: inventory.listing_published by listing_id
-- input: inventory.listing_published
-- input: production.vehicle_listed_for_sale by listing_id
-- input: production.vehicle_listed_for_sale
-- input: inventory.vehicle_sold by listing_id
-- input: inventory.vehicle_sold
-- input: inventory.listing_deactivated by listing_id
-- input: inventory.listing_deactivated
-- input: inventory.price_set by listing_id
-- input: inventory.price_set
-- input: purchase.reservation_confirmed by listing_id
-- input: purchase.reservation_confirmed
-- input: inventory.reservation_expired by listing_id
-- input: inventory.reservation_expired
-- dimension: make of listings by listing_id; manufacturer
-- dimension: model of listings by listing_id; model
-- dimension: body_type of listings by listing_id; body style
-- dimension: fuel_type of listings by listing_id; energy source
-- dimension: province of listings by listing_id; where it stands
-- dimension: dealer of listings by listing_id; who sells it
-- value: total integer = sum(offered); listings on offer
-- value: available integer = sum(offered) - sum(held); of these, not reserved
-- value: reserved integer = sum(held); of these, reserved
-- value: value CAD = sum(worth); sum of their asking prices
-- headline: total
SELECT at, listing_id, offered, held, worth
FROM (
    SELECT
        event_time AS at,
        listing_id,
        is_public - lag(is_public, 1, 0) OVER listing AS offered,
        is_held * is_public - lag(is_held * is_public, 1, 0) OVER listing AS held,
        is_public * coalesce(asked, 0) - lag(is_public * coalesce(asked, 0), 1, 0) OVER listing AS worth
    FROM (
        SELECT
            event_time,
            event_id,
            listing_id,
            coalesce(last_value(public) IGNORE NULLS OVER until_now, 0) AS is_public,
            coalesce(last_value(reserved) IGNORE NULLS OVER until_now, 0) AS is_held,
            last_value(price) IGNORE NULLS OVER until_now AS asked
        FROM (
            SELECT event_time, event_id, listing_id, 1 AS public, CAST(NULL AS BIGINT) AS reserved, CAST(NULL AS DECIMAL(12, 2)) AS price
            FROM inventory.listing_published
            UNION ALL
            SELECT event_time, event_id, listing_id, 1, NULL, price FROM production.vehicle_listed_for_sale
            UNION ALL
            SELECT event_time, event_id, listing_id, 0, 0, NULL FROM inventory.vehicle_sold
            UNION ALL
            SELECT event_time, event_id, listing_id, 0, 0, NULL FROM inventory.listing_deactivated
            UNION ALL
            SELECT event_time, event_id, listing_id, NULL, NULL, price FROM inventory.price_set
            UNION ALL
            SELECT event_time, event_id, listing_id, NULL, 1, NULL FROM purchase.reservation_confirmed WHERE listing_id IS NOT NULL
            UNION ALL
            SELECT event_time, event_id, listing_id, NULL, 0, NULL FROM inventory.reservation_expired WHERE listing_id IS NOT NULL
        )
        WINDOW until_now AS (PARTITION BY listing_id ORDER BY event_time, event_id ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)
    )
    WINDOW listing AS (PARTITION BY listing_id ORDER BY event_time, event_id)
)
