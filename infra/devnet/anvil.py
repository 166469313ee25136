"""The L1 of the devnet: an anvil process behind a front, with real outages and real reorgs."""

import asyncio
import ctypes
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx
from eth_account import Account
from eth_account.hdaccount import ETHEREUM_DEFAULT_PATH

from infra.devnet.install import find_anvil
from infra.devnet.l1_front import L1Front
from infra.devnet.loopback import free_port
from infra.devnet.rpc import Rpc, RpcError
from infra.devnet.traps import Traps

# The mnemonic every anvil and hardhat node starts with: public, worthless, for local use.
MNEMONIC = "test test test test test test test test test test test junk"
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 5.0
_PR_SET_PDEATHSIG = 1


def account_key(index: int, mnemonic: str = MNEMONIC) -> tuple[str, str]:
    """Return (address, private key as 0x hex) of a mnemonic's account."""
    Account.enable_unaudited_hdwallet_features()
    path = ETHEREUM_DEFAULT_PATH[: ETHEREUM_DEFAULT_PATH.rindex("/") + 1] + str(index)
    account = Account.from_mnemonic(mnemonic, account_path=path)
    return str(account.address), "0x" + bytes(account.key).hex()


class Anvil:
    """Run anvil on loopback for as long as the context is open.

    Users reach it at ``url`` through ``front``, which has the faults; the devnet's own parts use ``rpc`` on the inner
    port, which no fault touches. ``stop()`` and ``start()`` are the front's: connections are cut and new ones refused
    while the chain goes on making blocks, which is what an outage of an L1 provider is. ``freeze()`` and ``thaw()``
    stop the process itself (SIGSTOP, SIGCONT): calls then hang and no block is made.
    """

    def __init__(
        self,
        *,
        port: int = 0,
        block_time_s: float | None = 1.0,
        slots_in_an_epoch: int = 1,
        mnemonic: str = MNEMONIC,
        binary: Path | None = None,
        extra: tuple[str, ...] = (),
        traps: Traps | None = None,
    ) -> None:
        """Describe the node: ``block_time_s`` None mines a block per transaction."""
        self.mnemonic = mnemonic
        self._arguments = ["--slots-in-an-epoch", str(slots_in_an_epoch), "--mnemonic", mnemonic, "--silent", *extra]
        if block_time_s is not None:
            self._arguments += ["--block-time", str(block_time_s)]
        self._binary = binary
        self._inner_port = free_port()
        self._process: asyncio.subprocess.Process | None = None
        self.rpc = Rpc(f"http://127.0.0.1:{self._inner_port}")
        self.front = L1Front(self.rpc.url, port=port, traps=traps)
        self.url = self.front.url

    async def __aenter__(self) -> Self:
        """Start anvil and wait for its first answer."""
        binary = self._binary or await asyncio.to_thread(find_anvil)
        self._process = await asyncio.create_subprocess_exec(
            str(binary),
            "--host",
            "127.0.0.1",
            "--port",
            str(self._inner_port),
            *self._arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            preexec_fn=_die_with_parent(),
        )
        try:
            await self._wait_for_rpc()
            await self.front.start()
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the front and end the process."""
        await self.front.aclose()
        await self.rpc.aclose()
        await self._end_process()

    async def _wait_for_rpc(self) -> None:
        assert self._process is not None
        async with asyncio.timeout(START_TIMEOUT_S):
            while True:
                if self._process.returncode is not None:
                    raise RuntimeError(f"anvil ended with code {self._process.returncode} before its first answer")
                try:
                    await self.rpc.call("eth_chainId")
                    return
                except httpx.TransportError:
                    await asyncio.sleep(0.02)

    async def _end_process(self) -> None:
        process, self._process = self._process, None
        if process is None or process.returncode is not None:
            return
        process.send_signal(signal.SIGCONT)
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), STOP_TIMEOUT_S)
        except TimeoutError:
            process.kill()
            await process.wait()

    @property
    def running(self) -> bool:
        """Say whether the anvil process lives."""
        return self._process is not None and self._process.returncode is None

    async def stop(self) -> None:
        """Begin an outage: cut every connection and refuse new ones; the chain goes on."""
        await self.front.stop()

    async def start(self) -> None:
        """End an outage: listen on the same port again."""
        await self.front.start()

    def freeze(self) -> None:
        """Stop the process in its tracks, every thread of it: calls hang, no block is made."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def thaw(self) -> None:
        """Let a frozen process go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    async def mine(self, blocks: int = 1) -> None:
        """Mine ``blocks`` blocks at once; pending transactions go into the first."""
        await self.rpc.call("anvil_mine", hex(blocks))

    async def set_automine(self, on: bool) -> None:
        """Mine a block for every transaction, or not."""
        await self.rpc.call("evm_setAutomine", on)

    async def set_block_time(self, seconds: int) -> None:
        """Mine a block every ``seconds`` (whole seconds, 0: none) from now on."""
        await self.rpc.call("evm_setIntervalMining", seconds)

    async def reorg(self, depth: int) -> None:
        """Replace the newest ``depth`` blocks by empty ones; their transactions are gone."""
        await self.rpc.call("anvil_reorg", depth, [])

    async def drop_transaction(self, tx_hash: str) -> bool:
        """Forget a pending transaction; say whether it was known."""
        try:
            return await self.rpc.call("anvil_dropTransaction", tx_hash) is not None
        except RpcError:
            return False


def _die_with_parent() -> Callable[[], None] | None:
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)
    return lambda: libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
