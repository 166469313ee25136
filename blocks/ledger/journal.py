"""Writes of the journal of L1 transactions: every form of a nonce, before it is broadcast."""

from sqlalchemy import insert, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from blocks.ledger.rows import values_of_signed
from blocks.ledger.tables import l1_signed, l1_transactions
from proposer.fees import Fees
from proposer.l1_transactions import Action, Receipt, TxStatus


class JournalWriter:
    """The part of the ledger's writer that keeps the journal."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def journal(
        self, *, request: int | None, sender: str, nonce: int, signed: tuple[bytes, bytes, Fees], action: Action
    ) -> int:
        """Write a transaction and its first signed form before it is broadcast. Return its id."""
        row = {
            "purpose": action.purpose.value,
            "request_id": request,
            "sender": sender,
            "nonce": nonce,
            "status": TxStatus.PENDING.value,
        }
        result = await self._connection.execute(insert(l1_transactions).values(row).returning(l1_transactions.c.id))
        transaction_id: int = result.scalar_one()
        await self.sign_again(transaction_id, signed, action)
        return transaction_id

    async def sign_again(self, transaction_id: int, signed: tuple[bytes, bytes, Fees], action: Action) -> None:
        """Write another signed form of a transaction before it is broadcast."""
        row = values_of_signed(transaction_id, *signed, action)
        await self._connection.execute(upsert(l1_signed).values(row).on_conflict_do_nothing())

    async def record(self, transaction_id: int, status: TxStatus, receipt: Receipt | None) -> None:
        """Write what the chain says of a transaction."""
        await self._connection.execute(
            update(l1_transactions)
            .where(l1_transactions.c.id == transaction_id)
            .values(
                status=status.value,
                mined_hash=receipt.hash if receipt else None,
                block_number=receipt.block if receipt else None,
                block_hash=receipt.block_hash if receipt else None,
                gas_used=receipt.gas_used if receipt else None,
            )
        )
