-- What a listing offers, as it was listed; or as its vehicle was described when it was bought.
SELECT
    listed.listing_id,
    coalesce(listed.make, described.make) AS make,
    coalesce(listed.model, described.model) AS model,
    coalesce(listed.body_type, described.body_type) AS body_type,
    coalesce(listed.fuel_type, described.fuel_type) AS fuel_type,
    listed.province,
    listed.city,
    listed.dealer
FROM (
    SELECT
        listing_id,
        last_value(vehicle_id ORDER BY event_time, event_id) AS vehicle_id,
        last_value(make ORDER BY event_time, event_id) AS make,
        last_value(model ORDER BY event_time, event_id) AS model,
        last_value(body_type ORDER BY event_time, event_id) AS body_type,
        last_value(fuel_type ORDER BY event_time, event_id) AS fuel_type,
        last_value(province ORDER BY event_time, event_id) AS province,
        last_value(city ORDER BY event_time, event_id) AS city,
        last_value(coalesce(dealer_name, dealer_id) ORDER BY event_time, event_id) AS dealer
    FROM inventory.vehicle_listing_created
    GROUP BY listing_id
) AS listed
LEFT JOIN (
    SELECT
        vehicle_id,
        last_value(make ORDER BY event_time, event_id) AS make,
        last_value(model ORDER BY event_time, event_id) AS model,
        last_value(body_type ORDER BY event_time, event_id) AS body_type,
        last_value(fuel_type ORDER BY event_time, event_id) AS fuel_type
    FROM acquisition.vehicle_details_submitted
    GROUP BY vehicle_id
) AS described ON described.vehicle_id = listed.vehicle_id
