"""The person: takes parked requests up by hand through Prefect, as the advice on them says."""

import asyncio
import time

import httpx

from tests.chaos.world import World

LOOK_SECONDS = 1.0
PATIENCE_SECONDS = 20.0
"""How long a run may take to take a request up before the person starts another: its process may have been killed."""


class Operator:
    """Looks at what is parked, for ever."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._asked_at: dict[int, float] = {}

    async def work(self) -> None:
        """Start a run of `prove` for each parked request."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            for request in await self._world.watch.parked():
                if time.monotonic() - self._asked_at.get(request, -PATIENCE_SECONDS) >= PATIENCE_SECONDS:
                    await self._take_up(request)

    async def _take_up(self, request: int) -> None:
        api = self._world.prefect_api
        try:
            deployment = await api.get("/deployments/name/prove/proposer")
            deployment.raise_for_status()
            body = {"parameters": {"request_id": request}, "state": {"type": "SCHEDULED", "name": "Scheduled"}}
            created = await api.post(f"/deployments/{deployment.json()['id']}/create_flow_run", json=body)
            created.raise_for_status()
        except httpx.HTTPError:
            return  # Prefect's server is away, or busy: the next look tries again
        self._asked_at[request] = time.monotonic()
