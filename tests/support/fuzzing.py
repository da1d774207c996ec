"""Feeds damaged files to every reader; any error but our own, five seconds, or too much memory end the process.

Prints a JSON object: inputs and refusals by kind. Run by `tests/artifacts/test_hostile.py`.
"""

from __future__ import annotations

import base64
import faulthandler
import io
import json
import random
import shutil
import signal
import struct
import sys
import tracemalloc
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

import nash_swarm as ns
from nash_swarm.artifacts.checks import check_files
from nash_swarm.artifacts.contents import read_contents
from nash_swarm.artifacts.packed_config import checksum, config_digest
from nash_swarm.artifacts.packed_model import read_config
from nash_swarm.errors import NashSwarmError
from nash_swarm.files.gguf_header import read_header
from nash_swarm.models.folders import stored_tensors
from nash_swarm.models.source import load_source
from nash_swarm.quantizers.formats.per_weight.layout import WeightLayout
from nash_swarm.suite.memory import peak_memory
from support.models import allocate, tiny_llama
from support.mutating import as_json, damaged_bytes, damaged_values
from support.packed import pack, some_case

SECONDS = 5
"""Of this process's own time: a busy machine may take much longer."""
TIMES, BESIDE = 600, 3 << 26
"""Bytes of memory for a byte of file, and beside that; the limit on arrays in games is 256 and 1 << 26."""

Case = tuple[str, Callable[[], Any], int]


class Fuzz:
    def __init__(self, folder: Path, rng: random.Random) -> None:
        self.folder, self.rng = folder, rng
        model = tiny_llama(tied=True)
        self.model = model
        self.game = ns.measure(
            model, tokens=np.arange(64, dtype=np.int32).reshape(2, 32) % 101, damage="activation", group_size=32,
            granularity="tile", quiet=True,
        )  # fmt: skip
        allocation = allocate(self.game)
        ns.save_game(self.game, folder / "game.npz")
        ns.save_allocation(allocation, folder / "allocation.json")
        self.packed = ns.save(ns.pack(model, allocation, quantizer="rtn", quiet=True), folder / "packed")
        model.save_pretrained(folder / "model")
        self.file = folder / "input"

    def put(self, content: bytes, name: str = "input") -> Path:
        path = self.folder / name
        path.write_bytes(content)
        return path

    def games(self) -> Iterator[Case]:
        whole = (self.folder / "game.npz").read_bytes()
        with np.load(io.BytesIO(whole)) as file:
            arrays = {name: file[name] for name in file.files}
        facts = json.loads(arrays["facts"].tobytes())
        while True:
            kind = self.rng.randrange(5)
            if kind == 0:
                content = damaged_bytes(self.rng, whole)
            elif kind == 1:
                # the directory at the end holds sizes and names
                content = whole[:-600] + damaged_bytes(self.rng, whole[-600:])
            elif kind == 2:
                content = self.zipped(
                    arrays | {"facts": np.frombuffer(as_json(damaged_values(self.rng, facts)), np.uint8)}
                )
            elif kind == 3:
                content = self.zipped(self.damaged_arrays(arrays))
            else:
                content = self.lying(arrays)
            path = self.put(content)
            yield "game", lambda path=path: ns.load_game(path), len(content)

    def zipped(self, arrays: dict[str, Any]) -> bytes:
        stream = io.BytesIO()
        np.savez_compressed(stream, **arrays)
        return stream.getvalue()

    def damaged_arrays(self, arrays: dict[str, Any]) -> dict[str, Any]:
        name = self.rng.choice(list(arrays))
        array = arrays[name]
        made: Any = self.rng.choice(
            (
                lambda: array[: len(array) // 2],
                lambda: array.astype(np.float64),
                lambda: array.astype(np.int8),
                lambda: array.T,
                lambda: array.ravel(),
                lambda: array[None],
                lambda: np.zeros(0, array.dtype),
                lambda: np.zeros((3, 0), array.dtype),
                lambda: np.full(array.shape, np.nan, np.float32),
                lambda: np.full(array.shape, -1, np.int64),
                lambda: np.full(array.shape, 2**31, np.uint32),
                lambda: np.zeros(200_000_000, np.uint8),
                lambda: np.array(["x"] * 9),
                lambda: np.zeros((), np.complex64),
                lambda: np.zeros(3, [("a", "i4"), ("b", "f8")]),
            )
        )()
        others = {key: value for key, value in arrays.items() if key != name or self.rng.random() < 0.9}
        key = (
            name
            if self.rng.random() < 0.8
            else self.rng.choice(("order/../x", "/etc/passwd", "coupling/graph", "tokens"))
        )
        return others | {key: made}

    def lying(self, arrays: dict[str, Any]) -> bytes:
        """Array headers that promise more than there is, in archives that say so too, with names that repeat."""
        stream = io.BytesIO()
        victim = self.rng.choice(list(arrays))
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, array in arrays.items():
                inner = io.BytesIO()
                np.lib.format.write_array(inner, array)
                content = inner.getvalue()
                if name == victim:
                    shape = self.rng.choice(
                        ("(9999999999,)", "(1000000, 1000000)", "(-1,)", "(0,)", "(1e9,)", "'x'", "(" * 99)
                    )
                    descr = self.rng.choice(
                        ("'<f4'", "'|O'", "'<i8'", "'|V9999999'", "'<U99999999'", "[('a','<f4')]", "3")
                    )
                    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode() + b"\n"
                    content = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + content[128:]
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    for _ in range(self.rng.choice((1, 1, 1, 2))):
                        archive.writestr(f"{name}.npy", content)
        return stream.getvalue()

    def allocations(self) -> Iterator[Case]:
        whole = (self.folder / "allocation.json").read_bytes()
        values = json.loads(whole)
        bomb = base64.b64encode(zlib.compress(bytes(50_000_000), 9)).decode()
        while True:
            if self.rng.random() < 0.3:
                content = damaged_bytes(self.rng, whole)
            else:
                made = damaged_values(self.rng, values)
                if self.rng.random() < 0.05 and isinstance(made, dict):
                    made["choices"] = bomb
                    if self.rng.random() < 0.5:
                        made["agents_by_width"] = {"2": 50_000_000}
                content = as_json(made)
            path = self.put(content)
            yield "allocation", lambda path=path: ns.load_allocation(path), len(content)

    def buffers(self) -> Iterator[Case]:
        cases = [some_case(), some_case(33, 70), some_case(per_weight=True), some_case(1, 1)]
        buffers = [(case, bytes(pack(case).buffer)) for case in cases]
        while True:
            case, whole = self.rng.choice(buffers)
            layout, strategies = case.layout, case.strategies
            content = whole
            if self.rng.random() < 0.6:
                content = damaged_bytes(self.rng, whole)
            if self.rng.random() < 0.3:
                # widths and base are at the end
                content = content[:-80] + damaged_bytes(self.rng, content[-80:])
            change: dict[str, Any] = {}
            if self.rng.random() < 0.4:
                agents = () if isinstance(layout, WeightLayout) else ("rows_per_agent", "groups_per_agent")
                field = self.rng.choice(("rows", "columns", "group_size", *agents))
                change[field] = self.rng.choice((16, 32, 48, 64, 96, 160, 1 << 16, 999_999_984, 999_999_968))
            array = np.frombuffer(content, np.uint8)

            def read(
                array: Any = array, layout: Any = layout, strategies: Any = strategies, change: Any = change
            ) -> None:
                layout = replace(layout, **change)
                tensor = layout.format.read(array, layout, strategies)
                assert isinstance(layout, WeightLayout) or tensor.offsets.shape == (layout.row_tiles, layout.groups)

            yield "packed tensor", read, len(content)

    def configurations(self, load: bool) -> Iterator[Case]:
        """`config.json` damaged; half of the time its author knows how to compute the digest."""
        folder = Path(shutil.copytree(self.packed, self.folder / f"config-{load}"))
        whole = (self.packed / "config.json").read_bytes()
        values = json.loads(whole)
        while True:
            if self.rng.random() < 0.3:
                content = damaged_bytes(self.rng, whole)
            else:
                made = damaged_values(self.rng, values)
                if load or self.rng.random() < 0.5:
                    with suppress(KeyError, TypeError, AttributeError, ValueError, RecursionError):
                        made["quantization_config"]["digest"] = config_digest(made)
                content = as_json(made)
            (folder / "config.json").write_bytes(content)
            if load:
                yield "load", lambda folder=folder: ns.load(folder), len(content) + 100_000
            else:
                yield "config.json", lambda folder=folder: read_config(folder), len(content)

    def weights(self, load: bool) -> Iterator[Case]:
        """`model.safetensors` damaged; when it is loaded its author knows how to compute checksums."""
        folder = Path(shutil.copytree(self.packed, self.folder / f"weights-{load}"))
        whole = (self.packed / "model.safetensors").read_bytes()
        config = read_config(self.packed)
        size = 8 + int.from_bytes(whole[:8], "little")
        head = json.loads(whole[8:size])
        while True:
            kind = self.rng.randrange(3)
            if load or kind == 0:
                made = bytearray(whole)
                for _ in range(self.rng.randint(1, 3)):
                    at = self.rng.randrange(size, len(made))
                    made[at : at + 4] = self.rng.choice(
                        (b"\xff\xff\xff\x7f", b"\x00\x00\xc0\x7f", b"\xff" * 4, bytes(4))
                    )
                content = bytes(made[: len(whole)])
            elif kind == 1:
                content = damaged_bytes(self.rng, whole, size)
            else:
                text = as_json(damaged_values(self.rng, head))
                content = struct.pack("<Q", len(text)) + text + whole[size:]
            path = folder / "model.safetensors"
            path.write_bytes(content)
            if load:
                self.sign(folder)
                yield "load", lambda folder=folder: ns.load(folder), len(content)
            elif kind == 0:
                yield "safetensors", lambda folder=folder: read_contents(folder), len(content)
            else:
                yield (
                    "safetensors",
                    lambda path=path: (check_files([path], config), stored_tensors(path.parent)),
                    len(content),
                )

    def sign(self, folder: Path) -> None:
        """Write into `config.json` what the weights in the folder ask for."""
        from safetensors.torch import load_file

        values = json.loads((self.packed / "config.json").read_text())
        packed = values["quantization_config"]
        for name, tensor in load_file(folder / "model.safetensors").items():
            if name in packed["dense"]:
                packed["dense"][name] = checksum(tensor)
            else:
                key = name.removesuffix(".packed")
                packed["tensors"][key] = f"{packed['tensors'][key].rsplit(' ', 1)[0]} {checksum(tensor)}"
        packed["digest"] = config_digest(values)
        (folder / "config.json").write_text(json.dumps(values))

    def originals(self) -> Iterator[Case]:
        """A model to be compressed whose configuration or index lies."""
        folder = Path(shutil.copytree(self.folder / "model", self.folder / "original"))
        values = json.loads((folder / "config.json").read_text())
        while True:
            made = damaged_values(self.rng, values)
            if self.rng.random() < 0.5 and isinstance(made, dict):
                made[self.rng.choice([key for key, value in values.items() if isinstance(value, int)])] = (
                    self.rng.choice((10**4, 10**6, 10**9, 10**12, 2**63))
                )
            content = as_json(made)
            (folder / "config.json").write_bytes(content)
            yield "original", lambda folder=folder: load_source(str(folder)), len(content) + 200_000

    def ggufs(self, load: bool) -> Iterator[Case]:
        whole = small_gguf(self.folder / "whole.gguf")
        read_header(self.folder / "whole.gguf")
        while True:
            content = damaged_bytes(self.rng, whole, 700 if self.rng.random() < 0.8 else None)
            path = self.put(content, f"input-{load}.gguf")
            if load:
                yield "gguf load", lambda path=path: load_source(str(path)), len(content)
            else:
                yield "gguf", lambda path=path: read_header(path), len(content)


def small_gguf(path: Path) -> bytes:
    """A Llama of one block in GGUF."""
    from gguf import GGUFWriter

    writer = GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.add_context_length(64)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(64)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(16)
    writer.add_vocab_size(40)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(["a", "b", "ab", "aba", *(f"<{i}>" for i in range(36))])
    writer.add_token_types([1] * 40)
    writer.add_token_merges(["a b", "ab a"])  # one alone is text to older releases of transformers
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    rng = np.random.default_rng(0)

    def weights(name: str, *shape: int) -> None:
        writer.add_tensor(name, rng.standard_normal(shape).astype(np.float32))

    weights("token_embd.weight", 40, 32)
    weights("output_norm.weight", 32)
    weights("output.weight", 40, 32)
    for part in ("q", "k", "v", "output"):
        weights(f"blk.0.attn_{part}.weight", 32, 32)
    weights("blk.0.ffn_gate.weight", 64, 32)
    weights("blk.0.ffn_up.weight", 64, 32)
    weights("blk.0.ffn_down.weight", 32, 64)
    weights("blk.0.attn_norm.weight", 32)
    weights("blk.0.ffn_norm.weight", 32)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.read_bytes()


def run(cases: Iterator[Case], count: int) -> dict[str, int]:
    """Try so many inputs; how many there were, and how many were refused."""
    refused = 0
    name = ""
    for _ in range(count):
        name, read, size = next(cases)
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        # whoever waits for something takes no time of its own
        faulthandler.dump_traceback_later(60 * SECONDS, exit=True)
        try:
            read()
        except NashSwarmError:
            refused += 1
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            faulthandler.cancel_dump_traceback_later()
        taken = tracemalloc.get_traced_memory()[1] - before
        assert taken <= TIMES * size + BESIDE, f"{name}: {taken} bytes for a file of {size}"
    return {"inputs": count, "refused": refused}


def main(folder: Path, seed: int, share: float) -> None:
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    warnings.simplefilter("ignore")
    # the traceback, and then the end that the signal is by default
    faulthandler.register(signal.SIGPROF, chain=True)
    fuzz = Fuzz(folder, random.Random(seed))
    plan: dict[str, tuple[Iterator[Case], int]] = {
        "games": (fuzz.games(), 5000),
        "allocations": (fuzz.allocations(), 5000),
        "packed tensors": (fuzz.buffers(), 5000),
        "config.json": (fuzz.configurations(False), 3000),
        "safetensors": (fuzz.weights(False), 2000),
        "GGUF headers": (fuzz.ggufs(False), 4000),
        "load, config.json": (fuzz.configurations(True), 160),
        "load, weights": (fuzz.weights(True), 60),
        "originals": (fuzz.originals(), 120),
        "load, GGUF": (fuzz.ggufs(True), 60),
    }
    ns.load(fuzz.packed)
    tracemalloc.start()
    # torch's memory is not traced: what would take more than this is refused by the system and fails the run
    before = peak_memory()
    found = {}
    for name, (cases, count) in plan.items():
        found[name] = run(cases, max(1, round(count * share)))
    grown = peak_memory() - before
    print(json.dumps({"found": found, "grown": grown}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
