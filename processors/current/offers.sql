-- definition: Offers to sellers: one row per offer, where it stands and what it is worth.
-- column: offer_id; The offer.
-- column: vehicle_id; The vehicle it was made for.
-- column: status; Its last step: made, adjusted, accepted, rejected, expired or purchased.
-- column: first_amount; What was offered first (CAD).
-- column: amount; What was offered last, or paid (CAD).
-- column: made_at; When it was made.
-- column: expires_at; When it ends unless accepted.
-- column: accepted_at; When the seller took it.
-- column: rejected_at; When the seller turned it down.
-- column: expired_at; When it ended unanswered.
-- column: purchased_at; When the vehicle was bought on it.
WITH steps AS (
    SELECT offer_id, vehicle_id, event_time, event_id, 'made' AS status, offer_amount AS amount, event_time AS at,
        expiry_date
    FROM acquisition.ai_offer_generated
    UNION ALL
    SELECT offer_id, vehicle_id, event_time, event_id, 'adjusted', adjusted_amount, event_time AS at, NULL
    FROM acquisition.offer_adjusted
    UNION ALL
    SELECT offer_id, vehicle_id, event_time, event_id, 'accepted', NULL, accepted_at, NULL
    FROM acquisition.offer_accepted
    UNION ALL
    SELECT offer_id, vehicle_id, event_time, event_id, 'rejected', NULL, coalesce(rejected_at, event_time), NULL
    FROM acquisition.offer_rejected
    UNION ALL
    SELECT offer_id, vehicle_id, event_time, event_id, 'expired', NULL, coalesce(expired_at, event_time), NULL
    FROM acquisition.offer_expired
    UNION ALL
    SELECT offer_id, vehicle_id, event_time, event_id, 'purchased', amount, coalesce(purchase_date, event_time), NULL
    FROM acquisition.vehicle_purchased
    WHERE offer_id IS NOT NULL
)
SELECT
    offer_id,
    last_value(vehicle_id ORDER BY event_time, event_id) FILTER (WHERE vehicle_id IS NOT NULL) AS vehicle_id,
    last_value(status ORDER BY event_time, event_id) AS status,
    first_value(amount ORDER BY event_time, event_id) FILTER (WHERE status = 'made') AS first_amount,
    last_value(amount ORDER BY event_time, event_id) FILTER (WHERE amount IS NOT NULL) AS amount,
    min(at) FILTER (WHERE status = 'made') AS made_at,
    max(expiry_date) AS expires_at,
    max(at) FILTER (WHERE status = 'accepted') AS accepted_at,
    max(at) FILTER (WHERE status = 'rejected') AS rejected_at,
    max(at) FILTER (WHERE status = 'expired') AS expired_at,
    max(at) FILTER (WHERE status = 'purchased') AS purchased_at
FROM steps
GROUP BY offer_id
