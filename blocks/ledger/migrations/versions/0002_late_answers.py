"""Prover ids that came to a process which leads no more, for the leader to take in.

Revision ID: 0002
"""

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Create the table."""
    op.execute(
        """
        CREATE TABLE late_answers (
            request_id BIGINT NOT NULL,
            prover_request_id TEXT NOT NULL,
            at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
            CONSTRAINT pk_late_answers PRIMARY KEY (request_id, prover_request_id),
            CONSTRAINT fk_late_answers_request_id FOREIGN KEY(request_id) REFERENCES proof_requests (id)
        )
        """
    )
