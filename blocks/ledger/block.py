"""The Prefect block that holds the ledger's connection string."""

from prefect.blocks.core import Block
from pydantic import Field, SecretStr

from blocks.ledger.ledger import Ledger


class ProofLedger(Block):
    """Where the proposer's ledger lives: a PostgreSQL database of one oracle contract."""

    _block_type_name = "OP Succinct proof ledger"
    _block_type_slug = "op-succinct-proof-ledger"
    _description = "PostgreSQL database with the proposer's requests, proofs and L1 transactions."

    database_url: SecretStr = Field(
        description="postgresql://user:password@host:port/database of this rollup's ledger."
    )

    def open(self) -> Ledger:
        """Return the ledger; connections are opened at first use."""
        return Ledger(self.database_url.get_secret_value())
