-- What analysts ask, in SQL that both sides read. Each begins with its name.

-- name: events by type
SELECT context, event_type, count(*) AS events, min(event_time) AS first_at, max(event_time) AS last_at
FROM lake.events
GROUP BY context, event_type
ORDER BY events DESC, context, event_type;

-- name: events of one aggregate
SELECT event_type, event_time, position
FROM lake.events
WHERE aggregate_id = (SELECT max(aggregate_id) FROM inventory.vehicle_sold)
ORDER BY event_time, position;

-- name: sales by day
SELECT date_trunc('day', sold_at) AS day, count(*) AS sales, sum(final_price) AS revenue
FROM inventory.vehicle_sold
GROUP BY day
ORDER BY day;

-- name: sales, mean of seven days
WITH days AS (
    SELECT date_trunc('day', sold_at) AS day, count(*) AS sales FROM inventory.vehicle_sold GROUP BY day
)
SELECT day, sales, avg(sales) OVER (ORDER BY day ROWS BETWEEN 6 PRECEDING AND CURRENT ROW) AS mean
FROM days
ORDER BY day;

-- name: shoppers by day
SELECT date_trunc('day', event_time) AS day, count(DISTINCT user_id) AS shoppers, count(*) AS searches
FROM browsing.user_searched
GROUP BY day
ORDER BY day;

-- name: most viewed listings
SELECT listing_id, count(*) AS views, count(DISTINCT user_id) AS shoppers, avg(duration) AS seconds
FROM browsing.vehicle_viewed
GROUP BY listing_id
ORDER BY views DESC, listing_id
LIMIT 20;

-- name: most viewed of each province
WITH views AS (
    SELECT listing_id, count(*) AS views FROM browsing.vehicle_viewed GROUP BY listing_id
), ranked AS (
    SELECT listings.province, listings.title, views.views, listings.listing_id,
        row_number() OVER (PARTITION BY listings.province ORDER BY views.views DESC, listings.listing_id) AS place
    FROM views JOIN inventory.vehicle_listing_created AS listings ON listings.listing_id = views.listing_id
)
SELECT province, place, title, views FROM ranked WHERE place <= 3 ORDER BY province, place;

-- name: sessions of shoppers
WITH steps AS (
    SELECT user_id, event_time, lag(event_time) OVER (PARTITION BY user_id ORDER BY event_time, position) AS before
    FROM browsing.vehicle_viewed
)
SELECT count(*) AS views, count(DISTINCT user_id) AS shoppers,
    count(*) FILTER (WHERE before IS NULL OR date_part('epoch', event_time) - date_part('epoch', before) > 1800) AS sessions
FROM steps;

-- name: funnel of shoppers
WITH searched AS (
    SELECT user_id, min(event_time) AS moment FROM browsing.user_searched GROUP BY user_id
), viewed AS (
    SELECT user_id, max(event_time) AS moment FROM browsing.vehicle_viewed GROUP BY user_id
), saved AS (
    SELECT user_id, max(event_time) AS moment FROM browsing.favorite_added GROUP BY user_id
), started AS (
    SELECT user_id, max(event_time) AS moment FROM purchase.get_started_clicked GROUP BY user_id
)
SELECT count(*) AS searched, count(*) FILTER (WHERE viewed.moment >= searched.moment) AS viewed,
    count(*) FILTER (WHERE saved.moment >= searched.moment) AS saved, count(*) FILTER (WHERE started.moment >= searched.moment) AS started
FROM searched
LEFT JOIN viewed ON viewed.user_id = searched.user_id
LEFT JOIN saved ON saved.user_id = searched.user_id
LEFT JOIN started ON started.user_id = searched.user_id;

-- name: shoppers who come back, by month
WITH months AS (
    SELECT DISTINCT user_id, date_trunc('month', event_time) AS month FROM browsing.user_searched
), firsts AS (
    SELECT user_id, min(month) AS first_month FROM months GROUP BY user_id
)
SELECT firsts.first_month, months.month, count(*) AS shoppers
FROM months JOIN firsts ON firsts.user_id = months.user_id
GROUP BY firsts.first_month, months.month
ORDER BY firsts.first_month, months.month;

-- name: offers accepted, by week
SELECT date_trunc('week', offers.event_time) AS week, count(*) AS offers, count(accepted.offer_id) AS accepted,
    avg(offers.offer_amount) AS mean_offer
FROM acquisition.ai_offer_generated AS offers
LEFT JOIN acquisition.offer_accepted AS accepted ON accepted.offer_id = offers.offer_id
GROUP BY week
ORDER BY week;

-- name: from purchase to listing
WITH times AS (
    SELECT (date_part('epoch', listed.event_time) - date_part('epoch', bought.event_time)) / 86400 AS days
    FROM acquisition.vehicle_purchased AS bought
    JOIN inventory.vehicle_listing_created AS listed ON listed.vehicle_id = bought.vehicle_id
)
SELECT count(*) AS vehicles, avg(days) AS mean, percentile_cont(0.5) WITHIN GROUP (ORDER BY days) AS median,
    percentile_cont(0.9) WITHIN GROUP (ORDER BY days) AS p90
FROM times;

-- name: inspection points that fail
SELECT point_number, count(*) AS inspected, count(*) FILTER (WHERE lower(status) NOT LIKE 'pass%') AS failed
FROM production.inspection_point_completed
GROUP BY point_number
ORDER BY failed DESC, point_number
LIMIT 25;

-- name: repairs against their estimates
SELECT found.category, count(*) AS repairs, sum(found.estimated_cost) AS estimated, sum(done.actual_cost) AS actual
FROM production.repair_item_identified AS found
JOIN production.repair_completed AS done ON done.repair_item_id = found.repair_item_id
GROUP BY found.category
ORDER BY found.category;

-- name: price changes
WITH prices AS (
    SELECT listing_id, price, lag(price) OVER (PARTITION BY listing_id ORDER BY event_time, position) AS before
    FROM inventory.price_set
)
SELECT count(*) AS prices, count(*) FILTER (WHERE price < before) AS cuts,
    avg(before - price) FILTER (WHERE price < before) AS mean_cut, max(before - price) AS largest_cut
FROM prices;

-- name: asking prices by make
SELECT listings.make, count(*) AS prices, percentile_cont(0.5) WITHIN GROUP (ORDER BY CAST(prices.price AS double)) AS median,
    percentile_cont(0.9) WITHIN GROUP (ORDER BY CAST(prices.price AS double)) AS p90
FROM inventory.price_set AS prices
JOIN inventory.vehicle_listing_created AS listings ON listings.listing_id = prices.listing_id
GROUP BY listings.make
ORDER BY listings.make;

-- name: margin over five event types
SELECT listed.make, count(*) AS sold, sum(sold.final_price - bought.amount) AS margin,
    avg(date_part('epoch', sold.event_time) - date_part('epoch', received.event_time)) / 86400 AS days
FROM acquisition.final_offer_confirmed AS offered
JOIN acquisition.vehicle_purchased AS bought ON bought.offer_id = offered.offer_id
JOIN production.vehicle_received_at_facility AS received ON received.vehicle_id = bought.vehicle_id
JOIN inventory.vehicle_listing_created AS listed ON listed.vehicle_id = bought.vehicle_id
JOIN inventory.vehicle_sold AS sold ON sold.listing_id = listed.listing_id
GROUP BY listed.make
ORDER BY margin DESC, listed.make;

-- name: revenue of the shop by month
SELECT date_trunc('month', placed.event_time) AS month, count(*) AS orders, count(paid.order_id) AS paid,
    sum(placed.total_amount) AS ordered, sum(paid.amount) AS authorized
FROM shop.order_placed AS placed
LEFT JOIN shop.payment_authorized AS paid ON paid.order_id = placed.order_id
GROUP BY month
ORDER BY month;

-- name: vehicles by how far they came
SELECT last_milestone, count(*) AS vehicles, sum(purchase_amount) AS bought_for, sum(sold_price) AS sold_for
FROM current.vehicles
GROUP BY last_milestone
ORDER BY last_milestone;

-- name: offers as they stand
SELECT status, count(*) AS offers, sum(first_amount) AS first_amounts
FROM current.offers
GROUP BY status
ORDER BY status;
