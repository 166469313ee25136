"""Finding anvil, and the devnet as a process with its control endpoint."""

import asyncio
import signal
import socket
import stat
import sys
import threading
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from infra.devnet import install
from infra.devnet.__main__ import tell
from infra.devnet.anvil import Anvil
from infra.devnet.loopback import bind_loopback

ROOT = Path(__file__).parents[2]


def test_anvil_is_taken_from_the_variable_then_path_then_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order is ANVIL, PATH, cache; a wrong ANVIL is said in one line."""
    binary = tmp_path / "bin" / "anvil"
    binary.parent.mkdir()
    binary.write_text("#!/bin/sh\n")
    binary.chmod(0o755)
    monkeypatch.setenv("ANVIL", str(tmp_path / "missing"))
    with pytest.raises(install.AnvilNotFoundError, match="correct or unset"):
        install.find_anvil()
    monkeypatch.setenv("ANVIL", str(binary))
    assert install.find_anvil() == binary
    monkeypatch.delenv("ANVIL")
    monkeypatch.setenv("PATH", str(binary.parent))
    assert install.find_anvil() == binary
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PROPOSER_CACHE", str(tmp_path / "cache"))
    cached = install.cache_folder() / "node_modules/@foundry-rs" / install._platform_package() / "bin/anvil"
    cached.parent.mkdir(parents=True)
    cached.touch()
    assert install.find_anvil() == cached


def test_two_installs_at_once_publish_one_whole_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever renames second finds the first one's folder and uses it; no temporary folder is left."""
    npm = "\n".join(
        [
            "import pathlib, time",
            f"binary = pathlib.Path('node_modules/@foundry-rs/{install._platform_package()}/bin/anvil')",
            "binary.parent.mkdir(parents=True)",
            "time.sleep(0.1)",
            "binary.touch()",
        ]
    )
    monkeypatch.setattr(install, "_npm", lambda: [sys.executable, "-c", npm])
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(install.install(tmp_path / "anvil"))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found[0] == found[1]
    assert found[0].exists()
    assert [path.name for path in tmp_path.iterdir()] == ["anvil"]


def test_the_lock_file_names_hashes_and_no_registry() -> None:
    """What is installed is pinned by integrity, and the lock works with any registry."""
    text = (ROOT / "infra/devnet/npm/package-lock.json").read_text()
    packages = orjson.loads(text)["packages"]
    assert "resolved" not in text
    assert "http" not in text
    assert packages["node_modules/@foundry-rs/anvil-linux-amd64"]["integrity"].startswith("sha512-")


@pytest.mark.asyncio
async def test_answers_on_loopback_are_sent_at_once() -> None:
    """No server here waits for more bytes to fill a packet: that would cost 40 ms an answer."""
    found: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def look(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        found.set_result(writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        writer.close()

    async with await asyncio.start_server(look, sock=bind_loopback()) as server:
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        assert await asyncio.wait_for(found, 60) == 1
        writer.close()


@pytest.mark.asyncio
async def test_anvil_freezes_and_ends_with_its_context() -> None:
    """A frozen node does not answer; after the context nothing runs."""
    async with Anvil(block_time_s=None) as anvil:
        anvil.freeze()
        async with httpx.AsyncClient(timeout=0.2) as client:
            with pytest.raises(httpx.TimeoutException):
                await client.post(anvil.url, json={})
        anvil.thaw()
        assert await anvil.rpc.block_number() == 0
    assert not anvil.running


@pytest.mark.asyncio
async def test_the_process_writes_its_env_obeys_its_control_and_ends_on_sigterm(tmp_path: Path) -> None:
    """devnet.env is for its owner only; faults, heads, outages and the owner are within reach; SIGTERM ends all."""
    arguments = ["-m", "infra.devnet", "--dir", str(tmp_path), "--l1-block-time", "0.3", "--l2-speed", "0"]
    process = await asyncio.create_subprocess_exec(sys.executable, *arguments, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert b"devnet is up" in await asyncio.wait_for(process.stdout.readline(), 120)
        env_file = tmp_path / "devnet.env"
        assert stat.S_IMODE(env_file.stat().st_mode) == 0o600
        env = dict(line.split("=", 1) for line in env_file.read_text().splitlines())
        assert set(env) == {
            *("L1_RPC", "L2_NODE_RPC", "L2OO_ADDRESS", "PRIVATE_KEY", "OP_SUCCINCT_SERVER_URL", "DEVNET_CONTROL_URL"),
            "PROPOSER_HOME",
        }
        assert Path(env["PROPOSER_HOME"]).parent == tmp_path
        async with httpx.AsyncClient(base_url=env["DEVNET_CONTROL_URL"], timeout=60, trust_env=False) as control:

            async def post(path: str, body: dict[str, Any] | None = None) -> httpx.Response:
                return await control.post(path, json=body or {})

            assert (await post("/l2", {"advance_to": 1500})).json()["finalized"] == 1500
            assert (await post("/faults", {"rules": [{"kind": "post_500"}]})).status_code == 200
            assert (await post("/faults", {"rules": [{"kind": "no such"}]})).status_code == 400
            assert (await post("/timing", {"range_witness_s": 0})).json()["range_witness_s"] == 0
            assert (await post("/node/faults", {"wrong_roots": [5]})).json()["wrong_roots"] == [5]
            l1 = {"jsonrpc": "2.0", "id": 1, "method": "eth_chainId", "params": []}
            assert (await post("/l1/faults", {"text_500": True})).json()["text_500"] is True
            assert (await post("/l1/faults", {"no_such": 1})).status_code == 400
            assert (await control.post(env["L1_RPC"], json=l1)).status_code == 500
            await post("/l1/faults", {"text_500": False})
            assert (await control.post(env["L1_RPC"], json=l1)).status_code == 200
            assert (await control.get("/state")).json()["applied"]["l1"] == {"text_500": 1}
            assert await asyncio.to_thread(tell, tmp_path, "prover/stop") == '{"ok":true}'
            assert (await control.get("/state")).json()["prover_running"] is False
            assert await asyncio.to_thread(tell, tmp_path, "l2", '{"advance_to": 1501}')
            await post("/prover/start")
            assert (await post("/owner", {"function": "updateSubmissionInterval", "argument": 50})).status_code == 200
            assert (await post("/compete", {"end": 1049})).status_code == 409
            assert (await post("/compete", {"end": 1050})).status_code == 200
            assert (await control.get("/check")).json()["l2_block_settled"] == 1050
            assert (await control.get("/log")).json() == []
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 60) == 0
        assert not env_file.exists()
        with pytest.raises(SystemExit, match="no devnet runs in"):
            tell(tmp_path, "prover/stop")
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
