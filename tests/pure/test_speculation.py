"""Speculation changes the speed and nothing else: the same tokens, texts, reasons and cached pages as without it."""

from __future__ import annotations

import dataclasses
import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray
from scripted_model import NAN_TOKEN, PRIME, VOCAB, Letters, ScriptedBackend, ScriptedModel, ScriptedSpec

from quipu.backends.program import Batch, KVSpec, KVStorage, Program
from quipu.engine import Engine, ReferenceSampler
from quipu.engine.constraining import CompileConstraint
from quipu.engine.draft_model import DraftModel
from quipu.engine.speculating import SpeculationOptions
from quipu.errors import EngineError, InvalidRequestError, UnsupportedModelError, UsageError
from quipu.types import ConstraintSpec, Event, Request, SamplingParams, Speculation

CTX_SIZE = 64
NGRAM, DRAFT, OFF = Speculation.NGRAM, Speculation.DRAFT, Speculation.OFF


class Pages:
    """Tokens by page and place."""

    layout = "repeating-1"

    def __init__(self, spec: KVSpec, num_pages: int) -> None:
        self.spec = spec
        self.num_pages = num_pages
        self.tokens = np.full((num_pages, spec.page_size), -1, dtype=np.int32)

    def read_page(self, page: int) -> NDArray[np.uint8]:
        raise AssertionError("no states are saved here")

    def write_page(self, page: int, data: NDArray[np.uint8]) -> None:
        raise AssertionError("no states are restored here")

    def copy_page(self, source: int, target: int) -> None:
        self.tokens[target] = self.tokens[source]


@dataclass
class Ticking:
    """A clock that a backend moves."""

    now_s: float = 0.0

    def __call__(self) -> float:
        return self.now_s


class RepeatingBackend(ScriptedBackend):
    """Mostly goes on as after the last token alone, so that texts repeat; the whole history matters a little.

    Reads the history back from the pages, as `ScriptedBackend` does.
    """

    def __init__(self, clock: Ticking, *, base_s: float = 1.0, per_token_s: float = 0.05, twist: int = 0) -> None:
        super().__init__()
        self.clock = clock
        self.base_s, self.per_token_s = base_s, per_token_s
        self.twist = twist  # a model that differs a little
        self.num_compiled = 0

    def create_kv_storage(self, spec: KVSpec, num_pages: int) -> Pages:  # type: ignore[override]
        return Pages(spec, num_pages)

    def compile(self, program: Program, *, max_tokens: int) -> RepeatingExecutable:  # type: ignore[override]
        self.num_compiled += 1
        # The second program is that of the draft model.
        return RepeatingExecutable(self, max_tokens, twist=self.twist if self.num_compiled > 1 else 0)


@dataclass
class RepeatingExecutable:
    backend: RepeatingBackend
    max_tokens: int
    twist: int

    def run(self, batch: Batch, kv: KVStorage) -> NDArray[np.float32]:
        assert isinstance(kv, Pages)
        assert 0 < len(batch.token_ids) <= self.max_tokens
        backend, size = self.backend, kv.spec.page_size
        backend.run_sizes.append(len(batch.token_ids))
        backend.clock.now_s += backend.base_s + backend.per_token_s * len(batch.token_ids)
        rows = []
        outputs = set(batch.output_rows.tolist())
        starts = batch.query_starts.tolist()
        for begin, end, length, table in zip(starts, starts[1:], batch.kv_lengths, batch.page_tables, strict=False):
            places = batch.positions[begin:end]
            assert places.tolist() == list(range(length - (end - begin), length))
            kv.tokens[table[places // size], places % size] = batch.token_ids[begin:end]
            every = np.arange(length)
            history = kv.tokens[table[every // size], every % size]
            assert (history >= 0).all(), "reads what was never written"
            rows += [
                logits_of(history[: place + 1], self.twist) for row, place in enumerate(places, begin) if row in outputs
            ]
        return np.array(rows, dtype=np.float32).reshape(len(rows), VOCAB)


def logits_of(tokens: NDArray[np.int32], twist: int = 0) -> NDArray[np.float32]:
    """float32 [VOCAB] after a sequence of tokens."""
    logits = np.random.default_rng([7, int(tokens[-1])]).standard_normal(VOCAB).astype(np.float32) * 3
    value = 7 + twist
    for token in tokens.tolist():
        value = (value * 31 + token + 1) % PRIME
    logits += np.random.default_rng(value).standard_normal(VOCAB).astype(np.float32) * 0.5
    if tokens[-1] == NAN_TOKEN:
        logits[5] = np.nan
    return logits


def an_engine(
    source: Speculation = OFF,
    *,
    seed: int = 0,
    per_token_s: float = 0.05,
    twist: int = 0,
    compile_constraint: CompileConstraint | None = None,
    **options: object,
) -> tuple[Engine, RepeatingBackend]:
    clock = Ticking()
    backend = RepeatingBackend(clock, per_token_s=per_token_s, twist=twist)
    defaults: dict[str, object] = {"ctx_size": CTX_SIZE, "page_size": 4, "shuffle_pages": random.Random(seed)}
    draft = DraftModel(ScriptedModel(), Letters()) if source is DRAFT else None
    engine = Engine(
        ScriptedModel(),
        backend,
        Letters(),  # type: ignore[arg-type]
        ReferenceSampler(),
        clock=clock,
        speculation=SpeculationOptions(source),
        draft_model=draft,
        compile_constraint=compile_constraint,
        **{**defaults, **options},  # type: ignore[arg-type]
    )
    return engine, backend


def an_eager_engine(source: Speculation, **options: object) -> Engine:
    """One that believes drafts to be free, and tries them even where hardly any comes true."""
    engine, _ = an_engine(source, **options)  # type: ignore[arg-type]
    speculating = engine._speculating
    speculating._costs.predict = lambda num_tokens, context: 1.0  # type: ignore[method-assign]
    if speculating._draft_model is not None:
        speculating._draft_model.step_time.observe = lambda *observed: None  # type: ignore[method-assign]
    return engine


SAMPLINGS: list[dict[str, object]] = [
    {"temperature": 0.0},
    {"temperature": 0.7},
    {"temperature": 1.5, "top_k": 0, "min_p": 0.0},
    {"temperature": 0.8, "mirostat": 1, "mirostat_tau": 2.0},
    {"temperature": 0.8, "mirostat": 2, "mirostat_tau": 2.0},
    {"temperature": 1.0, "adaptive_target": 0.5, "samplers": ("min_p", "adaptive_p")},
    {"temperature": 0.8, "repeat_penalty": 1.3, "repeat_last_n": 7, "presence_penalty": 0.3},
    {"temperature": 0.6, "dry_multiplier": 0.8, "frequency_penalty": 0.2, "repeat_last_n": -1},
    {"temperature": 0.9, "xtc_probability": 0.4, "xtc_threshold": 0.05, "typical_p": 0.9},
    {"temperature": 0.8, "dynatemp_range": 0.5, "top_n_sigma": 2.0, "logprobs": 2},
    {"temperature": 0.0, "logprobs": 0, "post_sampling_probs": True},
]


def a_request(rng: random.Random, name: str) -> Request:
    """Any request; its prompt often repeats itself."""
    unit = [rng.randrange(2, VOCAB) for _ in range(rng.randrange(1, 6))]
    prompt = tuple((unit * 8)[: rng.randrange(1, 30)])
    max_tokens = rng.choice([1, 2, 5, 20, None])
    context_shift = rng.random() < 0.2
    sampling = dict(rng.choice(SAMPLINGS)) | {
        "seed": rng.randrange(1000),
        "max_tokens": 70 if context_shift else max_tokens,
        "min_tokens": rng.choice([0, 0, 0, 1]) if max_tokens != 1 else 0,
        "ignore_eos": rng.random() < 0.5,
        "stop": rng.choice([(), (), ("".join(Letters().append([t]) for t in unit[:2]),), ("K", "QR")]),
        "stop_token_ids": rng.choice([(), (), (rng.randrange(2, VOCAB),)]),
        "logit_bias": {NAN_TOKEN: rng.choice([-float("inf"), -float("inf"), 0.0])},
    }
    return Request(
        name,
        prompt,
        SamplingParams(**sampling),  # type: ignore[arg-type]
        num_choices=rng.choice([1, 1, 1, 3]),
        prompt_logits=rng.random() < 0.1,
        context_shift=context_shift,
        priority=rng.choice([0, 0, 5]),
        cache_prompt=rng.random() < 0.8,
    )


Outcome = tuple[object, ...]


def outcomes(engine: Engine, requests: Sequence[Request], rng: random.Random | None = None) -> dict[object, Outcome]:
    """What each choice came to, as one would get it in one piece."""
    waiting = list(requests)
    events: dict[object, list[Event]] = defaultdict(list)
    while waiting or engine.has_work:
        for _ in range(len(waiting) if rng is None else rng.choice([0, 1, 4])):
            if waiting:
                engine.submit(waiting.pop(0))
        for event in engine.step():
            events[event.request_id, event.choice].append(event)
        engine.check_integrity()
    stats = engine.stats()
    assert stats.num_free_pages == stats.num_pages
    return {name: folded(of_one) for name, of_one in events.items()}


def folded(events: Sequence[Event]) -> Outcome:
    assert all(event.finish_reason is None for event in events[:-1])
    last = events[-1]
    tokens = tuple(token for event in events for token in event.token_ids)
    assert last.usage.completion_tokens == len(tokens)
    assert last.usage.accepted_tokens <= last.usage.drafted_tokens
    return (
        tokens,
        "".join(event.text for event in events),
        last.finish_reason,
        last.error,
        tuple(one for event in events for one in event.logprobs),
        tuple(warning for event in events for warning in event.warnings),
    )


@pytest.mark.parametrize("source", [NGRAM, DRAFT])
@pytest.mark.parametrize("seed", range(12))
def test_alone_and_together_nothing_changes(source: Speculation, seed: int) -> None:
    rng = random.Random(seed)
    requests = [a_request(rng, str(number)) for number in range(12)]
    expected = outcomes(an_engine()[0], requests)
    engine = an_eager_engine(source, seed=seed, twist=1 + seed % 3)
    assert outcomes(engine, requests, rng) == expected
    stats = engine.stats()
    assert stats.num_accepted_tokens > 0
    assert stats.num_drafted_tokens > stats.num_accepted_tokens


@pytest.mark.parametrize("source", [NGRAM, DRAFT])
@pytest.mark.parametrize("seed", range(6))
def test_nothing_changes_where_pages_are_few(source: Speculation, seed: int) -> None:
    rng = random.Random(100 + seed)
    requests = [a_request(rng, str(number)) for number in range(10)]
    expected = outcomes(an_engine()[0], requests)
    engine = an_eager_engine(source, seed=seed, twist=1, kv_tokens=CTX_SIZE, ubatch_size=rng.choice([5, 16]))
    engine._scheduler.mean_output_tokens = 1.0
    assert outcomes(engine, requests) == expected
    assert engine.num_preemptions > 0


@pytest.mark.parametrize("source", [NGRAM, DRAFT])
def test_aborts_leave_nothing_behind(source: Speculation) -> None:
    rng = random.Random(5)
    engine = an_eager_engine(source, seed=1, twist=1)
    expected = {}
    events: dict[str, list[int]] = defaultdict(list)
    for number in range(60):
        request = dataclasses.replace(a_request(rng, str(number)), num_choices=1)
        expected |= outcomes(an_engine()[0], [request])
        engine.submit(request)
        for _ in range(rng.randrange(4)):
            for event in engine.step():
                events[event.request_id] += event.token_ids
            engine.check_integrity()
        if rng.random() < 0.5:
            engine.abort(str(rng.randrange(number + 1)))
    while engine.has_work:
        for event in engine.step():
            events[event.request_id] += event.token_ids
        engine.check_integrity()
    for name, tokens in events.items():
        whole = expected[name, 0][0]
        assert isinstance(whole, tuple)
        assert tuple(tokens) == whole[: len(tokens)]
    assert engine.stats().num_free_pages == engine.stats().num_pages
    assert not engine._speculating._tracked


class Path:
    """A constraint: at each place a set of tokens, of which some have one member; nothing before `trigger`."""

    def __init__(self, seed: int, *, trigger: int | None, length: int, fails_at: int = -1) -> None:
        self.rng_seed, self.trigger, self.length, self.fails_at = seed, trigger, length, fails_at
        self.accepted: list[int] = []

    def allowed(self, place: int) -> list[int]:
        rng = random.Random(f"{self.rng_seed} {place}")
        return sorted(rng.sample(range(2, VOCAB), rng.choice([1, 1, 3, 10])))

    def place(self, tokens: Sequence[int]) -> int:
        """Where it is after `tokens`; below 0 before the trigger."""
        if self.trigger is None:
            return len(tokens)
        return len(tokens) - tokens.index(self.trigger) - 1 if self.trigger in tokens else -1

    @property
    def is_active(self) -> bool:
        return self.place(self.accepted) >= 0

    @property
    def is_complete(self) -> bool:
        return self.place(self.accepted) >= self.length

    def fill_masks(self, drafts: Sequence[int], masks: NDArray[np.int32]) -> int:
        tokens = list(self.accepted)
        for row in range(len(drafts) + 1):
            place = self.place(tokens)
            if place == self.fails_at >= 0:
                if row:
                    return row - 1
                raise EngineError("the scripted constraint failed")
            bits = np.zeros(masks.shape[1] * 32, dtype=np.uint8)
            bits[self.allowed(place) if place >= 0 else slice(0, VOCAB)] = 1
            masks[row] = np.packbits(bits, bitorder="little").view(np.int32)
            if row == len(drafts) or not bits[drafts[row]]:
                return row
            tokens.append(drafts[row])
        raise AssertionError("the last row returns")

    def accept(self, token_ids: Sequence[int]) -> None:
        for token in token_ids:
            assert not self.is_complete
            assert not self.is_active or token in self.allowed(self.place(self.accepted)), "a mask was missing"
            self.accepted.append(token)

    def forced_tokens(self, limit: int) -> list[int]:
        tokens: list[int] = []
        place = self.place(self.accepted)
        while place >= 0 and len(tokens) < limit and place + len(tokens) < self.length:
            allowed = self.allowed(place + len(tokens))
            if len(allowed) > 1:
                break
            tokens += allowed
        return tokens


def a_path(spec: ConstraintSpec) -> Path:
    seed, trigger, length, fails_at = map(int, spec.source.split())
    return Path(seed, trigger=trigger or None, length=length, fails_at=fails_at)


@pytest.mark.parametrize("source", [OFF, NGRAM, DRAFT])
@pytest.mark.parametrize("seed", range(8))
def test_constraints_hold_and_forced_tokens_are_drafts(source: Speculation, seed: int) -> None:
    rng = random.Random(seed)
    requests = []
    for number in range(12):
        spec = f"{rng.randrange(99)} {rng.choice([0, 0, 5])} {rng.randrange(1, 20)} {rng.choice([-1, -1, -1, 3])}"
        constraint = ConstraintSpec.regex(spec)
        request = dataclasses.replace(a_request(rng, str(number)), constraint=constraint, context_shift=False)
        requests.append(dataclasses.replace(request, sampling=dataclasses.replace(request.sampling, ignore_eos=True)))
    without = [dataclasses.replace(request, speculation=OFF) for request in requests]
    plain, _ = an_engine(compile_constraint=a_path)
    expected = outcomes(plain, without)
    assert plain.stats().num_drafted_tokens == 0
    engine = an_eager_engine(source, compile_constraint=a_path)
    assert outcomes(engine, requests, rng) == expected
    assert engine.stats().num_accepted_tokens > 0
    engine.close()
    plain.close()


def test_repeating_texts_take_fewer_steps_and_others_no_longer() -> None:
    prompt = tuple([3, 9, 4, 7, 11, 2] * 4)
    greedy = SamplingParams(temperature=0.0, max_tokens=None, ignore_eos=True, logit_bias={NAN_TOKEN: -float("inf")})
    times = {}
    for source in (OFF, NGRAM):
        engine, backend = an_engine(source, ctx_size=512, page_size=16)
        outcomes(engine, [Request("a", prompt, greedy)])
        times[source] = backend.clock.now_s
    assert times[NGRAM] < times[OFF] / 1.8  # greedy texts of this model run in circles
    hot = dataclasses.replace(greedy, temperature=50.0, top_k=0, top_p=1.0, min_p=0.0, seed=3, max_tokens=400)
    for source in (OFF, NGRAM):
        engine, backend = an_engine(source, ctx_size=512, page_size=16, per_token_s=0.7)
        outcomes(engine, [Request("a", prompt, hot)])
        times[source] = backend.clock.now_s
    assert times[NGRAM] <= times[OFF] / 0.97


def test_a_full_batch_has_no_drafts() -> None:
    greedy = SamplingParams(temperature=0.0, max_tokens=30, ignore_eos=True, logit_bias={NAN_TOKEN: -float("inf")})
    requests = [Request(str(n), (2 + n, 9, 2 + n, 9, 2 + n, 9), greedy) for n in range(32)]
    engine, _ = an_engine(NGRAM, per_token_s=1.0)  # every token costs what the weights do
    outcomes(engine, requests)
    assert engine.stats().num_drafted_tokens == 0
    engine, backend = an_engine(NGRAM)
    backend.max_uniform_tokens = 8
    few = Engine(
        ScriptedModel(),
        backend,
        Letters(),
        ReferenceSampler(),
        ctx_size=64,
        page_size=4,
        clock=backend.clock,  # type: ignore[arg-type]
        speculation=SpeculationOptions(NGRAM),
    )
    outcomes(few, requests[:3])
    assert few.stats().num_accepted_tokens > 0
    decoding = backend.run_sizes[1:]
    assert max(decoding) == 8  # as many as round alike


def test_requests_choose_for_themselves() -> None:
    greedy = SamplingParams(temperature=0.0, max_tokens=30, ignore_eos=True, logit_bias={NAN_TOKEN: -float("inf")})
    prompt = (3, 9, 3, 9, 3, 9)
    engine, backend = an_engine()
    outcomes(engine, [Request("a", prompt, greedy)])
    assert engine.stats().num_drafted_tokens == 0
    outcomes(engine, [Request("a", prompt, greedy, speculation="ngram")])  # type: ignore[arg-type]
    drafted = engine.stats().num_drafted_tokens
    assert drafted > 0
    outcomes(engine, [Request("a", prompt, greedy, speculation=NGRAM, draft_max=0)])
    outcomes(engine, [Request("a", prompt, greedy, speculation=NGRAM, draft_max=3, draft_min=4)])
    assert engine.stats().num_drafted_tokens == drafted
    backend.run_sizes.clear()
    outcomes(engine, [Request("a", prompt, greedy, speculation=NGRAM, draft_max=2, cache_prompt=False)])
    assert max(backend.run_sizes[1:]) == 3
    with pytest.raises(InvalidRequestError, match="none is loaded; load one") as caught:
        engine.submit(Request("a", prompt, greedy, speculation=DRAFT))
    assert caught.value.field == "speculation"
    for wrong in ({"speculation": "eagle"}, {"draft_max": -1}, {"draft_min": 2000}, {"draft_max": True}):
        with pytest.raises(InvalidRequestError, match=next(iter(wrong))):
            Request("a", prompt, greedy, **wrong)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="draft model needs one"):
        an_engine_without_draft()
    for options in ({"source": "x"}, {"draft_max": -1}, {"draft_min": 1.5}):
        with pytest.raises(UsageError):
            SpeculationOptions(**options)  # type: ignore[arg-type]


def an_engine_without_draft() -> Engine:
    return Engine(
        ScriptedModel(),
        ScriptedBackend(),
        Letters(),
        ReferenceSampler(),
        ctx_size=64,  # type: ignore[arg-type]
        speculation=SpeculationOptions(DRAFT),
    )


class OtherLetters(Letters):
    def token_bytes(self, token_id: int) -> bytes:
        return b"?" if token_id == 7 else super().token_bytes(token_id)


class FewerLetters(Letters):
    vocab_size = 12


@pytest.mark.parametrize(
    ("letters", "message"),
    [(OtherLetters(), "its token 7 is b'\\?' where"), (FewerLetters(), "it has 12 tokens"), (None, "no vocabulary")],
)
def test_vocabularies_have_to_agree(letters: Letters | None, message: str) -> None:
    with pytest.raises(UnsupportedModelError, match=message):
        Engine(
            ScriptedModel(),
            ScriptedBackend(),
            Letters(),
            ReferenceSampler(),
            ctx_size=64,  # type: ignore[arg-type]
            draft_model=DraftModel(ScriptedModel(), letters),
        )


def test_a_draft_model_with_a_short_context_and_few_pages() -> None:
    greedy = SamplingParams(temperature=0.0, max_tokens=None, ignore_eos=True, logit_bias={NAN_TOKEN: -float("inf")})
    clock = Ticking()
    backend = RepeatingBackend(clock)
    short = DraftModel(ScriptedModel(ScriptedSpec(context_length=32)), Letters())
    engine = Engine(
        ScriptedModel(),
        backend,
        Letters(),
        ReferenceSampler(),
        ctx_size=64,
        page_size=4,
        clock=clock,  # type: ignore[arg-type]
        speculation=SpeculationOptions(DRAFT),
        draft_model=short,
    )
    requests = [Request(str(n), (5 + n, 9), greedy) for n in range(3)]
    drafter = engine._speculating._draft_model
    assert drafter is not None
    taken = drafter._pages.allocate((drafter._pages.num_pages - 12) * 4)  # leave pages for less than two sequences
    assert taken is not None
    drafter.check_integrity = lambda: None  # type: ignore[method-assign]  # it does not know of these
    assert outcomes(engine, requests) == outcomes(an_engine()[0], requests)
    assert engine.stats().num_accepted_tokens > 0
    assert drafter._pages.num_free == 12
