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
PAGES = {path.name: "index.md" if path.stem == "README" else path.name for path in sorted(ROOT.glob("*.md"))}
REFERENCE = {
    "reference/game.md": (
        "Parts of the game beside those that `nash_swarm` itself has, which are on the page before.",
        ("nash_swarm.quantizers.formats.native.layout.TensorLayout", "nash_swarm.game.coupling.Coupling",
         "nash_swarm.game.certificate.certify", "nash_swarm.game.interaction.Interaction"),
    ),
    "reference/plugins.md": (
        "What a plug-in subclasses, the contracts that it is held to, and what there is.",
        ("nash_swarm.solvers.base.Solver", "nash_swarm.solvers.base.Play",
         "nash_swarm.solvers.toolbox.fill", "nash_swarm.solvers.toolbox.repair", "nash_swarm.solvers.toolbox.trade",
         "nash_swarm.solvers.toolbox.respond", "nash_swarm.solvers.toolbox.spend",
         "nash_swarm.solvers.toolbox.supporting_price", "nash_swarm.solvers.toolbox.never_worse",
         "nash_swarm.quantizers.rounding.base.Quantizer",
         "nash_swarm.damage.base.DamageEstimator", "nash_swarm.damage.base.Sensitivity", "nash_swarm.registry",
         "nash_swarm.testing.solver_contract.check_solver", "nash_swarm.testing.quantizer_contract.check_quantizer",
         "nash_swarm.testing.damage_contract.check_damage"),
    ),
}  # fmt: skip


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that are not in docs/."""
    for name, page in PAGES.items():
        files.append(File.generated(config, page, content=_moved((ROOT / name).read_text(encoding="utf-8"))))
    license_text = f"# License\n\n```text\n{(ROOT / 'LICENSE').read_text(encoding='utf-8')}```\n"
    files.append(File.generated(config, "LICENSE.md", content=license_text))
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
    return re.sub(r"\]\(\.\./(\w+\.md)", _renamed, markdown)


def _moved(text: str) -> str:
    text = re.sub(r"\]\(docs/", "](", text)
    return text.replace("](LICENSE)", "](LICENSE.md)").replace("](README.md", "](index.md")


def _renamed(link: re.Match[str]) -> str:
    return f"]({PAGES.get(link[1], link[1])}"


def _home(place: str) -> str:
    """The module that defines what a package only passes on."""
    import importlib

    module, _, name = place.rpartition(".")
    if place in ("nash_swarm.registry", "nash_swarm.errors"):
        return place
    found = getattr(importlib.import_module(module), name)
    return f"{getattr(found, '__module__', module)}.{name}"
