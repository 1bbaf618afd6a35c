"""Ask DuckDB: views and queries as JSON on standard input, the median of their times and their rows on standard output."""

import datetime
import decimal
import json
import re
import statistics
import sys
import time

import duckdb

order = json.load(sys.stdin)
connection = duckdb.connect()
connection.execute("SET TimeZone = 'UTC'")
for view in order["views"]:
    # DuckDB calls these aggregates first and last, and at is one of its words.
    sql = re.sub(r"\b(first|last)_value\(", r"\1(", view["sql"])
    sql = re.sub(r"\bat\b", '"at"', sql)
    connection.execute(f'CREATE SCHEMA IF NOT EXISTS {view["schema"]}')
    connection.execute(f'CREATE VIEW {view["schema"]}.{view["name"]} AS {sql}')


def plain(value):
    if isinstance(value, decimal.Decimal):
        return float(value)
    if isinstance(value, datetime.datetime):
        value = value.astimezone(datetime.timezone.utc) if value.tzinfo else value
        return value.replace(tzinfo=None).isoformat() + "Z"
    return value


def in_utc(query):
    """The query with times as Python takes them without a library of time zones."""
    connection.execute(f"DESCRIBE {query}")
    columns = [(name, kind) for name, kind, *_ in connection.fetchall()]
    cast = [f'CAST("{name}" AS TIMESTAMP)' if "WITH TIME ZONE" in kind else f'"{name}"' for name, kind in columns]
    return f"SELECT {', '.join(cast)} FROM ({query})"


answers = []
for query in map(in_utc, order["queries"]):
    times, rows = [], []
    for _ in range(order["runs"] + 1):
        started = time.perf_counter()
        rows = connection.execute(query).fetchall()
        times.append((time.perf_counter() - started) * 1e3)
    answers.append({
        "milliseconds": statistics.median(times[1:]),
        "rows": [[plain(value) for value in row] for row in rows],
    })
json.dump(answers, sys.stdout)
