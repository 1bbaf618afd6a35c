-- Statements that would change something, read files, or are none: refused over HTTP and the Postgres wire.
CREATE TABLE t (a INT)
CREATE TABLE t AS SELECT * FROM lake.events
CREATE VIEW v AS SELECT 1
CREATE SCHEMA s
CREATE DATABASE d
CREATE INDEX i ON lake.events (position)
CREATE FUNCTION f() RETURNS INT RETURN 1
CREATE EXTERNAL TABLE t (a INT) STORED AS CSV LOCATION '/etc/passwd'
CREATE ROLE r
CREATE EXTENSION e
DROP TABLE lake.events
DROP VIEW inventory.price_set
DROP SCHEMA lake CASCADE
ALTER TABLE lake.events ADD COLUMN a INT
TRUNCATE TABLE lake.events
INSERT INTO lake.events VALUES (1)
INSERT INTO lake.events SELECT * FROM lake.events
UPDATE lake.events SET position = 0
DELETE FROM lake.events
MERGE INTO lake.events AS t USING lake.events AS s ON t.position = s.position WHEN MATCHED THEN DELETE
COPY lake.events TO '/tmp/forecourt-stolen.csv'
COPY (SELECT 1) TO '/tmp/forecourt-stolen.csv'
COPY lake.events FROM '/etc/passwd'
COPY lake.events FROM PROGRAM 'id'
SET datafusion.execution.batch_size = 1
SET datafusion.runtime.memory_limit = '0'
RESET datafusion.execution.batch_size
EXPLAIN INSERT INTO lake.events VALUES (1)
EXPLAIN ANALYZE COPY lake.events TO '/tmp/forecourt-stolen.csv'
EXPLAIN ANALYZE CREATE TABLE t AS SELECT 1
PREPARE p AS DELETE FROM lake.events
EXECUTE p
GRANT ALL ON lake.events TO public
REVOKE ALL ON lake.events FROM public
VACUUM
ANALYZE lake.events
LOCK TABLE lake.events
CALL f()
LISTEN c
NOTIFY c
KILL 1
USE lake
SHOW VARIABLES
WITH gone AS (DELETE FROM lake.events RETURNING *) SELECT * FROM gone
SELECT * FROM '/etc/passwd'
SELECT * FROM "/etc/passwd"
SELECT * FROM "file:///etc/passwd"
SELECT * FROM read_csv('/etc/passwd')
SELECT * FROM read_parquet('/etc/passwd')
SELECT * FROM parquet_metadata('/etc/passwd')
SELECT pg_read_file('/etc/passwd')
SELECT pg_ls_dir('/')
SELECT lo_import('/etc/passwd')
SELECT pg_sleep(1000)
SELECT * FROM lake.events INTO OUTFILE '/tmp/forecourt-stolen.csv'
SELECT 1; DROP TABLE lake.events
-- Statements that would take the machine, or make the engine stumble: answered, refused or stopped within their limits.
SELECT count(*) FROM lake.events AS a, lake.events AS b, lake.events AS c, lake.events AS d
SELECT a.data, b.data FROM lake.events AS a CROSS JOIN lake.events AS b ORDER BY 1, 2
SELECT array_agg(a.data) FROM lake.events AS a, lake.events AS b
SELECT string_agg(a.data, ',') FROM lake.events AS a, lake.events AS b
SELECT count(DISTINCT a.event_id || b.event_id) FROM lake.events AS a, lake.events AS b
SELECT row_number() OVER (ORDER BY a.data || b.data) FROM lake.events AS a, lake.events AS b
WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r) SELECT count(*) FROM r
WITH RECURSIVE r AS (SELECT 'x' AS t UNION ALL SELECT t || t FROM r) SELECT length(t) FROM r
SELECT count(*) FROM generate_series(1, 1000000000000)
SELECT * FROM generate_series(1, 1000000000000) AS a (n) ORDER BY n DESC
SELECT range(0, 100000000000)
SELECT generate_series(0, 100000000000)
SELECT array_repeat(1, 2000000000)
SELECT array_repeat(array_repeat(1, 100000), 100000)
SELECT array_resize([1], 2000000000, 1)
SELECT repeat('x', 2000000000)
SELECT repeat(data, 100000) FROM lake.events
SELECT lpad('x', 2000000000, 'y')
SELECT rpad('x', 2000000000, 'y')
SELECT length(repeat(repeat(repeat('x', 10000), 10000), 10000))
SELECT replace(repeat('x', 1000000), 'x', repeat('y', 1000000))
SELECT regexp_replace(repeat('a', 1000000), 'a', repeat('b', 1000000), 'g')
SELECT regexp_like(repeat('a', 100000), '(a*)*(a*)*b')
SELECT regexp_like('a', '((((a{1,1000}){1,1000}){1,1000}){1,1000})')
SELECT regexp_like('a', '(?:(?:(?:(?:x{100}){100}){100}){100}){100}')
SELECT to_char(now(), repeat('YYYY', 10000000))
SELECT power(10, 1000000)::decimal(38, 0)
SELECT 12345678901234567890123456789012345678::decimal(38, 0)
SELECT factorial(1000000)
SELECT 1 / 0
SELECT -9223372036854775808 / -1
SELECT abs(-9223372036854775808)
SELECT cast('x' AS INT)
SELECT timestamp '292277-01-01' + interval '1000000 years'
SELECT now() + interval '9223372036854775807 months'
SELECT to_timestamp(9223372036854775807)
SELECT date_bin(interval '0 seconds', now())
SELECT date_bin(interval '1 month', now(), timestamp '0001-01-01')
SELECT date_trunc('millennium', now())
SELECT substr('abc', -9223372036854775808, 9223372036854775807)
SELECT substring('abc' FROM 1 FOR -1)
SELECT split_part('a', '', -9223372036854775808)
SELECT chr(-1)
SELECT chr(1114112)
SELECT overlay('abc' PLACING 'x' FROM -9223372036854775808 FOR 9223372036854775807)
SELECT array_element([1], -9223372036854775808)
SELECT array_slice([1, 2, 3], -9223372036854775808, 9223372036854775807)
SELECT (ARRAY[1, 2, 3])[9223372036854775807]
SELECT json_get(data, repeat('a', 100000)) FROM lake.events
SELECT * FROM lake.events WHERE data LIKE repeat('%a', 100000)
SELECT ntile(0) OVER () FROM lake.events
SELECT nth_value(position, -1) OVER (ORDER BY position ROWS BETWEEN 9223372036854775807 PRECEDING AND 9223372036854775807 FOLLOWING) FROM lake.events
SELECT approx_percentile_cont(position, 2) FROM lake.events
SELECT unnest(range(0, 1000000000))
SELECT unnest([unnest([1])])
SELECT $1
SELECT $9999999999
SELECT
SELECT * FROM
