"""The ledger: what was decided, asked, paid and settled, in PostgreSQL."""

from blocks.ledger import leadership
from blocks.ledger.block import ProofLedger
from blocks.ledger.database import LedgerIdentity
from blocks.ledger.ledger import Event, Ledger, LedgerView, Mirrored
from blocks.ledger.writer import Writer

__all__ = ["Event", "Ledger", "LedgerIdentity", "LedgerView", "Mirrored", "ProofLedger", "Writer", "leadership"]
