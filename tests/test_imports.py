"""The import contract: rooms in one order, imports only downwards, no cycles, private names behind one room.

Lazy imports and those for type checkers count. What the list of exceptions holds must still be there.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ORDER = """cli, suite, pipeline, recipe, integrations, evaluation tuning, engine, artifacts, damage, calibration,
quantizers.rounding, quantizers.runtime, models, quantizers.formats, solvers, game, registry, files, compat, base"""
"""Rooms from top to bottom; those between two commas stand beside each other and do not import each other."""
LEVELS = [level.split() for level in ORDER.split(",")]
RANK = {room: len(LEVELS) - place for place, level in enumerate(LEVELS) for room in level}
RANK |= {"testing": RANK["engine"], "root": len(LEVELS) + 1}

_CACHE = "transformers.cache_utils"
PRIVATE: dict[str, list[str]] = {
    "nash_swarm.compiling": ["_cache", "_enabled", "_impl", "_index_key"],
    "nash_swarm.engine.attention": [
        "_attn_implementation", _CACHE, "transformers.integrations.sdpa_attention", "transformers.modeling_utils",
    ],
    "nash_swarm.engine.decoder": [_CACHE, "transformers.modeling_outputs"],
    "nash_swarm.engine.fused": ["_buffers", "_forward_hooks", "_forward_pre_hooks", "_parameters"],
    "nash_swarm.engine.norm": ["_parameters"],
    "nash_swarm.engine.stack": ["_buffers", "_forward_hooks", "_forward_pre_hooks", "_parameters"],
    "nash_swarm.models.skeletons": ["_buffers"],
    "nash_swarm.quantizers.runtime.layer_plan": ["_buffers", "_parameters"],
    "nash_swarm.quantizers.runtime.modules": ["_buffers", "_parameters"],
}  # fmt: skip
"""Private names that are still used outside `compat`, by file."""
TOPS = ("nash_swarm", "nash_swarm"), ("nash_swarm.solvers", "solvers"), ("nash_swarm.quantizers", "quantizers")
PYTHON = {"_replace", "_asdict", "_fields", "_exit"}


@cache
def modules() -> dict[str, Path]:
    """Files by the names they are imported under."""
    found = {}
    for top, folder in (
        ("nash_swarm", "nash_swarm"),
        ("nash_swarm.solvers", "solvers"),
        ("nash_swarm.quantizers", "quantizers"),
    ):
        for path in (ROOT / folder).rglob("*.py"):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            if folder != "nash_swarm" or parts[0] not in ("solvers", "quantizers"):
                found[".".join((top, *(part for part in parts if part != "__init__")))] = path
    return found


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(modules()[module].read_text(encoding="utf-8"))


def imports(module: str) -> set[str]:
    """The modules of the package that a module imports."""
    found = set()
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            inner = {alias.name: f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in modules() else str(node.module) for name in inner.values()}
    return (found & set(modules())) - {module}


def room(module: str) -> str:
    inside = module.split(".")[1:]
    if not inside or inside == ["__main__"]:
        return "root"
    if inside == ["quantizers"]:
        return "quantizers.rounding"
    names = (".".join(inside[:2]), inside[0])
    return next((name for name in names if name in RANK), "base")


def test_imports_go_downwards() -> None:
    found: dict[str, list[str]] = {}
    for module in modules():
        if room(module) != "root":
            here = room(module)
            if up := sorted(t for t in imports(module) if room(t) != here and RANK[room(t)] >= RANK[here]):
                found[module] = up
    assert not found


def in_cycles() -> set[str]:
    """All modules of cycles, the public names of the package aside."""
    left = {module: imports(module) - {"nash_swarm"} for module in modules() if module != "nash_swarm"}
    found: set[str] = set()
    while True:
        try:
            TopologicalSorter(left).prepare()
        except CycleError as error:
            cycle = error.args[1]
            found |= set(cycle)
            left[cycle[1]].discard(cycle[0])
        else:
            return found


def test_there_are_no_cycles() -> None:
    assert not in_cycles()


def own_names() -> set[str]:
    """Private names that the package itself defines."""
    found = set()
    for module in modules():
        for node in ast.walk(tree(module)):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                found.add(node.name)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                found.add(node.id)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                if isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"):
                    found.add(node.attr)
            elif isinstance(node, ast.alias):
                found.add(node.name)
    return found


def unstable(module: str, own: set[str]) -> Iterator[str]:
    """What a module uses of other libraries that they do not promise to keep."""
    for node in ast.walk(tree(module)):
        names: list[str] = []
        if isinstance(node, ast.Attribute):
            names = [node.attr] if node.attr not in own else []
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("getattr", "hasattr"):
            given = node.args[1]
            names = [given.value] if isinstance(given, ast.Constant) and given.value not in own else []
        elif isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] in ("torch", "transformers"):
            names = [*str(node.module).split("."), *(alias.name for alias in node.names)]
            hidden = str(node.module).startswith("transformers.") and node.module != "transformers.utils"
            if hidden or node.module == "torch.multiprocessing.reductions":
                yield str(node.module)
        yield from (name for name in names if name.startswith("_") and not name.endswith("__") and name not in PYTHON)


def test_private_names_stay_behind_one_room() -> None:
    own = own_names()
    found = {module: sorted(set(unstable(module, own))) for module in modules() if room(module) != "compat"}
    assert {module: names for module, names in found.items() if names} == PRIVATE


def test_the_architecture_page_shows_this_order() -> None:
    page = (ROOT / "docs" / "ARCHITECTURE.md").read_text(encoding="utf-8")
    assert "\n".join("  ".join(level) for level in LEVELS) in page


@pytest.mark.parametrize("module", ["nash_swarm.models.source", "nash_swarm.solvers.nash", "nash_swarm.names"])
def test_modules_are_found(module: str) -> None:
    assert module in modules()
