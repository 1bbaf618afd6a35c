-- title: Market share
-- definition: Two shares of the market: the one that the latest MarketShareCalculated of the bucket says, which counts when it was computed (calculatedAt); and units sold (soldAt) per vehicle sold in the whole market in the time of the bucket, which the number market_size tells for a year.
-- owner: Strategy
-- better: up
-- input: analytics.market_share_calculated at calculated_at
-- input: inventory.vehicle_sold at sold_at
-- setting: market_size vehicles; sold in the whole market in a year, by everybody
-- value: market_share ratio = last_value(share ORDER BY at, event_id) FILTER (WHERE share IS NOT NULL); the latest share computed, null when none was
-- value: units_sold integer = count(DISTINCT sold); listings sold, each once
-- value: share_of_market_size ratio = CAST(count(DISTINCT sold) AS DOUBLE) / nullif({market_size} * {years}, 0); units sold per vehicle sold in the whole market, null unless market_size is set
SELECT coalesce(calculated_at, event_time) AS at, event_id, market_share AS share, CAST(NULL AS VARCHAR) AS sold
FROM analytics.market_share_calculated
UNION ALL
SELECT sold_at, event_id, NULL, listing_id
FROM inventory.vehicle_sold
