"""What to do: the decisions of the proposer. Pure: no I/O, no Prefect, no clock, no environment."""
