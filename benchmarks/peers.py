"""The same protocol for nash-swarm and for other tools that install from PyPI: KL over bits.

Usage::

    python benchmarks/peers.py MODEL --calibration FILE --test FILE --work FOLDER [--row SPEC ...]
        [--python NAME=PATH ...] [--measured ROWS.csv] [--windows 64]
        [--json FILE] [--csv FILE] [--plot STEM] [--markdown FILE]

MODEL is anything `nash-swarm compress` takes. Only the linears inside transformer blocks are quantized, everything else
stays; bits are every byte of codes, scales, zero-points and metadata times 8, over the quantized weights. Calibration
windows (at most --calibration-windows of 512 tokens) come from one file, the first --windows test windows from another.
Every row's weights are dequantized into a float32 copy of the model, which `nash_swarm.evaluate` holds against the
original: loss, perplexity, KL(original || quantized), top-1 agreement.

A row is written NAME:KEY=VALUE,KEY=VALUE. `--row` may be repeated:

    ours:bits=3.17[,tune=100,windows=64,solver=nash]  our pipeline with the settings of --effort
    packed:path=FOLDER[,note=TEXT]                    a model of scope linear that `nash-swarm compress` has saved
    uniform:bits=3.17    the same with one width for all          rtn:bits=3.5     rounded to nearest
    gptq:width=3[,group=128,damp=0.01,windows=128]                the recipe of the literature, in this environment
    hqq:width=4[,group=64,axis=1]                                 pip install hqq
    llama-cpp:type=Q3_K_M[,imatrix=1,flat=1,pure=1]               pip install llama-cpp-python gguf (builds C++)
    auto-round:width=4[,iters=0,samples=16]                       pip install auto-round
    auto-round:bits=3.2[,options=W2A16+W3A16+W4A16+W8A16]         AutoScheme
    widths:bits=3.2      allocations alone: AutoScheme's widths per layer rounded by us, and ours at those bytes

Each tool runs in a subprocess with the interpreter that --python names for it (`--python hqq=ENV/bin/python`; the one
that runs this by default); it needs torch, safetensors and, but for hqq, transformers beside the tool. What a tool
cannot do is reported and the run goes on. Finished rows are kept in --work: the same command takes a killed run up, and
more rows may be added. --measured takes rows from a CSV with the columns that --csv writes, without running them;
--leave-out skips those of methods that begin with a text.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from peer_tools.contest import Contest
from peer_tools.picture import draw
from peer_tools.table import COLUMNS, by_bits, compare, markdown, markdown_comparisons, read_rows, write_rows
from reporting import FIGURES, new_pictures, origin, own_file, write_json

from nash_swarm.caveats import counted

_PROTOCOL = "weights; calibrated on at most"


def main() -> None:
    arguments = _arguments()
    contest = Contest(arguments)
    for spec in arguments.row:
        contest.run(spec)
    measured = [row for path in arguments.measured for row in read_rows(path, arguments.leave_out)]
    rows = [*contest.rows(), *measured]
    comparisons = compare(rows)
    facts = contest.protocol
    protocol = (
        f"{facts['model']}, scope linear, {contest.weights:,} {_PROTOCOL} "
        f"{facts['calibration_tokens']:,} tokens of {facts['calibration']}; "
        f"{counted(facts['test_tokens'], facts['test'])}"
    )
    text = "\n\n".join([protocol, markdown(rows), markdown_comparisons(comparisons)])
    print(f"\n{text}")
    if arguments.markdown:
        arguments.markdown.write_text(text + "\n", encoding="utf-8")
    if arguments.csv:
        write_rows(rows, arguments.csv)
    if arguments.plot and rows:
        draw(rows, arguments.plot, f"{facts['model']}: {counted(facts['test_tokens'], facts['test'])}")
    values = {
        **origin("torch", "transformers", "numpy", "numba"), **contest.values,
        "by row": contest.values["rows"], "rows": [asdict(row) for row in by_bits(rows)],
        "comparisons": [each.to_dict() for each in comparisons],
    }  # fmt: skip
    write_json(arguments.json, values)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--calibration", required=True, help="text file")
    parser.add_argument("--test", required=True, help="text file that nothing is calibrated on")
    parser.add_argument("--work", type=Path, required=True, help="folder for what is kept between runs")
    parser.add_argument("--row", action="append", default=[], metavar="SPEC")
    parser.add_argument("--python", action="append", default=[], metavar="NAME=PATH")
    parser.add_argument("--measured", action="append", default=[], metavar="CSV")
    parser.add_argument("--leave-out", action="append", default=[], metavar="TEXT")
    parser.add_argument("--windows", type=int, default=64)
    parser.add_argument("--calibration-windows", type=int, default=128)
    parser.add_argument("--effort", default="best", help="settings of our own rows")
    parser.add_argument("--damage-windows", type=int, help="for measuring; the effort's if not given")
    parser.add_argument("--game", type=Path, help="measured before on the calibration file, instead of measuring")
    parser.add_argument("--solver", default="nash-swarm")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=own_file(FIGURES))
    parser.add_argument("--csv", type=own_file(",".join(COLUMNS)))
    parser.add_argument("--plot", type=new_pictures, metavar="STEM")
    parser.add_argument("--markdown", type=own_file(_PROTOCOL))
    return parser.parse_args()


if __name__ == "__main__":
    main()
