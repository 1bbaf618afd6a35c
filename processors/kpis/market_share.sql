-- title: Market share
-- definition: The share of the market, as the latest MarketShareCalculated of the bucket says, and the units sold beside it. A share counts when it was computed (calculatedAt).
-- owner: Strategy
-- better: up
-- input: analytics.market_share_calculated at calculated_at
-- input: inventory.vehicle_sold at sold_at
-- value: market_share ratio = last_value(share ORDER BY at, event_id) FILTER (WHERE share IS NOT NULL); the latest share computed, null when none was
-- value: units_sold integer = count(DISTINCT sold); listings sold, each once
SELECT coalesce(calculated_at, event_time) AS at, event_id, market_share AS share, CAST(NULL AS VARCHAR) AS sold
FROM analytics.market_share_calculated
UNION ALL
SELECT sold_at, event_id, NULL, listing_id
FROM inventory.vehicle_sold
