"""Embedding requests in the engine: pooled over chunks, beside generation, through preemption; encoders whole."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scripted_model import NAN_TOKEN, VOCAB, ScriptedBackend, ScriptedModel, ScriptedSpec, logits_of

from quipu.backends.program import Batch, KVStorage
from quipu.engine import CacheOptions, Engine, ReferenceSampler
from quipu.errors import ContextLengthError, InvalidRequestError, UsageError
from quipu.models import EmbeddingSpec
from quipu.types import ConstraintSpec, Event, FinishReason, Pooling, Request, SamplingParams

NOTHING = SamplingParams(max_tokens=0)
ROWS = SamplingParams(max_tokens=0, prompt_logprobs=1)
DIGITS = ConstraintSpec.regex("[0-9]+")
GREEDY = SamplingParams(max_tokens=6, temperature=0.0, ignore_eos=True, logit_bias={NAN_TOKEN: -math.inf})
ENCODER = EmbeddingSpec(Pooling.MEAN, VOCAB, is_encoder=True, num_scores=VOCAB, num_token_types=2)


@dataclass
class TypedBackend(ScriptedBackend):
    """Also keeps the token types of every run."""

    types: list[NDArray[np.int32] | None] = field(default_factory=list)

    def run(self, batch: Batch, kv: KVStorage) -> NDArray[np.float32]:
        self.types.append(batch.token_types)
        return super().run(batch, kv)


@dataclass
class WholeBackend(ScriptedBackend):
    """Refuses parts of texts, as an encoder would compute them wrongly."""

    num_texts: list[int] = field(default_factory=list)  # of every run

    def run(self, batch: Batch, kv: KVStorage) -> NDArray[np.float32]:
        assert batch.kv_lengths.tolist() == np.diff(batch.query_starts).tolist()
        self.num_texts.append(len(batch.kv_lengths))
        return super().run(batch, kv)


def make_engine(backend: ScriptedBackend | None = None, spec: EmbeddingSpec | None = None, **sizes: object) -> Engine:
    model = ScriptedModel() if spec is None else ScriptedModel(embedding=spec)
    options = {"page_size": 4, "kv_tokens": 256, "batch_size": 16, **sizes}
    return Engine(
        model,
        backend or ScriptedBackend(),
        None,
        ReferenceSampler(),
        shuffle_pages=random.Random(1),
        **options,  # type: ignore[arg-type]
    )


def expected(tokens: list[int], pooling: Pooling) -> NDArray[np.float32]:
    rows = np.array([logits_of(np.array(tokens[: end + 1])) for end in range(len(tokens))])
    match pooling:
        case Pooling.NONE:
            return rows
        case Pooling.MEAN:
            return rows.mean(axis=0, dtype=np.float64).astype(np.float32)
        case Pooling.LAST:
            return rows[-1]
    return rows[0]


def finish(engine: Engine) -> dict[str, Event]:
    """Step until nothing is left; the last event of each request."""
    last: dict[str, Event] = {}
    while engine.has_work:
        for event in engine.step():
            assert event.request_id not in last or last[event.request_id].finish_reason is None
            last[event.request_id] = event
        engine.check_integrity()
    assert not engine._embedder._poolers
    return last


@pytest.mark.parametrize("pooling", [Pooling.NONE, Pooling.MEAN, Pooling.CLS, Pooling.LAST])
@pytest.mark.parametrize("batch_size", [1, 5, 64])
def test_chunks_give_what_the_whole_gives(pooling: Pooling, batch_size: int) -> None:
    engine = make_engine(batch_size=batch_size)
    prompts = [[3, 4, 5], [7], list(range(2, 40)), [9, 9, 9, 9]]
    for number, prompt in enumerate(prompts):
        engine.submit(Request(str(number), tuple(prompt), NOTHING, pooling=pooling))
    events = finish(engine)
    for number, prompt in enumerate(prompts):
        event = events[str(number)]
        assert event.embedding is not None
        np.testing.assert_allclose(event.embedding, expected(prompt, pooling), rtol=1e-6)
        assert event.finish_reason is FinishReason.STOP
        assert (event.usage.prompt_tokens, event.usage.completion_tokens) == (len(prompt), 0)
        assert event.timings is not None


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_beside_generation_and_through_preemption(data: st.DataObject) -> None:
    """Random arrivals and aborts in a cache that is too small: embeddings and texts are those of a quiet engine."""
    prompts = st.lists(st.integers(2, VOCAB - 1), min_size=1, max_size=30)
    engine = make_engine(kv_tokens=48, ctx_size=44, batch_size=data.draw(st.sampled_from([3, 16])))
    texts: dict[str, list[int]] = {}
    wanted: dict[str, NDArray[np.float32] | None] = {}
    got: dict[str, Event] = {}
    aborted = set()
    for number in range(data.draw(st.integers(1, 8))):
        prompt, name = data.draw(prompts), str(number)
        pooling = data.draw(st.sampled_from([None, Pooling.NONE, Pooling.MEAN, Pooling.CLS, Pooling.LAST]))
        engine.submit(Request(name, tuple(prompt), NOTHING if pooling else GREEDY, pooling=pooling))
        wanted[name] = None if pooling is None else expected(prompt, pooling)
        texts[name] = []
        if data.draw(st.integers(0, 5)) == 0:
            engine.abort(name)
            aborted.add(name)
        for _ in range(data.draw(st.integers(0, 3))):
            for event in engine.step():
                got[event.request_id] = event
                texts[event.request_id] += event.token_ids
            engine.check_integrity()
    while engine.has_work:
        for event in engine.step():
            got[event.request_id] = event
            texts[event.request_id] += event.token_ids
        engine.check_integrity()
    assert not engine._embedder._poolers
    assert engine.num_running == engine.num_waiting == 0
    for name, vectors in wanted.items():
        if name in aborted:
            assert got[name].finish_reason is FinishReason.ABORT
        elif vectors is None:
            assert len(texts[name]) == 6
            assert got[name].embedding is None
        else:
            np.testing.assert_allclose(got[name].embedding, vectors, rtol=1e-6)


@pytest.mark.parametrize("pooling", [Pooling.NONE, Pooling.MEAN, Pooling.CLS, Pooling.LAST])
@pytest.mark.parametrize("batch_size", [5, 64])
def test_deterministic_runs_cut_the_texts_of_a_decoder(pooling: Pooling, batch_size: int) -> None:
    backend = ScriptedBackend(max_uniform_tokens=3)
    engine = make_engine(backend, batch_size=batch_size, deterministic=True)
    prompts = [[3, 4, 5, 6], [7], list(range(2, 40)), [9, 9, 9, 9]]
    for number, prompt in enumerate(prompts):
        engine.submit(Request(str(number), tuple(prompt), NOTHING, pooling=pooling))
    engine.submit(Request("text", (5, 6, 7, 8), GREEDY))
    events = finish(engine)
    assert max(backend.run_sizes) == 3
    for number, prompt in enumerate(prompts):
        np.testing.assert_allclose(events[str(number)].embedding, expected(prompt, pooling), rtol=1e-6)
    assert events["text"].usage.completion_tokens == 6


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_the_texts_of_an_encoder_are_never_cut(data: st.DataObject) -> None:
    """Random arrivals, priorities and aborts, in a cache for one text or a few."""
    is_deterministic = data.draw(st.booleans())
    backend = WholeBackend(max_uniform_tokens=3)
    kv_tokens = data.draw(st.sampled_from([48, 128]))
    engine = make_engine(
        backend, ENCODER, kv_tokens=kv_tokens, ctx_size=44, batch_size=8, deterministic=is_deterministic
    )
    texts: dict[str, list[int]] = {}
    aborted = set()
    got: dict[str, Event] = {}
    for number in range(data.draw(st.integers(1, 12))):
        name, length, first = str(number), data.draw(st.integers(1, 44)), data.draw(st.integers(0, 40))
        text = [2 + (first + place) % (VOCAB - 2) for place in range(length)]
        pooling = data.draw(st.sampled_from([Pooling.MEAN, Pooling.RANK]))
        engine.submit(
            Request(name, tuple(text), NOTHING, pooling=pooling, priority=data.draw(st.integers(-1, 1)), key=name[-1])
        )
        texts[name] = text if pooling is Pooling.MEAN else text[:1]
        if data.draw(st.integers(0, 5)) == 0:
            engine.abort(name)
            aborted.add(name)
        for _ in range(data.draw(st.integers(0, 2))):
            got |= {event.request_id: event for event in engine.step()}
            engine.check_integrity()
    got |= finish(engine)
    assert got.keys() == texts.keys()
    if is_deterministic:
        assert set(backend.num_texts) <= {1}
    for name, text in texts.items():
        if name not in aborted:
            np.testing.assert_allclose(got[name].embedding, expected(text, Pooling.MEAN), rtol=1e-6)


def test_embeddings_do_without_the_prefix_cache() -> None:
    engine = make_engine()
    prompt = tuple(range(2, 22))
    engine.submit(Request("vector", prompt, NOTHING, pooling=Pooling.MEAN))
    first = finish(engine)["vector"]
    assert first.reuse is not None
    assert first.reuse.cached_tokens == 0
    assert "embedding" in first.reuse.reason
    assert len(engine.last_ended[0]) == 0
    engine.submit(Request("text", prompt, GREEDY))
    text = finish(engine)["text"]
    assert text.reuse is not None
    assert text.reuse.cached_tokens == 0
    engine.submit(Request("again", prompt, NOTHING, pooling=Pooling.MEAN))
    np.testing.assert_array_equal(finish(engine)["again"].embedding, first.embedding)
    assert len(engine.last_ended[0]) == len(prompt) + 5  # what `save_state` would save is still that of the text


def test_the_prefix_cache_of_an_encoder_is_off(tmp_path: Path) -> None:
    folder = tmp_path / "pages"
    engine = make_engine(None, ENCODER, cache=CacheOptions(folder=folder))
    assert any("cache folder" in warning for warning in engine.warnings)
    assert engine.plan.max_kept_pages == 0
    engine.submit(Request("a", tuple([5] * 30), NOTHING, pooling=Pooling.MEAN))
    finish(engine)
    engine.close()
    assert not folder.exists()
    assert make_engine(None, ENCODER).warnings == ()


def test_embedding_steps_are_counted_and_timed() -> None:
    now_s = 0.0

    def clock() -> float:
        nonlocal now_s
        now_s += 0.25
        return now_s

    engine = make_engine(clock=clock)
    engine.submit(Request("a", (5, 6, 7), NOTHING, pooling=Pooling.MEAN))
    event = finish(engine)["a"]
    stats = engine.stats()
    assert (stats.num_steps, stats.num_tokens, stats.num_running) == (1, 3, 0)
    assert engine.step_time.num_observed == 1
    assert event.timings is not None
    assert event.timings.queue_s + event.timings.prompt_s > 0


def test_a_mixed_step_runs_each_kind_once() -> None:
    backend = ScriptedBackend()
    engine = make_engine(backend, batch_size=64)
    for number in range(3):
        engine.submit(Request(f"text {number}", (5, 6, 7), GREEDY))
        engine.submit(Request(f"vector {number}", (5, 6), NOTHING, pooling=Pooling.MEAN))
    engine.step()
    assert sorted(backend.run_sizes) == [6, 9]


def test_nothing_is_recorded_for_embeddings_until_one_is_asked_for() -> None:
    model = ScriptedModel()
    engine = Engine(model, ScriptedBackend(), None, ReferenceSampler(), page_size=4, kv_tokens=256)
    assert model.num_recordings == 1
    for number in range(3):
        engine.submit(Request(str(number), (5,), NOTHING, pooling=Pooling.LAST))
        finish(engine)
    assert model.num_recordings == 2


def test_values_that_are_not_finite() -> None:
    engine = make_engine()
    engine.submit(Request("bad", (5, NAN_TOKEN), NOTHING, pooling=Pooling.LAST))
    engine.submit(Request("good", (5, 6), NOTHING, pooling=Pooling.LAST))
    events = finish(engine)
    assert events["bad"].finish_reason is FinishReason.ERROR
    assert events["bad"].embedding is None
    assert "NaN" in events["bad"].error
    np.testing.assert_array_equal(events["good"].embedding, expected([5, 6], Pooling.LAST))


def test_a_failed_step_leaves_nothing_behind() -> None:
    engine = make_engine(ScriptedBackend(fails_at=2), batch_size=4)
    engine.submit(Request("a", (5, 6, 7, 8, 9, 10), NOTHING, pooling=Pooling.MEAN))
    engine.step()
    with pytest.raises(ValueError, match="scripted"):
        engine.step()
    engine.reset()
    engine.check_integrity()
    assert not engine._embedder._poolers


def test_an_encoder_computes_every_text_in_one_step() -> None:
    backend = ScriptedBackend()
    engine = make_engine(backend, ENCODER, batch_size=16, ctx_size=40)
    lengths = [40, 3, 30, 7, 1, 40, 20, 20]
    for number, length in enumerate(lengths):
        engine.submit(Request(str(number), tuple(range(2, 2 + length)), NOTHING, pooling=Pooling.MEAN))
    steps: list[list[int]] = []
    while engine.has_work:
        steps.append([lengths[int(event.request_id)] for event in engine.step()])
        engine.check_integrity()
    assert steps == [[40], [3, 30, 7], [1], [40], [20, 20]]  # in the order of arrival, as many as fit
    assert backend.run_sizes == [sum(step) for step in steps]


def test_an_encoder_raises_the_budget_of_a_step_to_its_context() -> None:
    engine = make_engine(None, ENCODER, batch_size=4)
    assert engine.ctx_size == ScriptedSpec().context_length
    engine.submit(Request("a", tuple([5] * engine.ctx_size), NOTHING, pooling=Pooling.CLS))
    assert len(engine.step()) == 1
    with pytest.raises(ContextLengthError):
        engine.submit(Request("b", tuple([5] * (engine.ctx_size + 1)), NOTHING, pooling=Pooling.CLS))
    with pytest.raises(UsageError, match="64 positions"):
        make_engine(None, ENCODER, ctx_size=65)


def test_token_types_reach_the_batch() -> None:
    backend = TypedBackend()
    engine = make_engine(backend, ENCODER, batch_size=64)
    engine.submit(Request("a", (5, 6), NOTHING, pooling=Pooling.MEAN))
    finish(engine)
    engine.submit(Request("b", (5, 6), NOTHING, pooling=Pooling.MEAN))
    engine.submit(Request("c", (5, 6, 7), NOTHING, pooling=Pooling.MEAN, token_types=(0, 1, 1)))
    finish(engine)
    assert backend.types[0] is None
    assert backend.types[1] is not None
    assert backend.types[1].tolist() == [0, 0, 0, 1, 1]
    assert backend.types[1].dtype == np.int32


@pytest.mark.parametrize(
    ("spec", "request_", "field_name", "reason"),
    [
        (ENCODER, Request("a", (5,), GREEDY), "model", "cannot generate"),
        (ENCODER, Request("a", (5,), NOTHING, prompt_logits=True), "model", "cannot generate"),
        (None, Request("a", (5,), GREEDY, pooling=Pooling.LAST), "max_tokens", "max_tokens to 0"),
        (None, Request("a", (5,), NOTHING, pooling=Pooling.RANK), "pooling", "no head that ranks"),
        (None, Request("a", (5,), NOTHING, True, pooling=Pooling.LAST), "pooling", "not for both"),
        (None, Request("a", (5,), NOTHING, pooling=Pooling.LAST, token_types=(0, 1)), "token_types", "2 token types"),
        (None, Request("a", (5,), NOTHING, pooling=Pooling.LAST, token_types=(1,)), "token_types", "from 0 to 0"),
        (ENCODER, Request("a", (5,), NOTHING, pooling=Pooling.CLS, token_types=(2,)), "token_types", "from 0 to 1"),
        (ENCODER, Request("a", (5,), NOTHING, pooling=Pooling.CLS, token_types=(-1,)), "token_types", "from 0 to 1"),
        (None, Request("a", (), NOTHING, pooling=Pooling.LAST), "prompt", "no tokens"),
        (None, Request("a", (5,), ROWS, pooling=Pooling.LAST), "pooling", "not for both"),
        (None, Request("a", (5,), NOTHING, pooling=Pooling.LAST, num_choices=2), "num_choices", "one embedding"),
        (None, Request("a", (5,), NOTHING, pooling=Pooling.LAST, constraint=DIGITS), "constraint", "generates nothing"),
    ],
)
def test_refusals(spec: EmbeddingSpec | None, request_: Request, field_name: str, reason: str) -> None:
    engine = make_engine(None, spec)
    with pytest.raises(InvalidRequestError, match=reason) as caught:
        engine.submit(request_)
    assert caught.value.field == field_name
    assert not engine.has_work
