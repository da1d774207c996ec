"""A third-party package, installed with pip into an environment of its own, is found through its entry point."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import numpy as np
import pytest

import nash_swarm as ns
from nash_swarm import registry
from nash_swarm.testing.games import sample_game

EXAMPLE = Path(__file__).parent / "example"


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a fresh environment that sees this one's packages and has the example installed."""
    home = tmp_path_factory.mktemp("environment")
    venv.create(home, with_pip=False, symlinks=True)
    python = home / "bin" / "python"
    site = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    # what is installed here is visible there, editable installs included
    seen = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    line = "import site; " + "; ".join(f"site.addsitedir({path!r})" for path in seen)
    (Path(site) / "parent.pth").write_text(line + "\n", encoding="utf-8")
    source = home / "source"
    shutil.copytree(EXAMPLE, source)
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-index",
         "--no-build-isolation", "--disable-pip-version-check", str(source)],
        check=True,
    )  # fmt: skip
    return python


def _run(python: Path, *arguments: str, cwd: Path) -> str:
    done = subprocess.run([python, *arguments], capture_output=True, text=True, cwd=cwd, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_it_is_not_installed_here() -> None:
    assert "descent" not in registry.names("solvers")


def test_it_is_listed(environment: Path, tmp_path: Path) -> None:
    told = json.loads(_run(environment, "-m", "nash_swarm", "solvers", "--json", cwd=tmp_path))
    assert told["solvers"]["descent"] == "from the widest strategies down, cheapest bits first"


def test_it_solves_and_its_allocation_is_certified_without_it(environment: Path, tmp_path: Path) -> None:
    game = sample_game(np.random.default_rng(4), most_agents=40)
    ns.save_game(game, tmp_path / "game.npz")
    budget = f"{(game.smallest_bits() + game.largest_bits()) // 16}B"
    _run(
        environment, "-m", "nash_swarm", "solve", "game.npz", "--size", budget, "--solver", "descent",
        "-o", "allocation.json", cwd=tmp_path,
    )  # fmt: skip
    allocation = ns.load_allocation(tmp_path / "allocation.json")
    assert allocation.solver == "descent"
    assert "holds" in _run(
        Path(sys.executable), "-m", "nash_swarm", "certify", "game.npz", "allocation.json", "--json", cwd=tmp_path
    )


def test_its_own_tests_pass_there(environment: Path, tmp_path: Path) -> None:
    shutil.copytree(EXAMPLE / "tests", tmp_path / "tests")
    _run(environment, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests", cwd=tmp_path)
