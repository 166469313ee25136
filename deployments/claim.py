"""The claim of this process to be the leader."""

import asyncio
import logging
import os
import socket
import time

from blocks.ledger import Ledger, leadership
from proposer.errors import EndpointDown, NotLeader

log = logging.getLogger("proposer.leadership")

STANDBY_SECONDS = 0.5
"""Between two attempts of a standby to take over."""


class Claim:
    """The leadership row, held and renewed; by this process's clock it ends earlier than by the database's."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._valid_until = 0.0
        self.owner = f"{socket.gethostname()}:{os.getpid()}"
        self.epoch = 0
        self.answered_at = time.monotonic()
        """When the database last said who leads."""
        self.leading_since = 0.0

    def holds(self) -> bool:
        """Whether the claim holds now."""
        return time.monotonic() < self._valid_until

    async def take(self) -> None:
        """Wait as a standby until the leadership is free, then hold it."""
        said = ""
        while True:
            started = time.monotonic()
            try:
                async with asyncio.timeout(leadership.TTL_SECONDS), self._ledger.connect() as connection:
                    epoch = await leadership.take(connection, self.owner)
                    holder = await leadership.holder(connection) if epoch is None else None
            except (EndpointDown, TimeoutError) as error:
                log.warning("cannot ask for the leadership: %s", error)
                await asyncio.sleep(1)
                continue
            self.answered_at = time.monotonic()
            if epoch is not None:
                self.epoch = epoch
                self.leading_since = started
                self._valid_until = started + leadership.TTL_SECONDS
                log.info("leading with epoch %s", epoch)
                return
            if holder and holder != said:
                log.info("%s leads: standing by", holder)
                said = holder
            await asyncio.sleep(STANDBY_SECONDS)

    async def keep(self) -> None:
        """Renew the claim for ever. Raises `NotLeader` when it is lost."""
        while True:
            await asyncio.sleep(leadership.RENEW_SECONDS)
            started = time.monotonic()
            try:
                async with asyncio.timeout(leadership.TTL_SECONDS), self._ledger.connect() as connection:
                    renewed = await leadership.renew(connection, self.epoch)
            except (EndpointDown, TimeoutError) as error:
                log.warning("the leadership cannot be renewed: %s", error)
                if not self.holds():
                    raise NotLeader("the leadership ran out while the ledger's database was away") from error
                continue
            if not renewed:
                self._valid_until = 0.0
                raise NotLeader("another process took the leadership over")
            self.answered_at = time.monotonic()
            self._valid_until = started + leadership.TTL_SECONDS

    async def release(self) -> None:
        """Let go, so that a standby takes over at once."""
        self._valid_until = 0.0
        try:
            async with self._ledger.connect() as connection:
                await leadership.release(connection, self.epoch)
        except EndpointDown as error:
            log.warning("the leadership is not released, it runs out by itself: %s", error)
