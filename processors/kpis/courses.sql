-- title: Courses
-- definition: Orders of courses placed, paid, refunded and cancelled, and courses completed; each at its event's time.
-- owner: Courses
-- better: up
-- input: courses.order_placed
-- input: courses.order_paid
-- input: courses.order_refunded
-- input: courses.order_cancelled
-- input: courses.course_completed
-- value: orders integer = count(placed); orders placed
-- value: revenue CAD = sum(total_amount); sum of their totals
-- value: paid integer = count(paid); orders paid
-- value: refunds integer = count(refunded); orders refunded
-- value: cancelled integer = count(cancelled); orders cancelled
-- value: completions integer = count(completed); courses completed
-- value: refund_rate ratio = CAST(count(refunded) AS DOUBLE) / nullif(count(paid), 0); refunds per order paid in the bucket
SELECT event_time AS at, order_id AS placed, total_amount, CAST(NULL AS VARCHAR) AS paid, CAST(NULL AS VARCHAR) AS refunded, CAST(NULL AS VARCHAR) AS cancelled, CAST(NULL AS VARCHAR) AS completed FROM courses.order_placed
UNION ALL
SELECT event_time, NULL, NULL, order_id, NULL, NULL, NULL FROM courses.order_paid
UNION ALL
SELECT event_time, NULL, NULL, NULL, order_id, NULL, NULL FROM courses.order_refunded
UNION ALL
SELECT event_time, NULL, NULL, NULL, NULL, order_id, NULL FROM courses.order_cancelled
UNION ALL
SELECT event_time, NULL, NULL, NULL, NULL, NULL, access_id FROM courses.course_completed
