-- title: Reconditioning
-- definition: Repairs completed (completedAt) and what they cost, the hours vehicles were in the workshop (from ReconditioningStarted to each repair's end, of its work order), and inspection points passed.
-- owner: Production
-- better: down
-- input: production.repair_completed at completed_at
-- input: production.repair_item_identified by repair_item_id
-- input: production.reconditioning_started by work_order_id
-- input: production.inspection_point_completed
-- dimension: category; the kind of repair
-- dimension: make of vehicles by vehicle_id; manufacturer
-- dimension: model of vehicles by vehicle_id; model
-- dimension: body_type of vehicles by vehicle_id; body style
-- value: repairs integer = count(repair_item_id); repairs completed
-- value: cost CAD = sum(actual_cost); what they cost
-- value: vehicles integer = count(DISTINCT repaired); vehicles repaired, each once
-- value: cost_per_vehicle CAD = CAST(sum(actual_cost) AS DOUBLE) / nullif(count(DISTINCT repaired), 0); per vehicle repaired
-- value: repairs_per_vehicle repairs = CAST(count(repair_item_id) AS DOUBLE) / nullif(count(DISTINCT repaired), 0); per vehicle repaired
-- value: average_hours hours = CAST(sum(micros) AS DOUBLE) / 3600000000 / nullif(count(micros), 0); mean hours from the start of the work order to a repair's end
-- value: points_checked integer = count(point_passed); inspection points looked at
-- value: pass_rate ratio = CAST(sum(point_passed) AS DOUBLE) / nullif(count(point_passed), 0); of these, passed
-- headline: cost_per_vehicle
SELECT
    done.at, done.vehicle_id, done.repair_item_id, done.work_order_id, item.category, done.vehicle_id AS repaired, done.actual_cost,
    CAST(done.at AS BIGINT) - CAST(work.started_at AS BIGINT) AS micros,
    CAST(NULL AS BIGINT) AS point_passed
FROM (
    SELECT coalesce(completed_at, event_time) AS at, vehicle_id, repair_item_id, work_order_id, actual_cost
    FROM production.repair_completed
) AS done
LEFT JOIN (
    SELECT repair_item_id, last_value(category ORDER BY event_time, event_id) AS category
    FROM production.repair_item_identified
    GROUP BY repair_item_id
) AS item ON item.repair_item_id = done.repair_item_id
LEFT JOIN (
    SELECT work_order_id, min(coalesce(started_at, event_time)) AS started_at
    FROM production.reconditioning_started
    GROUP BY work_order_id
) AS work ON work.work_order_id = done.work_order_id
UNION ALL
SELECT event_time, vehicle_id, NULL, NULL, NULL, NULL, NULL, NULL, CASE WHEN lower(status) IN ('pass', 'passed', 'ok') THEN 1 ELSE 0 END
FROM production.inspection_point_completed
