"""The outside: one Prefect block per thing the proposer talks to, with its secrets, connection and calls."""
