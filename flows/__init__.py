"""When: thin Prefect flows and tasks around stages that read a snapshot, let `proposer` decide and `blocks` act."""
