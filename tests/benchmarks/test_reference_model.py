"""The reference model of the benchmarks computes what its original does, with other weights."""

import torch
from support.benchmarks import script
from support.models import VOCABULARY, tiny_llama

reference_model = script("reference_model")


def test_turns_are_orthogonal_and_as_drawn() -> None:
    for size in (8, 9):
        turn = reference_model.rotation(size, 3)
        torch.testing.assert_close(turn @ turn.T, torch.eye(size, dtype=torch.float64))
        assert (turn.count_nonzero(1) == 2).sum() == 8
        assert torch.equal(turn, reference_model.rotation(size, 3))


def test_another_basis_gives_the_same_logits() -> None:
    model = tiny_llama(tied=True)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:  # gains of a new model are all 1
                parameter.uniform_(0.5, 1.5)
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        made = reference_model.turned(model)
        ids = torch.arange(32)[None] % VOCABULARY
        torch.testing.assert_close(made(ids).logits, model(ids).logits, atol=1e-4, rtol=1e-4)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not made.config.tie_word_embeddings
    for name, weight in made.state_dict().items():
        if weight.ndim == 2 and name.startswith("model.layers"):
            assert not torch.isclose(weight, before[name], rtol=1e-3).all(), name
