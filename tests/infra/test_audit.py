"""The audit of the dependencies: this repository passes, and each thing it looks for is found."""

import subprocess
import sys
from email.message import Message
from importlib.metadata import Distribution
from pathlib import Path

import pytest

from infra.audit import (
    is_allowed,
    problems_of_installed,
    problems_of_licences,
    problems_of_lock,
    problems_of_project,
)
from tests.infra.production import ROOT

HASH = f"--hash=sha256:{'0' * 64}"
LOCK = f"one==1.0 \\\n    {HASH}\n    # via two\ntwo==2.0 ; python_version < '4' \\\n    {HASH}\n"


class Installed(Distribution):
    """A package as its metadata describes it."""

    def __init__(self, name: str, version: str, **fields: str) -> None:
        message = Message()
        for field, value in {"Name": name, "Version": version, **fields}.items():
            message[field.replace("_", "-")] = value
        self._text = message.as_string()

    def read_text(self, filename: str) -> str | None:
        return self._text if filename == "METADATA" else None

    def locate_file(self, path: object) -> Path:
        return Path(str(path))


def test_this_repository_passes() -> None:
    """Its lock, its pyproject.toml and what is installed here; what cannot be known offline is said."""
    done = subprocess.run([sys.executable, "-m", "infra.audit"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "0 problems. Not checked" in done.stdout
    assert "withdrawn releases and known vulnerabilities" in done.stdout


@pytest.mark.parametrize(
    ("lock", "said"),
    [
        (LOCK, []),
        (f"one>=1.0 \\\n    {HASH}\n", ["one>=1.0: not pinned"]),
        (f"one==1.* \\\n    {HASH}\n", ["one==1.*: not pinned"]),
        ("one==1.0\n    # via two\n", ["one==1.0: has no hash"]),
        (f"{LOCK}-e ./three\n", ["-e ./three: not a plain pinned package"]),
        (f"{LOCK}three @ https://host/three.whl\n", ["three @ https://host/three.whl: not a plain"]),
    ],
)
def test_a_lock_holds_versions_and_hashes_and_nothing_else(lock: str, said: list[str]) -> None:
    found = list(problems_of_lock(lock))
    assert len(found) == len(said)
    assert all(problem.startswith(start) for problem, start in zip(found, said, strict=True))


def test_a_dependency_that_the_lock_does_not_satisfy_is_named() -> None:
    project = {"": ["one>=1", "two>=3", "three>=1"], "dev": ["One[extra]<2"]}
    found = list(problems_of_project(project, LOCK))
    assert [problem.split(";")[0] for problem in found] == [
        "two>=3: the lock has 2.0",
        "three>=1: the lock has no such package",
    ]


def test_what_is_installed_beside_the_lock_is_named() -> None:
    installed = [Installed("One", "1.0"), Installed("two", "2.1"), Installed("three", "3.0"), Installed("pip", "24")]
    assert [problem.split(";")[0] for problem in problems_of_installed(installed, LOCK)] == [
        "two 2.1: the lock says ==2.0",
        "three 3.0: is installed and not in the lock",
    ]


def test_a_licence_that_nobody_has_allowed_is_named() -> None:
    agpl = "License :: OSI Approved :: GNU Affero General Public License v3"
    installed = [
        Installed("good", "1", License_Expression="MIT"),
        Installed("silent", "1"),
        Installed("bad", "1", Classifier=agpl),
        Installed("worded", "1", License="Apache-2.0"),
    ]
    assert [problem.split(";")[0] for problem in problems_of_licences(installed)] == [
        "silent: licence not named",
        "bad: licence GNU Affero General Public License v3",
    ]


@pytest.mark.parametrize(
    ("licence", "allowed"),
    [
        ("MIT", True),
        ("MPL-2.0 AND (Apache-2.0 OR MIT)", True),
        ("GPL-3.0-only OR MIT", True),
        ("MIT AND GPL-3.0-only", False),
        ("MIT AND (GPL-3.0-only OR AGPL-3.0-only)", False),
        ("AGPL-3.0-or-later", False),
        ("", False),
    ],
)
def test_an_expression_is_allowed_where_one_choice_of_it_is(licence: str, allowed: bool) -> None:
    assert is_allowed(licence) is allowed
