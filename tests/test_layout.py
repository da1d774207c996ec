"""The shape of the repository: what is packaged, what is imported when, and how long files may get."""

from __future__ import annotations

import ast
import importlib.metadata
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import nash_swarm

ROOT = Path(__file__).parents[1]
ROOMS = {
    "nash_swarm": ROOT / "nash_swarm",
    "nash_swarm.solvers": ROOT / "solvers",
    "nash_swarm.quantizers": ROOT / "quantizers",
}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LONGEST = 400
HEAVY = ("torch", "transformers", "numba", "scipy", "datasets", "matplotlib", "safetensors", "typer", "rich")


def packages() -> dict[str, Path]:
    """Every package of the tree by its import name."""
    found = {}
    for name, room in ROOMS.items():
        for init in room.rglob("__init__.py"):
            inside = init.parent.relative_to(room).parts
            # the rooms are met through their links too, by some versions of Python
            if name != "nash_swarm" or inside[:1] not in (("solvers",), ("quantizers",)):
                found[".".join((name, *inside))] = init.parent
    return found


def modules() -> list[Path]:
    return [path for folder in packages().values() for path in folder.glob("*.py")]


def test_every_package_is_packaged_under_its_name() -> None:
    setuptools = PROJECT["tool"]["setuptools"]
    assert sorted(setuptools["packages"]) == sorted(packages())
    mapping = setuptools["package-dir"]
    for name, folder in packages().items():
        parents = [part for part in mapping if name == part or name.startswith(f"{part}.")]
        nearest = max(parents, key=len)
        inside = name.removeprefix(nearest).strip(".").replace(".", "/")
        assert (ROOT / mapping[nearest] / inside).resolve() == folder.resolve(), name


@pytest.mark.parametrize("room", ["solvers", "quantizers"])
def test_the_rooms_are_linked_where_type_checkers_look(room: str) -> None:
    link = ROOT / "nash_swarm" / room
    assert link.is_symlink() and link.readlink() == Path("..") / room
    assert (link / "__init__.py").is_file()


def test_registered_plugins_exist_and_carry_their_names() -> None:
    groups = PROJECT["project"]["entry-points"]
    assert sorted(groups) == ["nash_swarm.damage", "nash_swarm.quantizers", "nash_swarm.solvers"]
    for plugins in groups.values():
        for name, place in plugins.items():
            kind = importlib.metadata.EntryPoint(name, place, "").load()
            assert kind.name == name and kind.summary


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_say_what_they_are_for_and_stay_short(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert ast.get_docstring(ast.parse(text)), "no docstring"
    assert len(text.splitlines()) <= LONGEST


def test_tests_stay_short_too() -> None:
    assert not [path for path in (ROOT / "tests").rglob("*.py") if len(path.read_text().splitlines()) > LONGEST]


def imported(code: str) -> set[str]:
    """Which of the heavy packages a fresh interpreter has after `code`."""
    check = f"import sys\n{code}\nprint(*[name for name in {HEAVY!r} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True, cwd=ROOT.parent)
    return set(result.stdout.split())


def test_importing_the_package_is_light() -> None:
    assert imported("import nash_swarm; dir(nash_swarm); nash_swarm.__version__") == set()


def test_everything_public_is_there() -> None:
    assert set(nash_swarm.__all__) == {"__version__", *nash_swarm._HOMES} <= set(dir(nash_swarm))
    for name in nash_swarm.__all__:
        assert getattr(nash_swarm, name) is not None
    with pytest.raises(AttributeError, match="pakc"):
        nash_swarm.pakc  # noqa: B018
    assert importlib.metadata.version("nash-swarm") == nash_swarm.__version__


@pytest.mark.parametrize(
    "code",
    [
        "import nash_swarm, transformers.quantizers.auto as auto",
        "import transformers.quantizers.auto as auto; import nash_swarm",
        "import transformers, nash_swarm; import transformers.quantizers.auto as auto",
    ],
)
def test_transformers_learns_of_packed_models_in_any_order(code: str) -> None:
    assert "transformers" in imported(f"{code}\nassert 'nash_swarm' in auto.AUTO_QUANTIZATION_CONFIG_MAPPING")
