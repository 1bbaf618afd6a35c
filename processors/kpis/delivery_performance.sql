-- title: Delivery performance
-- definition: Deliveries completed (deliveredAt), how many came no later than the day they were scheduled for (the latest DeliveryScheduled), and the hours from the departure (VehicleInTransit) to the door.
-- owner: Logistics
-- better: up
-- input: delivery.delivery_completed at delivered_at
-- input: delivery.delivery_scheduled by delivery_id
-- input: delivery.vehicle_in_transit by delivery_id
-- dimension: make of vehicles by vehicle_id; manufacturer
-- dimension: model of vehicles by vehicle_id; model
-- dimension: body_type of vehicles by vehicle_id; body style
-- value: deliveries integer = count(delivery_id); deliveries completed
-- value: on_time integer = count(CASE WHEN at < due THEN 1 END); by the end of the day planned, in UTC
-- value: on_time_rate ratio = CAST(count(CASE WHEN at < due THEN 1 END) AS DOUBLE) / nullif(count(due), 0); of those that were planned
-- value: average_hours hours = CAST(sum(micros) AS DOUBLE) / 3600000000 / nullif(count(micros), 0); mean time on the road
-- headline: on_time_rate
-- target: on_time_rate 0.95
SELECT
    done.at,
    done.delivery_id,
    done.vehicle_id,
    date_trunc('day', planned.scheduled_date) + INTERVAL '1 day' AS due,
    CAST(done.at AS BIGINT) - CAST(left_at.departed_at AS BIGINT) AS micros
FROM (
    SELECT coalesce(delivered_at, event_time) AS at, delivery_id, vehicle_id FROM delivery.delivery_completed
) AS done
LEFT JOIN (
    SELECT delivery_id, last_value(scheduled_date ORDER BY event_time, event_id) AS scheduled_date
    FROM delivery.delivery_scheduled
    GROUP BY delivery_id
) AS planned ON planned.delivery_id = done.delivery_id
LEFT JOIN (
    SELECT delivery_id, last_value(coalesce(departed_at, event_time) ORDER BY event_time, event_id) AS departed_at
    FROM delivery.vehicle_in_transit
    GROUP BY delivery_id
) AS left_at ON left_at.delivery_id = done.delivery_id
