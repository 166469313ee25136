"""The two proposer processes, one leading and one standing by, and a supervisor that starts them again."""

import asyncio
import signal
import time
from collections.abc import Mapping
from pathlib import Path

from tests.acceptance.helpers import Up
from tests.chaos.watch import Watch

RESTART_SECONDS = 1.0
"""How long a supervisor waits before it starts a process that ended by itself again."""


class Instance:
    """One of the two: started any number of times, each time with another process id."""

    def __init__(self, name: str, up: Up) -> None:
        self.name, self.up = name, up
        self.held_down = False
        self.started_at = 0.0
        self._said_before = 0

    @property
    def pid(self) -> int:
        """The process started last."""
        return self.up.process.pid

    @property
    def running(self) -> bool:
        """Whether the process started last lives."""
        return self.up.returncode is None

    @property
    def ready(self) -> bool:
        """Whether it leads or stands by, by what it has said since its start."""
        if not self.running:
            return False
        with self.up.output_file.open("rb") as said:
            said.seek(self._said_before)
            text = said.read()
        return b"leads: standing by" in text or b"leading with epoch" in text

    def start(self) -> None:
        """Start it (again)."""
        if self.up.output_file.exists():
            self._said_before = self.up.output_file.stat().st_size
        self.up.start()
        self.started_at = time.monotonic()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, SIGKILL included, without waiting."""
        self.up.process.send_signal(number)  # which does nothing to a process that has ended


class Pair:
    """Both instances, found by the process id that the leadership row names."""

    def __init__(self, folder: Path, environments: Mapping[str, Mapping[str, str]]) -> None:
        self.instances = [Instance(name, Up(folder / name, values)) for name, values in environments.items()]
        self.ended_by_themselves: list[tuple[float, str]] = []
        self._supervised = True

    def named(self, name: str) -> Instance:
        """Return an instance by its name."""
        return next(each for each in self.instances if each.name == name)

    def other(self, instance: Instance) -> Instance:
        """Return the one that is not this one."""
        return next(each for each in self.instances if each is not instance)

    async def leading(self, watch: Watch) -> Instance | None:
        """Return the instance that leads now, if one does."""
        leader = await watch.leader()
        if leader is None or not leader.holds:
            return None
        return next((each for each in self.instances if each.pid == leader.pid and each.running), None)

    async def kill(self, instance: Instance) -> None:
        """Send SIGKILL at once and reap it; it stays down until it is started."""
        instance.held_down = True
        instance.signal(signal.SIGKILL)
        await asyncio.to_thread(instance.up.kill)

    def start(self, instance: Instance) -> None:
        """Start a killed one again."""
        instance.start()
        instance.held_down = False

    async def supervise(self) -> None:
        """Start again what ended by itself, as a service manager does; remember how it ended."""
        while True:
            await asyncio.sleep(0.25)
            for instance in self.instances:
                if self._supervised and not instance.held_down and not instance.running:
                    ended = f"{instance.name} ended with status {instance.up.returncode}: {_last_line(instance)}"
                    self.ended_by_themselves.append((time.monotonic(), ended))
                    await asyncio.sleep(RESTART_SECONDS)
                    instance.start()

    async def terminate(self) -> list[str]:
        """Send SIGTERM to both and return what was not clean about their ends."""
        self._supervised = False
        problems: list[str] = []
        for instance in self.instances:
            try:
                status = await instance.up.terminate(30)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is the verdict's business
                problems.append(f"{instance.name} did not end within 30 s of SIGTERM: {error!r}")
            else:
                if status != 0:
                    problems.append(f"{instance.name} ended with status {status} after SIGTERM")
        return problems

    def close(self) -> None:
        """Kill what is left."""
        self._supervised = False
        for instance in self.instances:
            instance.up.kill()


def _last_line(instance: Instance) -> str:
    lines = instance.up.output.strip().splitlines()
    return lines[-1][-300:] if lines else "it said nothing"
