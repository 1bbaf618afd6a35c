-- title: Days to sell
-- definition: The days from a listing's first publication to its sale, of the listings sold in the bucket (soldAt). Slow movers took more than 90 days.
-- owner: Retail
-- better: down
-- input: inventory.vehicle_sold at sold_at
-- input: inventory.listing_published by listing_id
-- input: production.vehicle_listed_for_sale by listing_id
-- dimension: make of listings by listing_id; manufacturer
-- dimension: model of listings by listing_id; model
-- dimension: body_type of listings by listing_id; body style
-- dimension: fuel_type of listings by listing_id; energy source
-- dimension: province of listings by listing_id; where it stands
-- dimension: dealer of listings by listing_id; who sells it
-- value: units integer = count(days); listings sold whose publication is known
-- value: mean_days days = CAST(sum(micros) AS DOUBLE) / 86400000000 / nullif(count(micros), 0); mean days on offer
-- value: median_days days = median(days); half were sold within
-- value: p90_days days = percentile_cont(0.9) WITHIN GROUP (ORDER BY days); nine of ten were sold within
-- value: slow_movers integer = count(CASE WHEN days > 90 THEN 1 END); sold after more than 90 days
-- value: slow_share ratio = CAST(count(CASE WHEN days > 90 THEN 1 END) AS DOUBLE) / nullif(count(days), 0); of those sold
-- headline: median_days
SELECT at, listing_id, micros, CAST(micros AS DOUBLE) / 86400000000 AS days
FROM (
    SELECT
        sold.sold_at AS at,
        sold.listing_id,
        CAST(sold.sold_at AS BIGINT) - CAST(min(public.public_at) AS BIGINT) AS micros
    FROM inventory.vehicle_sold AS sold
    LEFT JOIN (
        SELECT listing_id, event_time AS public_at FROM inventory.listing_published
        UNION ALL
        SELECT listing_id, event_time FROM production.vehicle_listed_for_sale
    ) AS public ON public.listing_id = sold.listing_id AND public.public_at <= sold.sold_at
    GROUP BY sold.sold_at, sold.position, sold.listing_id
)
