"""Run a devnet until SIGTERM or SIGINT: ``python -m infra.devnet --dir DIR``; or tell one that runs what to do.

``--tell prover/stop`` stops its prover server and ``--tell prover/start`` starts it again; ``node`` and ``l1`` alike.
The other paths are those of ``infra/devnet/control.py``, a body follows as JSON.
"""

import argparse
import asyncio
import os
import signal
import sys
import time
from pathlib import Path

import httpx

from infra.devnet.control import Control
from infra.devnet.devnet import Devnet, DevnetConfig
from infra.devnet.faults import FaultPlan
from infra.devnet.proving import ProverTiming


def parse(arguments: list[str] | None = None) -> tuple[argparse.Namespace, DevnetConfig]:
    """Turn the command line into a configuration."""
    parser = argparse.ArgumentParser(prog="python -m infra.devnet", description=__doc__)
    add = parser.add_argument
    add("--dir", type=Path, default=Path(".devnet"), help="where devnet.env and server.jsonl go")
    add("--tell", nargs="+", metavar=("PATH", "JSON"), help="do this on the devnet that runs in --dir, and end")
    add("--mock", action="store_true", help="mock verifier and mock proofs")
    add("--seed", type=int, default=1)
    add("--l1-block-time", type=float, default=1.0, help="seconds")
    add("--submission-interval", type=int, default=100, help="L2 blocks")
    add("--starting-block", type=int, default=1000)
    add("--l2-speed", type=float, default=10.0, help="finalized L2 blocks per second")
    add("--l2-limit", type=int, default=None, help="the finalized head stops here")
    add("--range-witness", type=float, default=1.0, help="seconds")
    add("--range-proving", type=float, default=3.0, help="seconds")
    add("--agg-witness", type=float, default=1.0, help="seconds")
    add("--agg-proving", type=float, default=3.0, help="seconds")
    add("--jitter", type=float, default=0.2, help="share of the witness and proving times")
    add("--faults", type=Path, default=None, help="a FaultPlan as JSON")
    for name in ("l1", "node", "prover", "control"):
        add(f"--{name}-port", type=int, default=0, help="0: any free port")
    options = parser.parse_args(arguments)
    config = DevnetConfig(
        seed=options.seed,
        mock=options.mock,
        folder=options.dir,
        l1_port=options.l1_port,
        node_port=options.node_port,
        prover_port=options.prover_port,
        l1_block_time_s=options.l1_block_time,
        submission_interval=options.submission_interval,
        starting_block=options.starting_block,
        l2_blocks_per_second=options.l2_speed,
        l2_limit=options.l2_limit,
        timing=ProverTiming(
            range_witness_s=options.range_witness,
            range_proving_s=options.range_proving,
            agg_witness_s=options.agg_witness,
            agg_proving_s=options.agg_proving,
            jitter=options.jitter,
        ),
        faults=FaultPlan.model_validate_json(options.faults.read_bytes()) if options.faults else FaultPlan(),
    )
    return options, config


def write_env(path: Path, values: dict[str, str]) -> None:
    """Write an env file only its owner can read; it appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.writelines(f"{name}={value}\n" for name, value in values.items())
    temporary.replace(path)


async def run(options: argparse.Namespace, config: DevnetConfig) -> None:
    """Run the devnet and its control endpoint until a signal comes."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    env_file: Path = options.dir / "devnet.env"
    async with Devnet(config) as devnet:
        control = Control(devnet, options.control_port)
        await control.http.start()
        # a chain that begins anew needs a ledger that does
        home = options.dir.resolve() / f"home-{time.time_ns() // 10**9}"
        more = {"DEVNET_CONTROL_URL": control.http.url, "PROPOSER_HOME": str(home)}
        write_env(env_file, devnet.env() | more)
        print(f"devnet is up: {env_file}, control at {control.http.url}", flush=True)
        try:
            await stop.wait()
        finally:
            await asyncio.to_thread(env_file.unlink, missing_ok=True)
            await control.http.stop()


def tell(folder: Path, path: str, body: str = "{}") -> str:
    """Post to the control of the devnet that runs in a folder; return its answer, or what is wrong."""
    try:
        lines = (folder / "devnet.env").read_text(encoding="utf-8").splitlines()
    except OSError:
        sys.exit(f"no devnet runs in {folder}: start it with python -m infra.devnet --dir {folder}")
    url = dict(line.split("=", 1) for line in lines)["DEVNET_CONTROL_URL"]
    answer = httpx.post(f"{url}/{path.strip('/')}", content=body, timeout=30, trust_env=False)
    if answer.is_error:
        sys.exit(f"HTTP {answer.status_code}: {answer.text}")
    return answer.text


def main() -> None:
    """Run from the command line."""
    options, config = parse()
    if options.tell:
        print(tell(options.dir, *options.tell[:2]))
    else:
        asyncio.run(run(options, config))


if __name__ == "__main__":
    main()
