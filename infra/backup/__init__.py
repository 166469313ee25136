"""Back a ledger up and restore it, with PostgreSQL's own tools."""
