"""Where: the proposer process, the idempotent set-up, and the command line."""
