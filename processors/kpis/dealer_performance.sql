-- title: Dealer performance
-- definition: What dealers of the marketplace list, are asked and sell: listings (listedAt), leads, sales (soldAt), and of contracts created (createdAt) the prices and commissions. A review counts when it was given (submittedAt), for the dealer who had listed its vehicle last by then.
-- owner: Dealers
-- better: up
-- input: dealers.vehicle_listed at listed_at
-- input: dealers.new_sales_lead
-- input: dealers.vehicle_sold at sold_at
-- input: dealers.sales_contract_created at created_at
-- input: support.review_submitted at submitted_at
-- input: dealers.vehicle_listed by vehicle_id
-- dimension: dealer; the dealer
-- value: listings integer = count(DISTINCT listed); vehicles listed
-- value: leads integer = count(DISTINCT lead); leads
-- value: sold integer = count(DISTINCT sold); vehicles sold
-- value: conversion ratio = CAST(count(DISTINCT sold) AS DOUBLE) / nullif(count(DISTINCT lead), 0); sales per lead
-- value: contracts integer = count(DISTINCT contract); contracts
-- value: revenue CAD = sum(sale_price); sum of the contracts' prices
-- value: commission CAD = sum(commission_amount); sum of their commissions
-- value: rating stars = CAST(sum(stars) AS DOUBLE) / nullif(count(stars), 0); mean rating of reviews of their vehicles, null without reviews
-- value: reviews integer = count(stars); reviews behind it
-- headline: sold
SELECT
    coalesce(listed_at, event_time) AS at, dealer_id AS dealer, vehicle_id, listing_id AS listed,
    CAST(NULL AS VARCHAR) AS lead, CAST(NULL AS VARCHAR) AS sold, CAST(NULL AS VARCHAR) AS contract,
    CAST(NULL AS DECIMAL(12, 2)) AS sale_price, CAST(NULL AS DECIMAL(12, 2)) AS commission_amount, CAST(NULL AS DECIMAL(8, 4)) AS stars
FROM dealers.vehicle_listed
UNION ALL
SELECT event_time, dealer_id, NULL, NULL, lead_id, NULL, NULL, NULL, NULL, NULL FROM dealers.new_sales_lead
UNION ALL
SELECT coalesce(sold_at, event_time), dealer_id, NULL, NULL, NULL, listing_id, NULL, NULL, NULL, NULL FROM dealers.vehicle_sold
UNION ALL
SELECT coalesce(created_at, event_time), dealer_id, NULL, NULL, NULL, NULL, contract_id, sale_price, commission_amount, NULL
FROM dealers.sales_contract_created
UNION ALL
SELECT
    reviewed.at, last_value(listed.dealer_id ORDER BY listed.at, listed.event_id), reviewed.vehicle_id,
    NULL, NULL, NULL, NULL, NULL, NULL, reviewed.rating
FROM (
    SELECT event_id, coalesce(submitted_at, event_time) AS at, vehicle_id, rating
    FROM support.review_submitted
) AS reviewed
JOIN (
    SELECT event_id, coalesce(listed_at, event_time) AS at, vehicle_id, dealer_id
    FROM dealers.vehicle_listed
) AS listed ON listed.vehicle_id = reviewed.vehicle_id AND listed.at <= reviewed.at
GROUP BY reviewed.event_id, reviewed.at, reviewed.vehicle_id, reviewed.rating
