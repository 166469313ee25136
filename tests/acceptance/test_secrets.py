"""No secret is shown anywhere: each is marked, the real thing runs well and badly, and everything it left is read."""

import asyncio
import sqlite3
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, urlsplit

import httpx
import pytest

from deployments.environment import SECRETS
from infra.devnet import Devnet
from tests.acceptance.conftest import StartUp
from tests.acceptance.gate import Gate, StrictPostgres
from tests.acceptance.helpers import ROOT, Ledger, Prefect, Up, eventually, free_port, measured, settled
from tests.acceptance.prefect_servers import SessionServer
from tests.devnets import StartDevnet
from tests.everything import everything

GATED = {
    "L1_RPC": "l1",
    "L2_NODE_RPC": "node",
    "OP_SUCCINCT_SERVER_URL": "server",
    "SIGNER_URL": "signer",
    "ALERT_WEBHOOK": "webhook",
}
"""Names of URLs, each with what begins its marks: in user, password, path and query."""
PARTS = ("user", "pass", "path", "query")
DATABASE_PASSWORD = "db+mark/word"
PREFECT_AUTH = "prefect-auth-user:prefect-auth-mark"
PREFECT_KEY = "pnu_prefect-key-mark"
SLACK = "slackTeamMark/slackChannelMark/slackTokenMark"


@dataclass
class Marks:
    """What must not be found, by the setting it is in, and everything that was looked at."""

    of: dict[str, tuple[str, ...]]
    looked_at: dict[str, bytes] = field(default_factory=dict[str, bytes])

    def look(self, place: str, text: str | bytes) -> None:
        """Remember what a place has shown."""
        self.looked_at[place] = self.looked_at.get(place, b"") + (text.encode() if isinstance(text, str) else text)

    def found(self) -> list[str]:
        """Say which mark is in which place, in which form."""
        forms = {(name, form): kind for name, marks in self.of.items() for m in marks for kind, form in _forms(m)}
        return sorted(
            f"{name} ({kind}) in {place}: ...{_around(shown, form)}..."
            for place, shown in self.looked_at.items()
            for (name, form), kind in forms.items()
            if form.lower() in shown.lower()
        )


def _forms(mark: str) -> Iterator[tuple[str, bytes]]:
    """Return a mark in clear, percent-encoded, in hex and in base64, wherever in a longer text it may begin."""
    raw = bytes.fromhex(mark) if len(mark) == 64 else mark.encode()
    yield "clear", mark.encode()
    yield "percent-encoded", quote(mark, safe="").encode()
    yield "hex", raw.hex().encode()
    for shift in range(3):
        # what lies beside it changes the first and the last letters
        encoded = b64encode(b"\0" * shift + raw + b"\0\0").rstrip(b"=")
        yield f"base64 after {shift}", encoded[4 if shift else 0 : -4]


def _around(shown: bytes, form: bytes) -> str:
    at = shown.lower().index(form.lower())
    return shown[max(0, at - 60) : at + 40].decode(errors="replace").replace("\n", " ")


@asynccontextmanager
async def gates(devnet: Devnet) -> AsyncIterator[dict[str, Gate]]:
    """Put a gate before every part that is known by a URL."""
    targets = {"L1_RPC": devnet.l1_rpc, "L2_NODE_RPC": devnet.node_rpc, "OP_SUCCINCT_SERVER_URL": devnet.prover_url}
    # nobody signs: what the signer's gate answers when it passes on is an error as well
    made = {name: Gate(targets.get(name, devnet.node_rpc)) for name in GATED}
    for gate in made.values():
        await gate.start()
    try:
        yield made
    finally:
        for gate in made.values():
            await gate.stop()


def marked_url(name: str, url: str) -> str:
    """Put marks into every part of a URL that can hold a secret."""
    user, password, path, query = (f"{GATED[name]}-{part}-mark" for part in PARTS)
    return f"http://{user}:{password}@{urlsplit(url).netloc}/v3/{path}?apikey={query}"


def marks_of(devnet: Devnet) -> Marks:
    """Return the marks of every secret."""
    return Marks(
        {
            **{name: tuple(f"{short}-{part}-mark" for part in PARTS) for name, short in GATED.items()},
            "PRIVATE_KEY": (devnet.proposer_key.removeprefix("0x"), str(int(devnet.proposer_key, 16))),
            "DATABASE_URL": (DATABASE_PASSWORD,),
            "PREFECT_API_AUTH_STRING": (PREFECT_AUTH, "prefect-auth-mark"),
            "PREFECT_API_KEY": (PREFECT_KEY,),
            "ALERT_SLACK_WEBHOOK": tuple(SLACK.split("/")),
        }
    )


def as_files(folder: Path, values: Mapping[str, str]) -> dict[str, str | None]:
    """Give every secret as `NAME_FILE`."""
    folder.mkdir()
    given: dict[str, str | None] = {}
    for name in SECRETS:
        if name in values:
            (folder / name).write_text(values[name] + "\n")
            given |= {name: None, f"{name}_FILE": str(folder / name)}
    return given


async def command(one: Up, *arguments: str, **changes: str | None) -> str:
    """Run a command in a proposer's environment with these changes; return all it says."""
    environment = {k: v for k, v in (one.environment | changes).items() if v is not None}

    def run() -> str:
        done = subprocess.run(
            [sys.executable, *(arguments if arguments[0] == "-c" else ("-m", "deployments.cli", *arguments))],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        return f"{done.stdout}\n{done.stderr}"

    return await asyncio.to_thread(run)


DEFECT = """
import asyncio
import flows.stages.ranges as ranges
met = asyncio.Event()
def broken(*arguments):
    met.set()
    raise RuntimeError('a defect')
ranges.plan_ranges = broken
import deployments.claim as claim
keeps = claim.Claim.keep
async def keep(self):
    keeping = asyncio.create_task(keeps(self))
    await met.wait()
    await asyncio.sleep(10)  # Prefect is told meanwhile
    raise KeyError('another defect')
claim.Claim.keep = keep
from deployments.cli import app
app(['up'])
"""
"""A proposer with one defect in a stage, which Prefect sees, and one that ends the process with a traceback."""


def _whole_database(server: SessionServer) -> bytes:
    """Dump every table of Prefect's database, and its files as they are: blocks are encrypted in there."""
    (file,) = server.log_file.parent.glob("prefect.db")
    with sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=20) as connection:
        dump = "\n".join(connection.iterdump()).encode()
    raw = [path.read_bytes() for path in server.log_file.parent.glob("prefect.db*")]
    return b"\n".join([dump, *raw])


def _listening(pids: Sequence[int]) -> set[str]:
    """Return the addresses that these processes listen on, from what the kernel says."""
    sockets = {
        str(entry.readlink()) for pid in pids for entry in Path(f"/proc/{pid}/fd").iterdir() if entry.is_symlink()
    }
    found: set[str] = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text(encoding="ascii").splitlines()[1:]:
            columns = line.split()
            if columns[3] == "0A" and f"socket:[{columns[9]}]" in sockets:
                found.add(columns[1].rpartition(":")[0])
    return found


def _children(pid: int) -> list[int]:
    children = [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]
    threads = [t for t in Path(f"/proc/{pid}/task").iterdir() if t.name != str(pid)]
    children += [int(p) for t in threads for p in (t / "children").read_text(encoding="ascii").split()]
    return [pid, *(one for child in children for one in _children(child))]


async def test_no_secret_is_shown_by_anything(
    start_devnet: StartDevnet,
    up: StartUp,
    prefect: Prefect,
    prefect_server: SessionServer,
    rows: Ledger,
    tmp_path: Path,
) -> None:
    """Settling, with edges that answer what they were sent, refused at start, with defects, and by every command."""
    began = time.monotonic()
    devnet = await start_devnet()
    marks = marks_of(devnet)
    assert set(marks.of) == set(SECRETS), "every secret has a mark here: give a new one to this test"
    database_url = rows.url.replace("postgres:@", f"postgres:{quote(DATABASE_PASSWORD, safe='')}@")
    assert database_url != rows.url
    async with gates(devnet) as gate:
        secret = {name: marked_url(name, gate[name].http.url) for name in GATED}
        given = {
            **{name: url for name, url in secret.items() if name != "SIGNER_URL"},
            "PRIVATE_KEY": devnet.proposer_key,
            "DATABASE_URL": database_url,
            "PREFECT_API_AUTH_STRING": PREFECT_AUTH,
        }
        port = free_port()
        loud = {"LOG_LEVEL": "DEBUG", "METRICS_PORT": str(port), "PREFECT_LOGGING_LEVEL": "DEBUG"}
        one = up(devnet, **given, **loud)
        await settled(devnet, 1100, one)
        seen = "\n".join(line for g in gate.values() for line in g.seen)
        for name in ("L1_RPC", "L2_NODE_RPC", "OP_SUCCINCT_SERVER_URL"):
            assert all(mark in seen for mark in marks.of[name]), f"{name} does not reach its gate"
        assert _listening(_children(one.process.pid)) == {"0100007F"}, "loopback and nothing else"

        devnet.l2.advance_to(1200)
        await _badly(gate, one, marks, port)
        async with httpx.AsyncClient(trust_env=False, timeout=20) as http:
            for path in ("metrics", "healthz", "readyz"):
                marks.look(path, (await http.get(f"http://127.0.0.1:{port}/{path}")).text)
        assert await one.terminate() == 0

        await _refused(one, up, devnet, gate, secret, marks, given, tmp_path)
        marks.look("the ledger", repr({k: v for k, v in everything(rows.url).items() if k != "proofs"}))
        marks.look("Prefect's database", await asyncio.to_thread(_whole_database, prefect_server))
        marks.look("Prefect's log", prefect_server.log_file.read_bytes())
        assert {"op-succinct-l1-chain", "op-succinct-local-signer", "op-succinct-web3signer"} <= {
            kind["slug"] for kind in await prefect.all("/block_types/filter")
        }
    # in a cycle of Prefect's it fails the run, in one without Prefect it ends the process
    seen = marks.looked_at["Prefect's database"] + marks.looked_at["defective"]
    assert b"a defect" in seen, marks.looked_at["defective"].decode()[-4000:]
    assert marks.found() == []
    size, took = sum(map(len, marks.looked_at.values())) / 2**20, time.monotonic() - began
    measured(f"{len(marks.looked_at)} places, {size:.1f} MiB searched, in {took:.0f} s")


async def _badly(gate: Mapping[str, Gate], one: Up, marks: Marks, port: int) -> None:
    """Let every edge answer with what it was sent; commands look meanwhile."""
    looks = {
        "unauthorized": ("status",),
        "error-object": ("doctor",),
        "wrong-fields": ("plan", "--json"),
        "text": ("explain",),
    }
    for mood, arguments in looks.items():
        for each in gate.values():
            each.mood = mood  # type: ignore[assignment]
        before = one.output.count("\n")
        marks.look(f"{' '.join(arguments)} while {mood}", await command(one, *arguments, METRICS_PORT=None))

        async def said(before: int = before) -> bool:
            return one.output.count("\n") > before

        await eventually(f"the proposer says something while {mood}", said, alive=one)
    for each in gate.values():
        each.mood = "pass"


async def _refused(
    one: Up,
    up: StartUp,
    devnet: Devnet,
    gate: Mapping[str, Gate],
    secret: Mapping[str, str],
    marks: Marks,
    given: Mapping[str, str],
    tmp_path: Path,
) -> None:
    """Start with what is wrong: secrets in files, another database, a signer that refuses, a defect."""
    postgres = StrictPostgres()
    strict = f"postgresql://me:{quote(DATABASE_PASSWORD, safe='')}@127.0.0.1:{await postgres.start()}/ledger"
    signer = {"PRIVATE_KEY": None, "SIGNER_URL": secret["SIGNER_URL"], "SIGNER_ADDRESS": devnet.proposer_address}
    files = as_files(tmp_path / "files", dict(given))
    away = {name: f"{urlsplit(url).scheme}://{urlsplit(url).netloc.rpartition(':')[0]}:1/v3/{GATED[name]}-path-mark"
            for name, url in secret.items() if name in given}  # fmt: skip
    mixed = {"L2OO_ADDRESS": given["PRIVATE_KEY"], "POLL_INTERVAL": "soon", "PREFECT_API_AUTH_STRING": None}
    gate["SIGNER_URL"].mood = "unauthorized"
    # no proposer runs that could call it, and the next `apply` forgets it
    slack = {"ALERT_SLACK_WEBHOOK": f"https://hooks.slack.com/services/{SLACK}"}
    marks.look("Slack's block", await command(one, "apply", METRICS_PORT=None, **slack))
    marks.look("no Slack address", await command(one, "apply", ALERT_SLACK_WEBHOOK=f"https://elsewhere/{SLACK}"))
    runs = {
        "apply": command(one, "apply", METRICS_PORT=None),
        "wrong password": command(one, "status", DATABASE_URL=strict),
        "wrong password at start": command(one, "up", DATABASE_URL=strict, PREFECT_API_AUTH_STRING=None),
        "help": command(one, "up", "--help"),
        "mixed up": command(one, "up", **mixed, PREFECT_API_KEY=PREFECT_KEY),
        "signer": command(one, "doctor", **signer),
        "signer's block": command(one, "apply", **signer, PREFECT_API_AUTH_STRING=None, PREFECT_API_KEY=PREFECT_KEY),
        "away": command(one, "plan", **away),
        "files": command(one, "status", **files),
        "files of nothing": command(one, "status", **(files | {"L1_RPC_FILE": given["L1_RPC"]})),
        "defective": command(one, "-c", DEFECT, METRICS_PORT=None),
    }
    limit = asyncio.Semaphore(2)  # more only wait for one another's imports

    async def ran(place: str) -> None:
        async with limit:
            marks.look(place, await runs[place])

    await asyncio.gather(*(ran(place) for place in runs))
    assert postgres.heard == DATABASE_PASSWORD, "the password was really sent"
    await postgres.stop()
    assert any("signer-pass-mark" in line for line in gate["SIGNER_URL"].seen)
    marks.look("up", one.output)


@pytest.mark.parametrize("mark", ["a secret, and its form", "ab" * 32])
def test_a_mark_is_found_in_every_form(mark: str) -> None:
    """The search itself: in clear, percent-encoded, hex and base64, inside of other text."""
    raw = bytes.fromhex(mark) if len(mark) == 64 else mark.encode()
    for shown in (mark, quote(mark), raw.hex(), *(b64encode(b"x" * n + raw + b"yz").decode() for n in range(3))):
        marks = Marks({"NAME": (mark,)})
        marks.look("here", f"before {shown} after")
        assert marks.found(), shown
    clean = Marks({"NAME": (mark,)})
    clean.look("here", "before *** after")
    assert clean.found() == []
