"""Text generation end to end: transformers in fp32 and bf16, a packed model, and llama.cpp, interleaved in one run.

    nash-swarm compress smollm2 --bits 4.0 --solver lagrangian --no-baselines -o smollm2-4bit
    python benchmarks/decode.py smollm2-4bit --json decode.json

Every contestant runs in a process of its own; rounds go through them in turn, and the best time of each counts.
llama.cpp takes part if `--llama-python` names an interpreter that has llama-cpp-python. Further tables: loading and
memory, and what rounding activations to 8 bits costs.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from reporting import FIGURES, origin, own_file, write_json

from nash_swarm.suite.markdown import rows_table

WORKER = Path(__file__).parent / "speed" / "worker.py"
HELD_OUT = 8192
Row = dict[str, Any]


class Contestant:
    """A process that holds one model and times it when told to.

    Args:
        name: of its row.
        python: interpreter.
        kind: of engine, see `speed/worker.py`.
        path: the model.
        threads: how many it computes with.
        prompt, new: tokens read at once, and tokens generated one by one after the first that follows them.
    """

    def __init__(self, name: str, python: str, kind: str, path: str, threads: int, prompt: int, new: int) -> None:
        self.name, self.threads = name, threads
        command = [python, "-W", "ignore", str(WORKER), json.dumps([kind, path, threads, prompt, new])]
        # a pool of OpenMP threads would stay awake beside ours
        environment = os.environ | {"OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            env=environment,
        )  # fmt: skip
        self.bytes = int(self._answer()["bytes"])
        self.prompt: list[float] = []
        self.decode: list[float] = []

    def _answer(self) -> Row:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} did not start; run its worker by hand: {shlex.join(self._process.args)}")  # type: ignore[arg-type]
        answer: Row = json.loads(line)
        return answer

    def go(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        answer = self._answer()
        self.prompt.append(answer["prompt"])
        self.decode.append(answer["decode"])

    def stop(self) -> None:
        self._process.communicate()


def llama_file(python: str, source: str, kind: str, folder: Path) -> str:
    """The model in one of llama.cpp's own formats, made by its own quantizer."""
    target = folder / f"{kind}.gguf"
    code = (
        "import sys, llama_cpp as l\n"
        "p = l.llama_model_quantize_default_params()\n"
        f"p.ftype, p.allow_requantize = l.LLAMA_FTYPE_MOSTLY_{kind}, True\n"
        "sys.exit(l.llama_model_quantize(sys.argv[1].encode(), sys.argv[2].encode(), p))\n"
    )
    subprocess.run([python, "-c", code, source, str(target)], check=True, capture_output=True)
    return str(target)


def speed(arguments: argparse.Namespace, folder: Path) -> list[Row]:
    from nash_swarm.models.source import BUILT_IN, _built_in

    here, original = sys.executable, arguments.original
    entries = [
        ("transformers fp32", here, "float32", original),
        ("transformers bf16", here, "bfloat16", original),
        *((f"nash-swarm packed ({path.name})", here, "packed", str(path)) for path in arguments.packed),
    ]
    if arguments.llama_python:
        gguf = original
        if original in BUILT_IN:
            place, file, _ = _built_in(original)
            gguf = str(place / file)
        entries += [
            (
                f"llama.cpp {kind}",
                arguments.llama_python,
                "llama",
                llama_file(arguments.llama_python, gguf, kind, folder),
            )
            for kind in ("Q4_0", "Q8_0")
        ]
    rows: list[Row] = []
    for threads in arguments.threads:
        contestants = [Contestant(*entry, threads, arguments.prompt, arguments.new) for entry in entries]
        for _ in range(arguments.rounds):
            for contestant in contestants:
                contestant.go()
        for contestant in contestants:
            contestant.stop()
        first = contestants[0]
        rows += [
            {
                "engine": contestant.name,
                "threads": threads,
                "MB": contestant.bytes / 1e6,
                "prompt tokens/s": arguments.prompt / min(contestant.prompt),
                "decode tokens/s": arguments.new / min(contestant.decode),
                "prompt x fp32": min(first.prompt) / min(contestant.prompt),
                "decode x fp32": min(first.decode) / min(contestant.decode),
            }
            for contestant in contestants
        ]
    return rows


def loading(arguments: argparse.Namespace, folder: Path) -> list[Row]:
    """Time and memory of loading, in a process that has done everything once with a tiny packed model."""
    make_tiny(folder / "tiny")
    command = [sys.executable, "-W", "ignore", __file__, "--memory", str(arguments.packed[0]), str(folder / "tiny")]
    row: Row = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
    return [row]


def make_tiny(path: Path) -> None:
    import torch
    import transformers

    import nash_swarm as ns

    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=64, hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, tie_word_embeddings=True,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config)
    game = ns.measure(model, damage="magnitude", text=None, quiet=True)
    allocation = ns.solve(game, size=-(-game.largest_bits() // 8), solver="greedy")
    ns.save(ns.pack(model, allocation, quantizer="rtn", quiet=True), path)


def memory(packed: str, tiny: str) -> None:
    import torch

    import nash_swarm
    from nash_swarm.artifacts.packed_model import counted_bytes
    from nash_swarm.suite.memory import status

    def use(model: Any, tokens: int) -> None:
        ids = torch.arange(tokens)[None]
        model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=2, do_sample=False, pad_token_id=0)

    torch.set_num_threads(1)
    use(nash_swarm.load(tiny), 8)
    framework = status("VmRSS")
    start = time.perf_counter()
    model = nash_swarm.load(packed)
    seconds = time.perf_counter() - start
    loaded, peak = status("VmRSS"), status("VmHWM")
    use(model, 8)
    used = status("VmRSS")
    size = counted_bytes(packed)
    dense = sum(
        4 * module.layout.weights
        for module in model.modules()
        if type(module).__name__ in ("PackedLinear", "PackedEmbedding")
    )
    print(
        json.dumps(
            {
                "load seconds": seconds,
                "file MB": size / 1e6,
                "framework MB": framework / 1e6,
                "after load MB": loaded / 1e6,
                "peak of load MB": peak / 1e6,
                "after generate MB": used / 1e6,
                "dense weights MB": dense / 1e6,
                "resident / file": (max(loaded, used) - framework) / size,
            }
        )
    )


def activations(arguments: argparse.Namespace) -> list[Row]:
    """Loss of the same packed weights with rounded and unrounded activations."""
    import numpy as np

    import nash_swarm as ns
    from nash_swarm.calibration.text import BUILT_IN_TEXT, choose_windows, cut_windows, load_text

    text = load_text(arguments.text or BUILT_IN_TEXT)
    folder = arguments.packed[0]
    windows = cut_windows(text, ns.load_tokenizer(folder), part="held-out")
    windows = choose_windows(windows, HELD_OUT // windows.shape[1], np.random.default_rng(0))
    models = {mode: ns.load(folder, activations=mode) for mode in ("fp32", "int8")}
    found = ns.evaluate(models, windows, reference=models["fp32"], quiet=True)
    return [
        {
            "activations": mode,
            "text": text.source,
            "tokens": result.tokens,
            "loss": result.loss,
            "loss - fp32": result.loss - found["fp32"].loss,
            "KL to fp32": result.kl,
        }
        for mode, result in found.items()
    ]


COLUMNS = {
    "speed": {"engine": "", "threads": "", "MB": ".1f", "prompt tokens/s": ".0f", "decode tokens/s": ".1f",
              "prompt x fp32": ".2f", "decode x fp32": ".2f"},
    "loading": {"load seconds": ".2f", "file MB": ".1f", "framework MB": ".0f", "after load MB": ".0f",
                "peak of load MB": ".0f", "after generate MB": ".0f", "dense weights MB": ".0f",
                "resident / file": ".2f"},
    "activations": {"activations": "", "text": "", "tokens": "", "loss": ".5f", "loss - fp32": ".5f",
                    "KL to fp32": ".5f"},
}  # fmt: skip


def report(results: dict[str, Any]) -> None:
    print(f"`{results['command']}`; {results['versions']}, {results['machine']}")
    for title, columns in COLUMNS.items():
        if title in results:
            print("\n".join(["", f"### {title}", "", *rows_table(results[title], columns)]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "packed",
        nargs="*",
        type=Path,
        help="folders of packed models, with their tokenizers; loading and activations are about the first",
    )
    parser.add_argument("--original", default="smollm2", help="the model it was packed from")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--prompt", type=int, default=128, help="tokens read at once")
    parser.add_argument("--new", type=int, default=64, help="tokens generated one by one after them")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--text", help="held-out text, by default the built-in one")
    parser.add_argument("--llama-python", help="interpreter that has llama-cpp-python")
    parser.add_argument("--only", choices=tuple(COLUMNS), help="one of the three parts")
    parser.add_argument("--json", metavar="FILE", type=own_file(FIGURES), help="write all figures here")
    parser.add_argument("--memory", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory:
        memory(*arguments.memory)
        return
    if not arguments.packed:
        parser.error("the folder of a packed model is needed")
    from nash_swarm.quantizers.runtime.cpu.simd import paths

    results: dict[str, Any] = {
        **origin("torch", "transformers", "numba"),
        "kernels": paths.NAMES[paths.choose()],
        "prompt tokens": arguments.prompt,
        "new tokens": arguments.new,
    }
    with tempfile.TemporaryDirectory() as folder:
        if arguments.only in (None, "speed"):
            results["speed"] = speed(arguments, Path(folder))
        if arguments.only in (None, "loading"):
            results["loading"] = loading(arguments, Path(folder))
    if arguments.only in (None, "activations"):
        results["activations"] = activations(arguments)
    report(results)
    write_json(arguments.json, results)


if __name__ == "__main__":
    main()
