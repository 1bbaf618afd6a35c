-- title: Production rate
-- definition: Vehicles that passed their final quality check, and how long each had been in production: the hours from the vehicle's latest ProductionStarted.startedAt before the check.
-- owner: Production
-- better: up
-- input: production.quality_check_completed
-- input: production.production_started by vehicle_id
-- dimension: facility; the production facility
-- dimension: make of vehicles by vehicle_id; manufacturer
-- dimension: model of vehicles by vehicle_id; model
-- dimension: body_type of vehicles by vehicle_id; body style
-- value: vehicles_completed integer = count(DISTINCT vehicle_id); vehicles checked, each once
-- value: average_hours_per_vehicle hours = CAST(sum(micros) AS DOUBLE) / 3600000000 / nullif(count(micros), 0); mean time in production, null when no start is known
SELECT
    completed.event_time AS at,
    completed.vehicle_id,
    completed.facility_id AS facility,
    -- Whole microseconds: their sum is the same in any order.
    CAST(completed.event_time AS BIGINT) - CAST(max(started.started_at) AS BIGINT) AS micros
FROM production.quality_check_completed AS completed
LEFT JOIN production.production_started AS started
    ON started.vehicle_id = completed.vehicle_id AND started.started_at <= completed.event_time
GROUP BY completed.event_time, completed.position, completed.vehicle_id, completed.facility_id
