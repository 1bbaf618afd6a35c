-- What a vehicle is, as it was described when it was bought, or else as it was listed.
SELECT
    vehicle_id,
    first_value(make ORDER BY source, event_time DESC, event_id) FILTER (WHERE make IS NOT NULL) AS make,
    first_value(model ORDER BY source, event_time DESC, event_id) FILTER (WHERE model IS NOT NULL) AS model,
    first_value(body_type ORDER BY source, event_time DESC, event_id) FILTER (WHERE body_type IS NOT NULL) AS body_type,
    first_value(fuel_type ORDER BY source, event_time DESC, event_id) FILTER (WHERE fuel_type IS NOT NULL) AS fuel_type
FROM (
    SELECT 1 AS source, event_time, event_id, vehicle_id, make, model, body_type, fuel_type
    FROM acquisition.vehicle_details_submitted
    UNION ALL
    SELECT 2, event_time, event_id, vehicle_id, make, model, body_type, fuel_type
    FROM inventory.vehicle_listing_created
)
WHERE vehicle_id IS NOT NULL
GROUP BY vehicle_id
