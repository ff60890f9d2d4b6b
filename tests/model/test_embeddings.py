"""embed, rerank and `quipu convert` from end to end: a small random BERT, and the tiny llama."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import text_model
from bert_checkpoint import CONTEXT, WIDTH, Checkpoint, published_tokenizer
from numpy.typing import NDArray

from quipu import LLM, SamplingParams
from quipu.cli import main
from quipu.convert import convert
from quipu.errors import (
    ContextLengthError,
    EngineError,
    InvalidRequestError,
    ModelFileError,
    TokenizerError,
    UsageError,
)
from quipu.gguf import GGUFReader, write_gguf

TEXTS = ["the cat sat.", "a", "Cat-sitting, isn't it?", "9 8 7 the the the cat [sic] 漢字 é", "the " * 70]
QUERY, DOCUMENTS = "the cat?", ["the cat sat.", "a b c", "the", "no cats here, but dogs " * 3]


def unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("embeddings")


@pytest.fixture(scope="module")
def checkpoint(folder: Path) -> Checkpoint:
    checkpoint = Checkpoint()
    convert(checkpoint.write(folder / "bert"), folder / "bert.gguf", outtype="f32")
    return checkpoint


@pytest.fixture(scope="module")
def reranker(folder: Path) -> Checkpoint:
    checkpoint = Checkpoint(num_labels=1)
    convert(checkpoint.write(folder / "reranker", pooling=None), folder / "reranker.gguf", outtype="f32")
    return checkpoint


@pytest.fixture(params=["cpu", "reference"])
def bert(request: pytest.FixtureRequest, folder: Path, checkpoint: Checkpoint) -> Iterator[LLM]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QUIPU_BACKEND", request.param)
        opened = LLM(folder / "bert.gguf", threads=2)
    with opened:
        yield opened
        check_idle(opened)


@pytest.fixture(scope="module")
def llama(folder: Path) -> Iterator[LLM]:
    with LLM(text_model.write_text_model(folder / "text.gguf"), threads=2) as opened:
        yield opened
        check_idle(opened)


def check_idle(llm: LLM) -> None:
    engine = llm._open_engine().engine
    engine.settle()
    assert not engine.has_work
    engine.check_integrity()


def pooled(checkpoint: Checkpoint, text: str, pooling: str) -> NDArray[np.float64]:
    vectors = checkpoint.vectors(published_tokenizer().encode(text).ids)
    return {"mean": vectors.mean(0), "cls": vectors[0], "last": vectors[-1], "none": vectors}[pooling]


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_embeddings_are_those_of_plain_numpy(bert: LLM, checkpoint: Checkpoint, pooling: str) -> None:
    expected = np.array([pooled(checkpoint, text, pooling) for text in TEXTS])
    raw = bert.embed(TEXTS, pooling=pooling, normalize=False)  # type: ignore[call-overload]
    assert raw.dtype == np.float32
    assert raw.shape == (len(TEXTS), WIDTH)
    np.testing.assert_allclose(raw, expected, atol=2e-5)
    scaled = bert.embed(TEXTS, pooling=pooling)  # type: ignore[call-overload]
    np.testing.assert_allclose(scaled, unit(expected), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(scaled, axis=1), 1, rtol=1e-6)


def test_the_file_chooses_the_pooling(bert: LLM) -> None:
    np.testing.assert_array_equal(bert.embed(TEXTS[0]), bert.embed(TEXTS[0], pooling="mean"))
    assert bert.embed(TEXTS[0]).shape == (1, WIDTH)


def test_vectors_of_all_tokens(bert: LLM, checkpoint: Checkpoint) -> None:
    vectors = bert.embed(TEXTS, pooling="none", normalize=False)
    assert isinstance(vectors, list)
    for text, of_one in zip(TEXTS, vectors, strict=True):
        np.testing.assert_allclose(of_one, pooled(checkpoint, text, "none"), atol=2e-5)
    lengths = np.linalg.norm(bert.embed(TEXTS[0], pooling="none")[0], axis=1)
    np.testing.assert_allclose(lengths, 1, rtol=1e-6)


def test_together_and_alone(bert: LLM) -> None:
    together = bert.embed(TEXTS * 5)
    np.testing.assert_allclose(together[: len(TEXTS)], together[-len(TEXTS) :], atol=2e-6)
    alone = np.concatenate([bert.embed(text) for text in TEXTS])
    np.testing.assert_allclose(together[: len(TEXTS)], alone, atol=2e-6)


@pytest.mark.parametrize("name", ["bert.gguf", "text.gguf"])
def test_a_deterministic_embedding_is_the_same_beside_others(
    folder: Path, checkpoint: Checkpoint, llama: LLM, name: str
) -> None:
    """An encoder's texts are never cut, a decoder's are; both give the same bits in any company."""
    with LLM(folder / name, threads=2, deterministic=True) as llm:
        alone = np.concatenate([llm.embed(text) for text in TEXTS])
        np.testing.assert_array_equal(llm.embed(TEXTS * 3), np.concatenate([alone] * 3))
        check_idle(llm)
    with LLM(folder / name, threads=2) as llm:
        np.testing.assert_allclose(llm.embed(TEXTS), alone, atol=1e-3)


def test_token_ids_are_taken_as_they_are(bert: LLM) -> None:
    ids = bert.tokenize(TEXTS[0], add_special=True)
    np.testing.assert_array_equal(bert.embed(ids), bert.embed(TEXTS[0]))
    np.testing.assert_allclose(bert.embed([ids, ids])[1:], bert.embed(np.array(ids)), atol=2e-6)


def test_a_text_longer_than_the_context(bert: LLM, checkpoint: Checkpoint) -> None:
    text = "a b " * CONTEXT
    with pytest.raises(ContextLengthError, match=f"the context holds {CONTEXT}"):
        bert.embed(text)
    ids = bert.tokenize(text, add_special=True)
    with pytest.warns(UserWarning, match=f"{len(ids) - CONTEXT} tokens were cut off"):
        cut = bert.embed(["a", text], truncate=True)
    expected = checkpoint.vectors([*ids[: CONTEXT - 1], ids[-1]]).mean(0)
    np.testing.assert_allclose(cut[1], unit(expected), atol=1e-5)


@pytest.mark.parametrize("text", ["", "  \n", [], [""], ["a", " "], [[]]])
def test_nothing_to_embed(bert: LLM, text: object) -> None:
    with pytest.raises(InvalidRequestError):
        bert.embed(text)  # type: ignore[call-overload]


def test_what_an_encoder_cannot_do(bert: LLM, folder: Path) -> None:
    with pytest.raises(InvalidRequestError, match="cannot generate"):
        bert.generate("the cat")
    with pytest.raises(InvalidRequestError, match="cannot generate"):
        bert.logits([1, 2])
    with pytest.raises(InvalidRequestError, match="no head that ranks") as caught:
        bert.rerank(QUERY, DOCUMENTS)
    assert caught.value.field == "model"
    with pytest.raises(InvalidRequestError, match="use rerank"):
        bert.embed("a", pooling="rank")  # type: ignore[call-overload]
    with pytest.raises(InvalidRequestError, match="none, mean, cls, last, not 'max'"):
        bert.embed("a", pooling="max")  # type: ignore[call-overload]
    with pytest.raises(UsageError, match=f"{CONTEXT} positions"):
        LLM(folder / "bert.gguf", ctx_size=CONTEXT + 1)


def test_a_step_takes_a_whole_text_whatever_the_batch(folder: Path, checkpoint: Checkpoint) -> None:
    with LLM(folder / "bert.gguf", threads=1, ubatch_size=4, ctx_size=70, kv_size=128) as llm:
        text = "a b " * 30
        np.testing.assert_allclose(llm.embed([text, "the"])[0], unit(pooled(checkpoint, text, "mean")), atol=1e-5)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_scores_are_those_of_plain_numpy(
    folder: Path, reranker: Checkpoint, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUIPU_BACKEND", backend)
    with LLM(folder / "reranker.gguf", threads=2) as llm:
        ranked = llm.rerank(QUERY, DOCUMENTS)
        pairs = [published_tokenizer().encode(QUERY, document) for document in DOCUMENTS]
        expected = [float(reranker.scores(pair.ids, pair.type_ids)[0]) for pair in pairs]
        assert sorted(document.index for document in ranked) == list(range(len(DOCUMENTS)))
        assert [document.index for document in ranked] == np.argsort(expected)[::-1].tolist()
        for document in ranked:
            assert document.score == pytest.approx(expected[document.index], abs=2e-5)
        assert llm.rerank(QUERY, DOCUMENTS, top_n=2) == ranked[:2]
        without_types = [float(reranker.scores(pair.ids, [0] * len(pair.ids))[0]) for pair in pairs]
        assert not np.allclose(without_types, expected, atol=1e-3), "the test cannot see token types"
        np.testing.assert_allclose(
            llm.embed(QUERY, pooling="cls", normalize=False)[0],
            reranker.vectors(published_tokenizer().encode(QUERY).ids)[0],
            atol=2e-5,
        )


def test_bad_rerank_requests(folder: Path, reranker: Checkpoint) -> None:
    with LLM(folder / "reranker.gguf", threads=1) as llm:
        for query, documents, field in [
            ("", DOCUMENTS, "query"),
            (QUERY, [], "documents"),
            (QUERY, "the cat", "documents"),
            (QUERY, ["a", ""], "documents"),
        ]:
            with pytest.raises(InvalidRequestError) as caught:
                llm.rerank(query, documents)
            assert caught.value.field == field
        with pytest.raises(InvalidRequestError, match="top_n"):
            llm.rerank(QUERY, DOCUMENTS, top_n=0)
        with pytest.raises(InvalidRequestError, match="use rerank"):
            llm.embed("a")
        with pytest.raises(ContextLengthError):
            llm.rerank(QUERY, ["a " * CONTEXT])
        with pytest.raises(ContextLengthError):
            llm.rerank("a " * CONTEXT, ["b"], truncate=True)
        room = CONTEXT - 3 - len(llm.tokenize(QUERY))
        with pytest.warns(UserWarning, match=f"{CONTEXT - room} tokens were cut off"):
            cut = llm.rerank(QUERY, ["a " * CONTEXT], truncate=True)
        assert cut == llm.rerank(QUERY, ["a " * room])


def test_a_classifier_with_several_classes_does_not_rank(tmp_path: Path) -> None:
    convert(Checkpoint(num_labels=3).write(tmp_path / "model", pooling=None), tmp_path / "a.gguf")
    with LLM(tmp_path / "a.gguf", threads=1) as llm, pytest.raises(InvalidRequestError, match="3 classes"):
        llm.rerank(QUERY, DOCUMENTS)


# --- decoders --------------------------------------------------------------------------------------------------------


def test_a_decoder_embeds_what_its_head_reads(llama: LLM, folder: Path) -> None:
    ids = llama.tokenize("the hat in the hall", add_special=True)
    with GGUFReader(folder / "text.gguf") as reader:
        head = reader.tensor_data("output.weight").reshape(text_model.VOCAB, -1).view(np.float32).copy()
    vectors = llama.embed(ids, pooling="none", normalize=False)[0]
    np.testing.assert_allclose(vectors @ head.T, llama.logits(ids), atol=2e-3)
    np.testing.assert_allclose(llama.embed(ids, normalize=False)[0], vectors[-1], atol=1e-5)
    np.testing.assert_allclose(llama.embed(ids, pooling="mean", normalize=False)[0], vectors.mean(0), atol=1e-6)


def test_chunks_give_what_the_whole_gives(llama: LLM, folder: Path) -> None:
    texts = ["the hat " * 20, "a", "another hat in the hall"]
    with LLM(folder / "text.gguf", threads=2, ubatch_size=7) as chunked:
        for pooling in ("mean", "last", "cls"):
            np.testing.assert_allclose(
                chunked.embed(texts, pooling=pooling), llama.embed(texts, pooling=pooling), atol=2e-3
            )


def test_embedding_while_generating(llama: LLM) -> None:
    greedy = SamplingParams(temperature=0.0, max_tokens=24, ignore_eos=True)
    texts, prompts = ["the hat " * 9, "in the hall"], ["the hat", "an inn", "he"]
    expected, generated = llama.embed(texts), [done.token_ids for done in llama.generate(prompts, greedy)]
    results: list[NDArray[np.float32]] = []
    thread = threading.Thread(target=lambda: results.extend(llama.embed(texts) for _ in range(5)))
    thread.start()
    beside = [done.token_ids for done in llama.generate(prompts, greedy)]
    thread.join()
    assert beside == generated
    assert len(results) == 5
    for result in results:
        np.testing.assert_allclose(result, expected, atol=2e-5)


def test_what_a_decoder_cannot_do(llama: LLM, folder: Path) -> None:
    with pytest.raises(InvalidRequestError, match="no head that ranks"):
        llama.rerank(QUERY, DOCUMENTS)
    with pytest.raises(ContextLengthError):
        llama.embed("the hat " * text_model.CONTEXT)
    with pytest.warns(UserWarning, match="cut off"):
        llama.embed("the hat " * text_model.CONTEXT, truncate=True)
    broken = text_model.write_text_model(folder / "nan.gguf", nan=True)
    with LLM(broken, threads=1) as llm, pytest.raises(EngineError, match="NaN"):
        llm.embed(["the hat", "a"])


def test_pooling_in_the_metadata_of_a_decoder(folder: Path) -> None:
    path = text_model.write_text_model(
        folder / "mean.gguf", metadata={**text_model.vocabulary(), "llama.pooling_type": np.uint32(1)}
    )
    with LLM(path, threads=1) as llm:
        np.testing.assert_array_equal(llm.embed("the hat"), llm.embed("the hat", pooling="mean"))
    path = text_model.write_text_model(
        folder / "none.gguf", metadata={**text_model.vocabulary(), "llama.pooling_type": np.uint32(0)}
    )
    with LLM(path, threads=1) as llm, pytest.raises(InvalidRequestError, match="does not say how it pools"):
        llm.embed("the hat")


def test_a_vocabulary_that_joins_no_pairs(llama: LLM) -> None:
    with pytest.raises(TokenizerError, match="joined to pairs"):
        llama.tokenizer.join_pair([1], [2])


# --- command line ----------------------------------------------------------------------------------------------------


def test_convert_verb(folder: Path, checkpoint: Checkpoint, capsys: pytest.CaptureFixture[str]) -> None:
    target = folder / "verb.gguf"
    assert main(["convert", str(folder / "bert"), str(target), "--outtype", "f32", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["architecture"] == "bert"
    assert facts["num_bytes"] == target.stat().st_size
    assert facts["warnings"] == []
    assert target.read_bytes() == (folder / "bert.gguf").read_bytes()
    assert main(["convert", str(folder / "bert"), str(target)]) == 0
    output = capsys.readouterr()
    assert "bert, 37 tensors, 0.1 M parameters" in output.out
    assert output.err == ""
    assert main(["convert", str(folder / "bert"), str(target), "--outtype", "q5_k"]) == 2
    assert "outtype must be one of" in capsys.readouterr().err
    assert main(["convert", str(folder / "missing"), str(target)]) == 1
    assert "there is no folder" in capsys.readouterr().err


def test_a_file_that_says_it_ranks_without_a_head(folder: Path, checkpoint: Checkpoint) -> None:
    with GGUFReader(folder / "bert.gguf") as reader:
        metadata = {**reader.metadata, "bert.pooling_type": np.uint32(4)}
        tensors = [
            (name, info.shape, info.type, reader.tensor_data(name).reshape(-1)) for name, info in reader.tensors.items()
        ]
        write_gguf(folder / "headless.gguf", metadata, tensors)
    with pytest.raises(ModelFileError, match=r"cls\.output\.weight"):
        LLM(folder / "headless.gguf")
