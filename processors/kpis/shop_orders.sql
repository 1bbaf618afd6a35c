-- title: Shop orders
-- definition: Orders of the shop placed (createdAt), cancelled (cancelledAt) and refunded (refundedAt), what they are worth, and products that ran out (triggeredAt).
-- owner: Shop
-- better: up
-- input: shop.order_placed at created_at
-- input: shop.order_cancelled at cancelled_at
-- input: shop.payment_refunded at refunded_at
-- input: shop.out_of_stock at triggered_at
-- value: orders integer = count(DISTINCT placed); orders placed
-- value: revenue CAD = sum(total_amount); sum of their totals
-- value: average_order CAD = CAST(sum(total_amount) AS DOUBLE) / nullif(count(total_amount), 0); mean total
-- value: cancelled integer = count(DISTINCT cancelled); orders cancelled
-- value: refunds integer = count(refunded); refunds
-- value: refunded CAD = sum(refund_amount); sum of the refunds
-- value: stock_outs integer = count(stock_out); times a product ran out
SELECT coalesce(created_at, event_time) AS at, order_id AS placed, total_amount, CAST(NULL AS VARCHAR) AS cancelled, CAST(NULL AS VARCHAR) AS refunded, CAST(NULL AS DECIMAL(12, 2)) AS refund_amount, CAST(NULL AS VARCHAR) AS stock_out
FROM shop.order_placed
UNION ALL
SELECT coalesce(cancelled_at, event_time), NULL, NULL, order_id, NULL, NULL, NULL FROM shop.order_cancelled
UNION ALL
SELECT coalesce(refunded_at, event_time), NULL, NULL, NULL, refund_id, refund_amount, NULL FROM shop.payment_refunded
UNION ALL
SELECT coalesce(triggered_at, event_time), NULL, NULL, NULL, NULL, NULL, inventory_id FROM shop.out_of_stock
