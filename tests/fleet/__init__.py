"""Many rollups on one Prefect server: what one proposer costs it, and what is met first when there are more."""
