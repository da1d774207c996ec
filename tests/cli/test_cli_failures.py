"""Whatever goes wrong ends in one line and an exit code; streams that are closed, narrow or poor take what is said."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch

from nash_swarm.cli import failing, show
from nash_swarm.cli import main as cli

ROOT = Path(__file__).parents[2]
INTERRUPTED = "nash-swarm: interrupted; no half-written output is left\n"


def run(*arguments: object, **settings: Any) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    words = [sys.executable, "-m", "nash_swarm", *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | settings.pop("env", {})
    return subprocess.run(
        words, text=True, check=False, env=environment, **({"capture_output": True} | settings)
    )  # fmt: skip


class Model(torch.nn.Module):
    def forward(self) -> None:
        self.inner()

    def inner(self) -> None:
        raise IndexError("index out of range in self\nmore")


def raising(error: BaseException) -> Any:
    def fail() -> None:
        raise error

    return fail


@pytest.mark.parametrize(
    ("fail", "words"),
    [
        (raising(ZeroDivisionError("division by zero")), ["unexpected ZeroDivisionError: division by zero", "line "]),
        (raising(KeyError("x")), ["unexpected KeyError: 'x'"]),
        (raising(RecursionError("maximum recursion depth exceeded")), ["RecursionError", "maximum recursion depth"]),
        (raising(MemoryError()), ["not enough memory", "--max-memory"]),
        (raising(RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried")), ["not enough"]),
        (raising(ValueError("first\nsecond")), ["unexpected ValueError: first (in"]),
        (raising(OSError(errno.ENAMETOOLONG, "File name too long", "a/b")), ["nash-swarm: File name too long: a/b"]),
        (Model(), ["the model's own code failed: Model raised IndexError: index out of range in self"]),
    ],
)
def test_what_nobody_raised_on_purpose_is_one_line(
    fail: Any, words: list[str], command: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "app", fail)
    told = command("anything")
    assert told.code == 1 and told.out == "" and told.err.count("\n") == 1
    assert told.err.startswith("nash-swarm: ") and all(word in told.err for word in words), told.err
    monkeypatch.setenv(failing.DEBUG, "1")
    debugged = command("anything").err
    assert "Traceback (most recent call last)" in debugged and debugged.endswith(told.err)


def test_an_interrupt_is_one_wherever_it_comes_from(command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(failing.DEBUG, "1")
    monkeypatch.setattr(cli, "app", raising(KeyboardInterrupt()))
    assert (command("x").code, command("x").err) == (130, INTERRUPTED)

    def wrapped() -> None:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt as error:
            raise ImportError("while a module was being imported") from error

    monkeypatch.setattr(cli, "app", wrapped)
    assert (command("x").code, command("x").err) == (130, INTERRUPTED)


def test_names_with_line_breaks_stay_in_one_line(command: Any) -> None:
    for name in ("no\nsuch/place", "no\x1b[31m/such/place", "no\udcff/such/place"):
        told = command("eval", name)
        assert told.code == 1 and told.err.count("\n") == 1 and "\x1b" not in told.err and "no such" not in told.err
        assert "does not exist" in told.err


@pytest.mark.parametrize("place", ["reference", "tokenizer"])
def test_another_vocabulary(place: str, bench: Any, stages: Any, command: Any, tmp_path: Path) -> None:
    from support.models import tiny_llama

    other = tmp_path / "other"
    if place == "reference":
        tiny_llama(tied=True).save_pretrained(other)
        words = ("eval", bench.model, "--reference", other)
    else:
        tiny_llama(tied=True).save_pretrained(other)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(bench.model / name, other / name)
        words = ("eval", other)
    told = command(*words, "--text", bench.text, "--tokens", 600, "-q")
    assert told.code == 2 and told.err.count("\n") == 1 and "vocabulary" in told.err and "LlamaForCausalLM" in told.err


def test_a_larger_vocabulary_of_the_reference(bench: Any, stages: Any, command: Any, tmp_path: Path) -> None:
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(bench.model)
    model.resize_token_embeddings(600)
    model.save_pretrained(tmp_path / "other")
    told = command("eval", bench.model, "--reference", tmp_path / "other", "--text", bench.text, "-q")
    assert told.code == 2 and told.err.count("\n") == 1 and "600" in told.err and "vocabulary" in told.err


def test_an_output_name_of_250_characters(bench: Any, stages: Any, command: Any, tmp_path: Path) -> None:
    folder, file, game = tmp_path / ("ä" * 125), tmp_path / f"{'a' * 245}.json", tmp_path / f"{'g' * 251}.npz"
    assert command("pack", bench.model, stages.allocation, "-o", folder, "-q").code == 0
    assert command("solve", stages.game, "--bits", 5, "-o", file, "-q").code == 0
    told = command(
        "compress", bench.model, "--bits", 6, "-o", tmp_path / ("c" * 255), "--text", bench.text, "--windows", 1,
        "--eval-windows", 0, "--no-contest", "--quantizer", "rtn", "-q",
    )  # fmt: skip
    assert told.code == 0, told.err
    measured = command("measure", bench.model, "--damage", "magnitude", "--text", bench.text, "-o", game, "-q")
    assert measured.code == 0, measured.err
    assert sorted(path.name[0] for path in tmp_path.iterdir()) == ["a", "c", "g", "ä"]
    told = command("solve", stages.game, "--bits", 5, "-o", tmp_path / ("b" * 256))
    assert told.code == 1 and told.err.count("\n") == 1 and "too long" in told.err


@pytest.mark.parametrize("name", ["new\nline", "x[bold]y:smile:", "-dash"])
def test_odd_output_names(name: str, bench: Any, stages: Any, command: Any, tmp_path: Path) -> None:
    told = command("pack", bench.model, stages.allocation, "-o", tmp_path / name)
    assert told.code == 0, told.err
    shown = command("inspect", tmp_path / name)
    assert shown.code == 0 and ("\n" in name or name in shown.out.replace("\n", "")), shown.out


def test_brackets_and_colons_in_what_is_shown_mean_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    show.print_rich("a[/b] [red]", show.table("t[/i]", ("c[/d]", ""), [("e[/f]", ":smile:")]))
    said = capsys.readouterr().out
    assert all(word in said for word in ("a[/b] [red]", "t[/i]", "c[/d]", "e[/f]", ":smile:"))


def test_a_reader_that_goes_away(stages: Any) -> None:
    for arguments in (["inspect", stages.packed], ["inspect", stages.packed, "--json"], ["--help"]):
        words = [sys.executable, "-m", "nash_swarm", *map(str, arguments)]
        process = subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(ROOT)}
        )
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        process.stderr.close()
        assert process.wait() in (0, 1)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_full_disk_behind_standard_output(stages: Any) -> None:
    with Path("/dev/full").open("w") as full:
        done = run("inspect", stages.packed, stdout=full, stderr=subprocess.PIPE, capture_output=False)
    assert (done.returncode, done.stderr) == (1, "nash-swarm: No space left on device\n")


@pytest.mark.parametrize(
    "env",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"COLUMNS": "20"},
        {"NO_COLOR": "1"},
        {"TERM": "dumb"},
    ],
)
def test_poor_terminals(env: dict[str, str], stages: Any) -> None:
    done = run("inspect", stages.packed, env=env)
    assert (done.returncode, done.stderr) == (0, "")
    assert "8 bits" in done.stdout and "\x1b" not in done.stdout
    if "PYTHONIOENCODING" in env or "LC_ALL" in env:
        assert done.stdout.isascii() and "####" in done.stdout
    if "COLUMNS" in env:
        assert max(map(len, done.stdout.splitlines())) <= 20
    prompt = run("generate", stages.packed, "größer", "--tokens", 2, "-q", env=env)
    assert (prompt.returncode, _but_slow(prompt.stderr)) == (0, "")


def _but_slow(err: str) -> str:
    """Without the line that says why the tiny model's layers are not one call."""
    return "".join(line for line in err.splitlines(keepends=True) if "generates text module by module" not in line)


def test_a_prompt_that_is_no_text(stages: Any) -> None:
    words = [sys.executable.encode(), b"-m", b"nash_swarm", b"generate", os.fsencode(stages.packed), b"\xff\xfe"]
    done = subprocess.run(words, capture_output=True, check=False, env=os.environ | {"PYTHONPATH": str(ROOT)})
    told = _but_slow(done.stderr.decode())
    assert done.returncode == 2 and told.count("\n") == 1 and "not UTF-8" in told


@pytest.mark.parametrize("closed", [[0], [1], [2], [0, 1, 2]])
def test_closed_streams(closed: list[int], bench: Any, tmp_path: Path) -> None:
    def close() -> None:
        for number in closed:
            os.close(number)

    with (tmp_path / "stdout").open("w") as out, (tmp_path / "stderr").open("w") as err:
        done = run(
            "measure", bench.model, "--damage", "magnitude", "--text", bench.text, "-o", tmp_path / "game.npz",
            stdout=out, stderr=err, capture_output=False, preexec_fn=close,
        )  # fmt: skip
    said = (tmp_path / "stderr").read_text()
    assert done.returncode == 0 and (tmp_path / "game.npz").stat().st_size and "Traceback" not in said, said
    with (tmp_path / "stdout").open("w") as out, (tmp_path / "stderr").open("w") as err:
        done = run("solve", "none.npz", "--bits", 3, "-o", tmp_path / "a.json",
                   stdout=out, stderr=err, capture_output=False, preexec_fn=close)  # fmt: skip
    assert done.returncode == 1 and not (tmp_path / "a.json").exists()
    assert (tmp_path / "stdout").read_text() == ""
    assert (tmp_path / "stderr").read_text().count("\n") == (0 if 2 in closed else 1)


@pytest.mark.parametrize("delay", [0.15, 0.25, 0.4, 0.7])
def test_an_interrupt_in_the_first_second(delay: float, bench: Any, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", "print(flush=True)\nfrom nash_swarm.cli.start import main\nmain()", "measure",
         str(bench.model), "--text", str(bench.text), "-o", str(tmp_path / "game.npz")],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    assert process.stdout is not None
    process.stdout.readline()  # the interpreter has started; what it does before is not ours
    time.sleep(delay)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate()
    # Python ends by the signal itself if it came while a dataclass was being made: the same for a shell
    assert process.returncode in (130, -signal.SIGINT)
    assert said.splitlines()[-1] + "\n" == INTERRUPTED and "Traceback" not in said
    assert not any(tmp_path.iterdir())


def test_nothing_heavy_stands_before_the_interrupts_handling() -> None:
    code = "import sys; import nash_swarm.cli.start; print([n for n in ('typer', 'rich', 'click') if n in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["scripts"] == {"nash-swarm": "nash_swarm.cli.start:main"}
    assert "cli.start" in (ROOT / "nash_swarm" / "__main__.py").read_text()
