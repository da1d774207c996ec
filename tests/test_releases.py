"""Ranges of releases in pyproject.toml, and the lists of releases that are tried."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
NEEDED = [Requirement(text) for text in (*PROJECT["dependencies"], *EXTRAS["gguf"], *EXTRAS["peft"])]


def pins(name: str) -> dict[str, str]:
    """Releases by package."""
    return dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / name).read_text(), re.MULTILINE))


def lowest(needed: Requirement) -> str:
    return next(bound.version for bound in needed.specifier if bound.operator == ">=")


def test_the_oldest_releases_are_the_lower_ends_of_the_ranges() -> None:
    assert pins("constraints-oldest.txt") == {needed.name: lowest(needed) for needed in NEEDED}


def test_the_usual_releases_lie_in_the_ranges() -> None:
    usual = pins("constraints.txt")
    for needed in NEEDED:
        assert needed.specifier.contains(usual[needed.name]), needed
    for name, extra in PROJECT["optional-dependencies"].items():
        for needed in map(Requirement, extra):
            assert (
                needed.name == "nash-swarm" or needed.name not in usual or needed.specifier.contains(usual[needed.name])
            ), (name, needed)


def test_ranges_of_packages_with_private_names_in_use_end() -> None:
    for needed in NEEDED:
        if needed.name in ("torch", "transformers", "numpy", "numba"):
            ends = [Version(bound.version) for bound in needed.specifier if bound.operator == "<"]
            assert len(ends) == 1 and ends[0] > Version(pins("constraints.txt")[needed.name]), needed


def test_jobs_are_what_the_pages_say() -> None:
    run, versions = ((ROOT / ".ci" / name).read_text() for name in ("run", "versions"))
    assert 'make test VENV="$venv/venv" PYTEST_ARGS="--nothing-missing"' in run
    assert "constraints-oldest.txt" in versions
    for folder in re.findall(r"tests/[\w/]+(?:\.py)?", versions):
        assert (ROOT / folder).exists(), folder
