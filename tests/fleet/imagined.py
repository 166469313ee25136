"""Rollups that are not there, as far as Prefect's server evaluates their automations."""

import psycopg

_COPY = """
INSERT INTO automation (name, description, enabled, trigger, actions, actions_on_trigger, actions_on_resolve, tags)
SELECT replace(name, %(of)s, 'imagined-' || n), description, enabled,
       replace(replace(trigger::text, %(of)s, 'imagined-' || n), trigger->>'id', gen_random_uuid()::text)::jsonb,
       actions, actions_on_trigger, actions_on_resolve, replace(tags::text, %(of)s, 'imagined-' || n)::jsonb
FROM automation, generate_series(1, %(many)s) AS n
WHERE name LIKE 'op-succinct/' || %(of)s || '/%%'
"""


def imagine(database: str, rollup: str, many: int) -> int:
    """Copy a rollup's automations for so many others; return how many were made. The server loads them by itself."""
    with psycopg.connect(database, autocommit=True) as connection:
        return connection.execute(_COPY, {"of": rollup, "many": many}).rowcount
