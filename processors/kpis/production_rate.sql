-- title: Production rate
-- definition: Vehicles that passed their final quality check, and how long each had been in production: the hours from the vehicle's latest ProductionStarted.startedAt before the check.
-- grain: hour
-- input: production.quality_check_completed
-- input: production.production_started joins production.quality_check_completed on vehicle_id
-- value: vehicles_completed integer; vehicles checked, each once
-- value: average_hours_per_vehicle hours; mean time in production, null when no start is known
WITH completed AS (
    SELECT position, vehicle_id, event_time
    FROM production.quality_check_completed
    WHERE event_time >= $from AND event_time < $to
),
began AS (
    SELECT completed.position, max(started.started_at) AS started_at
    FROM completed
    JOIN production.production_started AS started
        ON started.vehicle_id = completed.vehicle_id AND started.started_at <= completed.event_time
    GROUP BY completed.position
)
SELECT
    bucket(completed.event_time) AS bucket,
    count(DISTINCT completed.vehicle_id) AS vehicles_completed,
    -- Microseconds as whole numbers: their sum is the same in any order.
    cast(sum(cast(completed.event_time AS BIGINT) - cast(began.started_at AS BIGINT)) AS DOUBLE)
        / 3600000000 / count(began.started_at) AS average_hours_per_vehicle
FROM completed
LEFT JOIN began ON began.position = completed.position
GROUP BY 1
