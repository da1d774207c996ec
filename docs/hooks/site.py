"""What the site has beside the files of docs/: the repository's own pages, and the reference made of docstrings.

Links are written so that they work where the repository is read. In the site README.md is the first page and stands in
the same folder as those of docs/, so links from one place to the other lose their folder.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

import nash_swarm

ROOT = Path(__file__).parents[2]
PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "CONTRIBUTING.md", "CHANGELOG.md": "CHANGELOG.md",
         "LICENSE": "LICENSE.md"}  # fmt: skip
REFERENCE = {
    "reference/game.md": (
        "The game and its parts: what solvers get and what they return.",
        ("nash_swarm.game.bitgame.BitGame", "nash_swarm.game.budget.Budget", "nash_swarm.game.layout.TensorLayout",
         "nash_swarm.game.coupling.Coupling", "nash_swarm.game.allocation.Allocation",
         "nash_swarm.game.certificate.Certificate", "nash_swarm.game.certificate.certify",
         "nash_swarm.game.rules.Rules", "nash_swarm.game.arena.Arena", "nash_swarm.errors"),
    ),
    "reference/plugins.md": (
        "What a plug-in subclasses, the contracts that it is held to, and what there is.",
        ("nash_swarm.solvers.base.Solver", "nash_swarm.solvers.base.Play", "nash_swarm.quantizers.base.Quantizer",
         "nash_swarm.damage.base.DamageEstimator", "nash_swarm.damage.base.Sensitivity", "nash_swarm.registry",
         "nash_swarm.testing.solver_contract.check_solver", "nash_swarm.testing.quantizer_contract.check_quantizer"),
    ),
}  # fmt: skip


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that are not in docs/."""
    for name, page in PAGES.items():
        files.append(File.generated(config, page, content=_moved((ROOT / name).read_text(encoding="utf-8"))))
    python = (
        "Everything here is an attribute of `nash_swarm`, loaded on first use.",
        tuple(f"{nash_swarm._HOMES[name]}.{name}" for name in nash_swarm.__all__ if name in nash_swarm._HOMES),
    )
    for page, (about, places) in {"reference/python.md": python, **REFERENCE}.items():
        blocks = "\n\n".join(f"::: {_home(place)}" for place in places)
        title = {"python": "Python", "game": "The game", "plugins": "Plug-ins"}[Path(page).stem]
        files.append(File.generated(config, page, content=f"# {title}\n\n{about}\n\n{blocks}\n"))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links from docs/ up to the repository's own pages."""
    return re.sub(r"\]\(\.\./(README|CONTRIBUTING|CHANGELOG)\.md", _renamed, markdown)


def _moved(text: str) -> str:
    text = re.sub(r"\]\(docs/", "](", text)
    return text.replace("](LICENSE)", "](LICENSE.md)").replace("](README.md", "](index.md")


def _renamed(link: re.Match[str]) -> str:
    return f"]({PAGES[f'{link[1]}.md']}"


def _home(place: str) -> str:
    """The module that defines what a package only passes on."""
    import importlib

    module, _, name = place.rpartition(".")
    if place in ("nash_swarm.registry", "nash_swarm.errors"):
        return place
    found = getattr(importlib.import_module(module), name)
    return f"{getattr(found, '__module__', module)}.{name}"
