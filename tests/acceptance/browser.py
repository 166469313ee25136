"""A real browser, headless, driven over its own debugging protocol: what a person sees of a page."""

import asyncio
import base64
import contextlib
import json
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from tests.acceptance.helpers import PATIENCE, eventually

NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome", "chrome")
HOW = "no chromium found: set CHROMIUM to one, or run `make browser` as root (it installs the system package)"


def chromium() -> str:
    """Return the browser to run: `CHROMIUM`, or the first on `PATH`."""
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    assert found is not None, HOW
    return found


class Page:
    """One tab."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._last = 0

    async def go(self, url: str) -> None:
        """Open an address; what it shows comes later."""
        await self._call("Page.navigate", url=url)

    async def text(self) -> str:
        """Return everything that is written on the page, as it is shown."""
        return str(await self.evaluate("document.body ? document.body.innerText : ''"))

    async def shows(self, *words: str) -> str:
        """Wait until all of these are on the page; return its text."""

        async def look() -> str:
            nonlocal text
            text = await self.text()
            return text if all(word in text for word in words) else ""

        text = ""
        try:
            return await eventually(f"{words} on the page", look)
        except AssertionError as error:
            raise AssertionError(
                f"{[w for w in words if w not in text]} not on the page, which says:\n{text}"
            ) from error

    async def evaluate(self, script: str) -> Any:
        """Return the value of a JavaScript expression."""
        answer = await self._call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    async def picture(self, file: Path) -> None:
        """Keep what the page looks like."""
        answer = await self._call("Page.captureScreenshot", format="png")
        await asyncio.to_thread(file.write_bytes, base64.b64decode(answer["data"]))

    async def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._last += 1
        await self._connection.send(json.dumps({"id": self._last, "method": method, "params": parameters}))
        async with asyncio.timeout(PATIENCE):
            while True:
                answer = json.loads(await self._connection.recv())
                if answer.get("id") == self._last:
                    assert "error" not in answer, answer
                    result: dict[str, Any] = answer["result"]
                    return result


@asynccontextmanager
async def browser(folder: Path, width: int = 1400, height: int = 1000) -> AsyncIterator[Page]:
    """Run a browser with a profile of its own under `folder`, and open one tab."""
    profile = folder / "browser"
    command = [
        chromium(),
        "--headless=new",
        "--no-sandbox",  # a test may run as root, and opens nothing but our own server
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--no-proxy-server",
        "--remote-debugging-address=127.0.0.1",
        "--remote-debugging-port=0",
        f"--user-data-dir={profile}",
        f"--window-size={width},{height}",
        "about:blank",
    ]
    profile.mkdir(parents=True, exist_ok=True)
    with (folder / "browser.log").open("wb") as output:
        child = subprocess.Popen(  # noqa: ASYNC220 - returns at once
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    try:
        port_file = profile / "DevToolsActivePort"

        async def listens() -> str:
            assert child.poll() is None, (folder / "browser.log").read_text(errors="replace")
            return port_file.read_text() if port_file.exists() else ""

        port = (await eventually("the browser listens", listens)).split("\n")[0]
        page = await _first_tab(int(port))
        async with connect(page, max_size=None, proxy=None) as connection:
            yield Page(connection)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait(10)


async def _first_tab(port: int) -> str:
    import httpx

    async with httpx.AsyncClient(trust_env=False) as client:

        async def look() -> str:
            tabs = (await client.get(f"http://127.0.0.1:{port}/json/list")).json()
            return next((tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page"), "")

        return await eventually("the browser has a tab", look)
