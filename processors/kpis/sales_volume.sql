-- title: Sales volume
-- definition: Vehicles sold and returned, and what the sales brought in. A sale counts when it was made (soldAt), a return when the vehicle came back (returnedAt).
-- grain: hour
-- input: inventory.vehicle_sold at sold_at
-- input: trial.vehicle_returned at returned_at
-- value: units_sold integer; listings sold, each once
-- value: revenue CAD; sum of the final prices
-- value: average_price CAD; revenue per unit sold, null when nothing was sold
-- value: units_returned integer; vehicles that came back
-- value: net_units integer; units sold less units returned
SELECT
    bucket,
    sum(sold) AS units_sold,
    coalesce(sum(revenue), 0.0) AS revenue,
    sum(revenue) / nullif(sum(sold), 0) AS average_price,
    sum(returned) AS units_returned,
    sum(sold) - sum(returned) AS net_units
FROM (
    SELECT
        bucket(sold_at) AS bucket,
        count(DISTINCT listing_id) AS sold,
        cast(sum(final_price) AS DOUBLE) AS revenue,
        0 AS returned
    FROM inventory.vehicle_sold
    WHERE sold_at >= $from AND sold_at < $to
    GROUP BY 1
    UNION ALL
    SELECT bucket(returned_at), 0, cast(NULL AS DOUBLE), count(*)
    FROM trial.vehicle_returned
    WHERE returned_at >= $from AND returned_at < $to
    GROUP BY 1
)
GROUP BY bucket
