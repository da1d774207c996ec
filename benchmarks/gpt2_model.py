"""The GPT-2-architecture model of the benchmark pages: IgLM's weights as a model directory, and text that it samples.

Usage::

    pip install --no-deps iglm==0.1.0
    python benchmarks/gpt2_model.py iglm

writes ``iglm/`` (safetensors, configuration, tokenizer) and ``iglm/sampled.txt``: antibody sequences, one a line, drawn
from the model itself at temperature 1 with a fixed seed, because the package brings no text. The model knows nothing
but single sequences that begin at position 0, so all lines are cut to 104 tokens (shorter ones are left out), and
windows of that length are exactly the lines (``nash-swarm bench --length 104``). IgLM (R. W. Shuai, J. A. Ruffolo,
J. J. Gray 2023) is under an academic licence: measure with it, do not pass it on.
"""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path

import torch
from reporting import new_folder
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

SPECIES = ("[HUMAN]", "[MOUSE]", "[CAMEL]", "[RABBIT]", "[RAT]", "[RHESUS]")
CHAINS = ("[HEAVY]", "[LIGHT]")
LONGEST = 150
LENGTH = 104


def package() -> Path:
    """The folder of the installed package's models, which is not imported."""
    spec = importlib.util.find_spec("iglm")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("iglm is not installed; run: pip install --no-deps iglm==0.1.0")
    return Path(next(iter(spec.submodule_search_locations))) / "trained_models"


def load(folder: Path) -> GPT2LMHeadModel:
    config = GPT2Config.from_pretrained(folder / "IgLM")
    config.bos_token_id = config.eos_token_id = 2
    model = GPT2LMHeadModel(config)
    # only tensors: nothing that a pickle could name is run
    state = torch.load(folder / "IgLM" / "pytorch_model.bin", map_location="cpu", weights_only=True)
    missing, _ = model.load_state_dict(state, strict=False)
    assert not [name for name in missing if name != "lm_head.weight"], missing
    model.tie_weights()
    return model.eval()


def tokenizer_of(folder: Path) -> PreTrainedTokenizerFast:
    """One token a word; the words are amino acids and the model's marks."""
    words = (folder / "vocab.txt").read_text(encoding="utf-8").split()
    made = Tokenizer(models.WordLevel({word: place for place, word in enumerate(words)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=made, unk_token="[UNK]", eos_token="[CLS]", bos_token="[CLS]", pad_token="[PAD]"
    )


@torch.no_grad()
def sample(model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerFast, each: int, seed: int) -> list[str]:
    """`each` sequences of every chain and species, less those that end early."""
    torch.manual_seed(seed)
    ends = {tokenizer.convert_tokens_to_ids(mark) for mark in ("[SEP]", "[CLS]")}
    lines = []
    for chain in CHAINS:
        for species in SPECIES:
            start = tokenizer.convert_tokens_to_ids([chain, species])
            drawn = model.generate(
                torch.tensor([start] * each), attention_mask=torch.ones(each, 2, dtype=torch.int64), do_sample=True,
                top_k=0, max_length=LONGEST, pad_token_id=0, eos_token_id=sorted(ends),
            )  # fmt: skip
            for ids in drawn.tolist():
                stop = next((place for place, token in enumerate(ids) if token in ends), len(ids))
                if stop >= LENGTH:
                    lines.append(" ".join(tokenizer.convert_ids_to_tokens(ids[:LENGTH])))
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=new_folder)
    parser.add_argument("--each", type=int, default=64, help="sequences of every chain and species")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    folder = package()
    model, tokenizer = load(folder), tokenizer_of(folder)
    model.save_pretrained(arguments.out)
    tokenizer.save_pretrained(arguments.out)
    lines = sample(model, tokenizer, arguments.each, arguments.seed)
    (arguments.out / "sampled.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{arguments.out}: {len(lines)} sequences, {sum(line.count(' ') + 1 for line in lines):,} tokens")


if __name__ == "__main__":
    main()
