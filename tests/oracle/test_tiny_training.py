"""The training of the embedded models: PyTorch and quipu compute the same, and a resumed training goes on exactly."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from quipu import LLM
from quipu.gguf import GGUFReader
from quipu.tokenizer import Tokenizer
from tiny.export import export
from tiny.model import TinyModel
from tiny.optimizer import orthogonalize
from tiny.recipes import DRAFT, RECIPES, Recipe
from tiny.train import train
from tiny.vocabulary import open_vocabulary

BUILT_IN = Path(__file__).parents[2] / "src" / "quipu" / "data"


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    """The vocabulary of the shipped model, rather than minutes of learning one."""
    return open_vocabulary(BUILT_IN / "tiny-draft-Q8_0.gguf")


def short(recipe: Recipe, num_steps: int) -> Recipe:
    return dataclasses.replace(recipe, num_steps=num_steps, num_warmup_steps=2, batch_tokens=1024)


@pytest.mark.parametrize("name", list(RECIPES))
def test_exported_weights_compute_the_same_logits(name: str, tmp_path: Path) -> None:
    torch.manual_seed(5)
    recipe = RECIPES[name]
    model = TinyModel(recipe.config)
    with torch.no_grad():
        for parameter in model.parameters():  # norms other than one, weights that half precision holds exactly
            parameter.copy_((parameter + 0.1 * torch.randn_like(parameter)).half().float())
    weights = {key: parameter.detach().numpy() for key, parameter in model.named_parameters()}
    half, eight = export(recipe, weights, BUILT_IN / "tiny-draft-Q8_0.gguf", tmp_path)
    ids = np.random.default_rng(3).integers(0, recipe.config.vocab_size, 200)
    with torch.no_grad():
        expected = model.logits(model(torch.from_numpy(ids)[None]))[0].numpy()
    scale = np.abs(expected).max()
    with LLM(half, kv_type="f32") as llm:
        np.testing.assert_allclose(llm.logits(ids), expected, atol=2e-3 * scale)
    with LLM(eight, kv_type="f32") as llm:
        error = np.linalg.norm(llm.logits(ids) - expected) / np.linalg.norm(expected)
    assert error < 0.08  # eight bits for weights and activations, which random weights amplify


def test_a_resumed_training_goes_on_exactly(tokenizer: Tokenizer, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    recipe = short(DRAFT, 6)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    device = torch.device("cpu")
    whole = train(recipe, tokenizer, tmp_path / "a", device)
    train(recipe, tokenizer, tmp_path / "b", device, num_steps=3)
    resumed = train(recipe, tokenizer, tmp_path / "b", device)
    for (name, ours), (_, theirs) in zip(resumed.named_parameters(), whole.named_parameters(), strict=True):
        assert torch.equal(ours, theirs), name
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == ["tiny-draft.jsonl", "tiny-draft.safetensors"]


def test_training_learns(tokenizer: Tokenizer, tmp_path: Path) -> None:
    train(short(DRAFT, 60), tokenizer, tmp_path, torch.device("cpu"))
    losses = [
        line.split('"loss": ')[1].split(",")[0] for line in (tmp_path / "tiny-draft.jsonl").read_text().splitlines()
    ]
    assert float(losses[-1]) < 0.8 * float(losses[0])


@pytest.mark.parametrize("shape", [(64, 96), (96, 64), (32, 32)])
def test_orthogonalized_matrices_have_singular_values_near_one(shape: tuple[int, int]) -> None:
    torch.manual_seed(1)
    matrix = torch.randn(shape)
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    done = orthogonalize(matrix)
    values = torch.linalg.svdvals(done)
    assert values.min() > 0.5
    assert values.max() < 1.3
    assert torch.diagonal(u.T @ done @ v.T).min() > 0.5  # the same singular vectors


def test_the_shipped_models_have_the_sizes_of_their_recipes() -> None:
    for name, recipe in RECIPES.items():
        model = TinyModel(recipe.config)
        with GGUFReader(BUILT_IN / f"{name}-Q8_0.gguf") as reader:
            stored = sum(int(np.prod(tensor.shape)) for tensor in reader.tensors.values())
        assert stored == sum(parameter.numel() for parameter in model.parameters())
