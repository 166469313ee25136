"""Pages in Prefect's UI beside its runs: where everything stands, what became of proofs, and what they cost."""
