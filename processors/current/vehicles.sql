-- definition: Vehicles: one row per vehicle, its life from the first offer to its keeping or return, each milestone with its time and amount.
-- column: vehicle_id; The vehicle.
-- column: listing_id; Its last listing.
-- column: last_milestone; How far it has come: offered, purchased, received, certified, listed, published, sold, delivered, kept or returned.
-- column: first_offered_at; When an offer was first made for it.
-- column: offer_amount; The last offer to its seller (CAD).
-- column: purchased_at; When it was bought.
-- column: purchase_amount; What it was bought for (CAD).
-- column: received_at; When it arrived at a facility.
-- column: facility_id; The facility that worked on it.
-- column: certified_at; When it was certified.
-- column: listed_at; When its listing was created.
-- column: published_at; When its listing was first shown.
-- column: first_price; The first price asked (CAD).
-- column: last_price; The last price asked (CAD).
-- column: prices; How often a price was set.
-- column: sold_at; When it was last sold.
-- column: sold_price; What it was last sold for (CAD).
-- column: delivered_at; When it was last delivered.
-- column: kept_at; When its buyer decided to keep it.
-- column: returned_at; When it last came back.
WITH listings AS (
    SELECT listing_id, last_value(vehicle_id ORDER BY event_time, event_id) AS vehicle_id
    FROM inventory.vehicle_listing_created
    GROUP BY listing_id
),
milestones AS (
    SELECT vehicle_id, 'offered' AS milestone, event_time AS at, offer_amount AS amount, offer_id AS id
    FROM acquisition.ai_offer_generated
    UNION ALL
    SELECT vehicle_id, 'purchased', coalesce(purchase_date, event_time), amount, purchase_id
    FROM acquisition.vehicle_purchased
    UNION ALL
    SELECT vehicle_id, 'received', coalesce(received_at, event_time), NULL, facility_id
    FROM production.vehicle_received_at_facility
    UNION ALL
    SELECT vehicle_id, 'certified', coalesce(certified_at, event_time), NULL, NULL
    FROM production.vehicle_certified
    UNION ALL
    SELECT vehicle_id, 'listed', coalesce(created_at, event_time), NULL, listing_id
    FROM inventory.vehicle_listing_created
    UNION ALL
    SELECT listings.vehicle_id, 'priced', priced.event_time, priced.price, NULL
    FROM inventory.price_set AS priced JOIN listings ON priced.listing_id = listings.listing_id
    UNION ALL
    SELECT listings.vehicle_id, 'published', coalesce(published.published_at, published.event_time), NULL, NULL
    FROM inventory.listing_published AS published JOIN listings ON published.listing_id = listings.listing_id
    UNION ALL
    SELECT listings.vehicle_id, 'sold', sold.sold_at, sold.final_price, NULL
    FROM inventory.vehicle_sold AS sold JOIN listings ON sold.listing_id = listings.listing_id
    UNION ALL
    SELECT vehicle_id, 'delivered', coalesce(delivered_at, event_time), NULL, NULL
    FROM delivery.delivery_completed
    UNION ALL
    SELECT vehicle_id, 'kept', coalesce(kept_at, event_time), NULL, NULL
    FROM trial.vehicle_kept
    UNION ALL
    SELECT vehicle_id, 'returned', returned_at, NULL, NULL
    FROM trial.vehicle_returned
)
SELECT
    vehicle_id,
    last_value(id ORDER BY at) FILTER (WHERE milestone = 'listed') AS listing_id,
    last_value(milestone ORDER BY at) FILTER (WHERE milestone <> 'priced') AS last_milestone,
    min(at) FILTER (WHERE milestone = 'offered') AS first_offered_at,
    last_value(amount ORDER BY at) FILTER (WHERE milestone = 'offered') AS offer_amount,
    min(at) FILTER (WHERE milestone = 'purchased') AS purchased_at,
    last_value(amount ORDER BY at) FILTER (WHERE milestone = 'purchased') AS purchase_amount,
    min(at) FILTER (WHERE milestone = 'received') AS received_at,
    last_value(id ORDER BY at) FILTER (WHERE milestone = 'received') AS facility_id,
    min(at) FILTER (WHERE milestone = 'certified') AS certified_at,
    min(at) FILTER (WHERE milestone = 'listed') AS listed_at,
    min(at) FILTER (WHERE milestone = 'published') AS published_at,
    first_value(amount ORDER BY at) FILTER (WHERE milestone = 'priced') AS first_price,
    last_value(amount ORDER BY at) FILTER (WHERE milestone = 'priced') AS last_price,
    count(*) FILTER (WHERE milestone = 'priced') AS prices,
    max(at) FILTER (WHERE milestone = 'sold') AS sold_at,
    last_value(amount ORDER BY at) FILTER (WHERE milestone = 'sold') AS sold_price,
    max(at) FILTER (WHERE milestone = 'delivered') AS delivered_at,
    max(at) FILTER (WHERE milestone = 'kept') AS kept_at,
    max(at) FILTER (WHERE milestone = 'returned') AS returned_at
FROM milestones
WHERE vehicle_id IS NOT NULL
GROUP BY vehicle_id
