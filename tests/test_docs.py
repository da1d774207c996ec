"""What the documents say is so: their examples run, their commands parse, their paths and links exist."""

from __future__ import annotations

import importlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from support.bench import Bench
from support.benchmarks import BENCHMARKS, parse
from support.models import tiny_llama

import nash_swarm
from nash_swarm import registry
from nash_swarm.testing import check_solver

ROOT = Path(__file__).parent.parent
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def _text(name: str | Path) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def _blocks(name: str | Path, language: str) -> list[str]:
    return [content for kind, content in _BLOCK.findall(_text(name)) if kind == language]


def _names(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(ROOT)) for path in paths]


def _run(code: str, label: str) -> None:
    exec(compile(code, label, "exec"), {"__name__": "example"})


@pytest.mark.parametrize("document", DOCUMENTS, ids=_names(DOCUMENTS))
def test_examples_compile(document: Path) -> None:
    for number, code in enumerate(_blocks(document, "python")):
        compile(code, f"{document.name}, example {number}", "exec")
    for code in _blocks(document, "json"):
        json.loads(code)
    for code in _blocks(document, "toml"):
        tomllib.loads(code)


def test_the_readme_examples_run(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(bench.model, "path/to/model")
    shutil.copy(bench.text, "corpus.txt")
    for number, code in enumerate(_blocks("README.md", "python")):
        _run(code, f"README.md, example {number}")
    assert {path.name for path in tmp_path.iterdir()} >= {"out", "out-3bit", "game.npz"}


def test_the_minimal_example_is_short_and_does_what_its_page_says(capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = _blocks("docs/minimal.md", "python")
    assert code == _text("examples/minimal.py")
    assert len(code.splitlines()) <= 100
    module = {"__name__": "minimal"}
    exec(compile(code, "minimal.py", "exec"), module)
    found = module["main"]()  # type: ignore[operator]
    (size, bargained), (same, uniform) = found["lagrangian"], found["uniform"]
    assert size == same
    assert 0.6 < bargained / uniform < 0.8
    assert "gap to the optimum" in capsys.readouterr().out


@pytest.fixture
def plug_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The plug-ins of CONTRIBUTING.md, each in the file that its first line names, importable."""
    for code in _blocks("CONTRIBUTING.md", "python"):
        if match := re.match(r"# (\w+)\.py\n", code):
            (tmp_path / f"{match[1]}.py").write_text(code, encoding="utf-8")
            monkeypatch.delitem(sys.modules, match[1], raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_the_plug_ins_of_the_guide_keep_their_contracts(plug_ins: Path) -> None:
    checks = [code for code in _blocks("CONTRIBUTING.md", "python") if "nash_swarm.testing import check_" in code]
    assert len(checks) == 4
    for number, code in enumerate(checks):
        _run(code, f"CONTRIBUTING.md, check {number}")


def test_the_solver_made_of_the_toolbox_keeps_its_contract(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = [code for code in _blocks("docs/writing-a-solver.md", "python") if code.startswith("# bargain.py")]
    (tmp_path / "bargain.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    check_solver(importlib.import_module("bargain").Bargain(), examples=20)


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "docs/writing-a-solver.md", "docs/solvers.md"])
def test_how_to_pages_name_public_modules_alone(page: str) -> None:
    assert not re.search(r"solvers[./]_\w|game[./]_\w", _text(page))


@pytest.mark.parametrize("name, most", [("climb", 30), ("outputs", 24)])
def test_the_plug_ins_of_the_guide_are_short(name: str, most: int, plug_ins: Path) -> None:
    code = (plug_ins / f"{name}.py").read_text(encoding="utf-8")
    lines = [line for line in code[code.index("@dataclass") :].splitlines() if line.strip()]
    assert len(lines) <= most


def test_the_entry_point_of_the_guide_is_found(plug_ins: Path) -> None:
    declared = tomllib.loads(_blocks("CONTRIBUTING.md", "toml")[0])["project"]["entry-points"]
    installed = plug_ins / "climb-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: climb\nVersion: 1.0\n", encoding="utf-8")
    points = "".join(
        f"[{group}]\n" + "".join(f"{name} = {target}\n" for name, target in entries.items())
        for group, entries in declared.items()
    )
    (installed / "entry_points.txt").write_text(points, encoding="utf-8")
    command = Path(sysconfig.get_path("scripts")) / "nash-swarm"
    done = subprocess.run(
        [command, "solvers", "--json"], capture_output=True, text=True, check=True,
        env=os.environ | {"PYTHONPATH": str(plug_ins)},
    )  # fmt: skip
    assert json.loads(done.stdout)["solvers"]["climb"] == "hill climbing from every single width"


def test_the_estimator_of_the_guide_measures(plug_ins: Path, tokens: npt.NDArray[np.int32]) -> None:
    estimator = importlib.import_module("outputs").Outputs()
    game = nash_swarm.measure(tiny_llama(tied=True), tokens=tokens, damage=estimator, group_size=32, quiet=True)
    assert game.provenance["damage"] == "outputs"
    assert not game.permutations
    allocation = nash_swarm.solve(game, bits=8.0)
    nash_swarm.pack(tiny_llama(tied=True), allocation, quiet=True)


def test_every_path_that_a_document_names_exists() -> None:
    files = {path.name for folder in ("nash_swarm", "solvers", "quantizers", "tests") for path in _python(folder)}
    for document in DOCUMENTS:
        for path in re.findall(r"`((?:\.?[\w-]+/)+[\w.-]*)`", _text(document)):
            assert (ROOT / path).exists(), f"{document.name} names {path}"
        for name in re.findall(r"`(\w+\.py)`", _text(document)):
            assert name in files, f"{document.name} names {name}"


def test_the_architecture_page_names_every_folder() -> None:
    told = _text("docs/ARCHITECTURE.md")
    for init in [*(ROOT / "nash_swarm").glob("*/__init__.py")]:
        folder = init.parent
        name = f"`{folder.name}/`" if folder.is_symlink() else f"`nash_swarm/{folder.name}/`"
        assert name in told, f"docs/ARCHITECTURE.md does not name {name}"


def _python(folder: str) -> list[Path]:
    return list((ROOT / folder).rglob("*.py"))


def _commands() -> dict[str, Any]:
    import typer

    from nash_swarm.cli.main import app

    group: Any = typer.main.get_command(app)
    return dict(group.commands)


def _spelled_out(document: Path) -> list[str]:
    """The command lines of a document's blocks, fenced or indented."""
    blocks = _blocks(document, "sh") + re.findall(
        r"^    (?:python benchmarks/|nash-swarm )(?:.*\\\n)*.*", _text(document), re.M
    )
    return [line.strip() for block in blocks for line in block.replace("\\\n", " ").splitlines()]


def _in_passing(document: Path) -> list[str]:
    """The command lines in a document's sentences."""
    return [
        " ".join(line.split()) for line in re.findall(r"`((?:nash-swarm|python benchmarks/)[^`]+)`", _text(document))
    ]


@pytest.mark.parametrize("document", DOCUMENTS, ids=_names(DOCUMENTS))
def test_every_command_line_parses(document: Path) -> None:
    commands = _commands()
    sentences = _in_passing(document)
    for line in _spelled_out(document) + sentences:
        words = shlex.split(line, comments=True)
        if not words or Path(words[0]).name != "nash-swarm" or words[1:] == ["--help"]:
            continue
        assert words[1] in commands, line
        try:
            commands[words[1]].make_context(words[1], words[2:])
        except Exception as error:  # of a click that typer keeps to itself
            # a sentence may leave out the model or an option's value
            if line not in sentences or type(error).__name__ not in ("MissingParameter", "BadOptionUsage"):
                raise


@pytest.mark.parametrize("document", DOCUMENTS, ids=_names(DOCUMENTS))
def test_every_benchmark_command_parses(document: Path) -> None:
    for line in _spelled_out(document) + _in_passing(document):
        words = shlex.split(line, comments=True)
        if words[:1] == ["python"] and words[1].startswith("benchmarks/"):
            assert (ROOT / words[1]).is_file(), line
            try:
                parse(words[1].removeprefix("benchmarks/").removesuffix(".py"), words[2:])
            except SystemExit:
                pytest.fail(line)


MAKE_MODELS = ("benchmarks/gpt2_model.py", "benchmarks/reference_model.py")


@pytest.mark.parametrize("document", DOCUMENTS, ids=_names(DOCUMENTS))
def test_tables_of_figures_name_their_command(document: Path) -> None:
    first, *sections = re.split(r"^## ", _text(document), flags=re.MULTILINE)
    for section in sections:
        title = section.partition("\n")[0]
        if not re.search(r"^\|.*\d\.\d", section, re.MULTILINE):
            continue
        makers = re.findall(r"(nash-swarm [a-z]\S+ |python (benchmarks/\S+))", first + section)
        assert any(script not in MAKE_MODELS for _, script in makers), f"{document.name}, {title}"


def test_every_option_that_a_document_names_exists() -> None:
    known = {option for command in _commands().values() for each in command.params for option in _options_of(each)}
    for file in BENCHMARKS.glob("*.py"):
        known |= set(re.findall(r"add_argument\(\s*\"(--[a-z-]+)", file.read_text(encoding="utf-8")))
    known |= {
        "--help",
        "--version",
        "--no-deps",
        "--check",
        "--strict",
    }  # our command's own; pip's, ruff's and mypy's or mkdocs's
    known |= {"--maxprocesses", "--dist"}  # of pytest-xdist
    for document in DOCUMENTS:
        named = {option for code in re.findall(r"`[^`]+`", _text(document)) for option in _OPTION.findall(code)}
        assert named <= known, f"{document.name} names {named - known}"


GROUPS = ("nash_swarm.backends", "nash_swarm.families")
"""Groups of entry points that are no modules of the same name."""
_OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]+")


def _options_of(parameter: Any) -> list[str]:
    return [*parameter.opts, *parameter.secondary_opts]


@pytest.mark.parametrize("document", DOCUMENTS, ids=_names(DOCUMENTS))
def test_every_function_that_a_document_calls_exists(document: Path) -> None:
    for name in re.findall(r"\b(?:ns|nash_swarm)\.(\w+)\(", _text(document)):
        assert hasattr(nash_swarm, name), f"{document.name} calls {name}"
    for module, name in re.findall(r"`(nash_swarm(?:\.\w+)*)\.(\w+)`", _text(document)):
        group = f"{module}.{name}" in GROUPS
        if not (group or (ROOT / Path(*module.split("."), name)).is_dir() or f"{module}.{name}".endswith(".json")):
            assert hasattr(importlib.import_module(module), name), f"{document.name} names {module}.{name}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=_names(DOCUMENTS))
def test_links_resolve(document: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", _text(document)):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = (document.parent / path).resolve() if path else document
        assert file.exists(), f"{document.name} links to {target}"
        if anchor:
            assert anchor in _anchors(file), f"{document.name} links to {target}"


def _anchors(file: Path) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_every_recipe_of_make_is_spelled_out() -> None:
    told = (_text("README.md") + _text("CONTRIBUTING.md")).splitlines()
    for recipe in re.findall(r"^\t(.+)$", _text("Makefile"), re.MULTILINE):
        plain = recipe.replace("$(BIN)", ".venv/bin").replace(" -q", "").replace(" $(PYTEST_ARGS)", "")
        plain = plain.replace("$(PYTHON)", "python3").replace("$(VENV)", ".venv")
        assert plain in told, plain


def test_every_recipe_installs_the_checkout_in_place() -> None:
    """What Numba has cached beside a copy outlives it, as a package without code that hides the checkout."""
    installs = [line for line in _text("Makefile").splitlines() if "pip install" in line and ".[" in line]
    assert len(installs) == 3
    assert all(" -e " in line for line in installs)


def test_the_readme_has_every_solver() -> None:
    listed = re.findall(
        r"^\| `([\w-]+)` \| [a-z0-9]", _text("README.md").split("## Choosing a solver")[1], re.MULTILINE
    )
    ours = {name for name in registry.names("solvers") if registry.load("solvers", name).__module__.startswith("nash_")}
    assert set(listed) == ours


def test_the_changelog_has_this_version() -> None:
    assert f"## [{nash_swarm.__version__}]" in _text("CHANGELOG.md")


def test_the_site_builds_without_warnings(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path / "site"],
        cwd=ROOT, capture_output=True, text=True, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip
    assert done.returncode == 0 and "WARNING" not in done.stderr, done.stderr
    pages = {str(page.relative_to(tmp_path / "site")) for page in (tmp_path / "site").rglob("*.html")}
    ours = {f"{path.stem}.html" for path in (ROOT / "docs").glob("*.md")}
    assert ours | {"index.html", "CONTRIBUTING.html", "reference/python.html"} <= pages
    reference = (tmp_path / "site" / "reference" / "python.html").read_text(encoding="utf-8")
    homes = [f'id="{nash_swarm._HOMES[name]}' for name in ("measure", "pack", "compress")]
    assert all(home in reference for home in homes)
    # nothing is fetched when a page is read
    for page in pages:
        text = (tmp_path / "site" / page).read_text(encoding="utf-8")
        assert not re.search(r'<(?:script|link|img)[^>]+(?:src|href)="https?://', text), page
