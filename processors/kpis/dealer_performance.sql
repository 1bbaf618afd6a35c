-- title: Dealer performance
-- definition: What dealers of the marketplace list, are asked and sell: listings (listedAt), leads, sales (soldAt), and of contracts created (createdAt) the prices and commissions.
-- owner: Dealers
-- better: up
-- input: dealers.vehicle_listed at listed_at
-- input: dealers.new_sales_lead
-- input: dealers.vehicle_sold at sold_at
-- input: dealers.sales_contract_created at created_at
-- dimension: dealer; the dealer
-- value: listings integer = count(DISTINCT listed); vehicles listed
-- value: leads integer = count(DISTINCT lead); leads
-- value: sold integer = count(DISTINCT sold); vehicles sold
-- value: conversion ratio = CAST(count(DISTINCT sold) AS DOUBLE) / nullif(count(DISTINCT lead), 0); sales per lead
-- value: contracts integer = count(DISTINCT contract); contracts
-- value: revenue CAD = sum(sale_price); sum of the contracts' prices
-- value: commission CAD = sum(commission_amount); sum of their commissions
-- headline: sold
SELECT coalesce(listed_at, event_time) AS at, dealer_id AS dealer, listing_id AS listed, CAST(NULL AS VARCHAR) AS lead, CAST(NULL AS VARCHAR) AS sold, CAST(NULL AS VARCHAR) AS contract, CAST(NULL AS DECIMAL(12, 2)) AS sale_price, CAST(NULL AS DECIMAL(12, 2)) AS commission_amount
FROM dealers.vehicle_listed
UNION ALL
SELECT event_time, dealer_id, NULL, lead_id, NULL, NULL, NULL, NULL FROM dealers.new_sales_lead
UNION ALL
SELECT coalesce(sold_at, event_time), dealer_id, NULL, NULL, listing_id, NULL, NULL, NULL FROM dealers.vehicle_sold
UNION ALL
SELECT coalesce(created_at, event_time), dealer_id, NULL, NULL, NULL, contract_id, sale_price, commission_amount FROM dealers.sales_contract_created
