"""The deterministic mode: a request gets the same bits alone, in any batch, cut anywhere, on shared pages or not."""

from __future__ import annotations

import random
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from quipu import LLM
from quipu.backends.choice import choose_backend
from quipu.bench.synthetic import write_synthetic_model
from quipu.engine import Engine
from quipu.engine.native_sampler import NativeSampler
from quipu.errors import UsageError
from quipu.gguf import GGUFReader
from quipu.models import load_model
from quipu.types import Request, SamplingParams

TINY = Path(str(files("quipu") / "data" / "tiny-chat-Q8_0.gguf"))
SYNTHETIC = [
    ("llama-tiny", "Q4_K_M"),
    ("llama-tiny", "Q4_0"),
    ("llama-tiny", "IQ3_S"),
    ("llama-tiny", "BF16"),
    ("qwen3moe-tiny", "Q4_K_M"),
]

Outcome = tuple[list[int], NDArray[np.float32]]


@pytest.fixture(scope="module", params=["tiny", *SYNTHETIC], ids=lambda p: p if isinstance(p, str) else "-".join(p))
def path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if request.param == "tiny":
        return TINY
    shape, type_name = request.param
    made = tmp_path_factory.mktemp("synthetic") / f"{shape}-{type_name}.gguf"
    write_synthetic_model(made, shape, type_name)
    return made


def engine_of(path: Path, *, deterministic: bool = True, threads: int = 2, **options: object) -> Engine:
    arguments: dict[str, object] = {"ctx_size": 512, "kv_tokens": 4096, **options}
    model = load_model(GGUFReader(path))
    backend = choose_backend(threads)
    return Engine(model, backend, None, NativeSampler(), deterministic=deterministic, **arguments)  # type: ignore[arg-type]


def random_requests(engine: Engine, rng: random.Random, count: int) -> list[Request]:
    """Some ask for the logits of their prompt, some draw, some are greedy."""
    requests = []
    for number in range(count):
        length = rng.choice([1, 3, 8, 9, 17, 40, rng.randrange(1, 400)])
        prompt = tuple(rng.randrange(engine.vocab_size) for _ in range(length))
        sampling = SamplingParams(temperature=rng.choice([0.0, 1.0]), seed=number, max_tokens=rng.randrange(1, 25))
        requests.append(Request(str(number), prompt, sampling, prompt_logits=rng.random() < 0.5))
    return requests


def outcomes(engine: Engine, requests: Sequence[Request], rng: random.Random) -> dict[tuple[str, int], Outcome]:
    """Submit the requests a few at a time, and run them to their ends; tokens and prompt logits of every choice."""
    waiting = list(requests)
    tokens = {(request.request_id, i): [] for request in requests for i in range(request.num_choices)}
    logits: dict[tuple[str, int], list[NDArray[np.float32]]] = {name: [] for name in tokens}
    while waiting or engine.has_work:
        for _ in range(rng.choice([0, 1, 3])):
            if waiting:
                engine.submit(waiting.pop(0))
        for event in engine.step():
            tokens[event.request_id, event.choice] += event.token_ids
            if event.logits is not None:
                logits[event.request_id, event.choice].append(event.logits)
    empty = np.zeros((0, engine.vocab_size), dtype=np.float32)
    return {name: (tokens[name], np.concatenate([empty, *logits[name]])) for name in tokens}


def assert_same_bits(got: Outcome, expected: Outcome) -> None:
    assert got[0] == expected[0]
    assert np.array_equal(got[1].view(np.uint32), expected[1].view(np.uint32))


@pytest.mark.parametrize("seed", [1, 2])
def test_any_batch_gives_the_bits_of_a_request_alone(path: Path, seed: int) -> None:
    rng = random.Random(seed)
    alone = engine_of(path)
    requests = random_requests(alone, rng, 10)
    expected = {}
    for request in requests:
        expected |= outcomes(alone, [request], random.Random(0))
    together = engine_of(path, ubatch_size=rng.choice([5, 16, 512]), threads=rng.choice([1, 3]), shuffle_pages=rng)
    results = outcomes(together, requests, rng)
    # Too few pages for all, so that some start over; other pages, too.
    crowded = engine_of(path, kv_tokens=512, page_size=16, itl_target_s=0.001)
    crowded._scheduler.mean_output_tokens = 1.0
    again = outcomes(crowded, requests, rng)
    for name, outcome in expected.items():
        assert_same_bits(results[name], outcome)
        assert_same_bits(again[name], outcome)


def test_shared_pages_give_the_bits_of_fresh_ones(path: Path) -> None:
    engine = engine_of(path, page_size=16)
    rng = random.Random(5)
    prompt = tuple(rng.randrange(engine.vocab_size) for _ in range(75))
    greedy = SamplingParams(temperature=0.0, max_tokens=20, seed=1)
    results = outcomes(engine, [Request("a", prompt, greedy, num_choices=4)], rng)
    expected = outcomes(engine_of(path), [Request("a", prompt, greedy)], rng)["a", 0]
    for choice in range(4):
        assert_same_bits(results["a", choice], expected)


def test_without_the_mode_bits_do_differ() -> None:
    """If this fails the mode has nothing to do any more, and can go. Weights in blocks of 256 values have the same bits
    without it in some instruction sets, those of Q8_0 in none.
    """
    path = TINY
    engine = engine_of(path, deterministic=False)
    prompt = tuple(random.Random(1).randrange(engine.vocab_size) for _ in range(100))
    request = Request("a", prompt, SamplingParams(max_tokens=0), prompt_logits=True)
    whole = outcomes(engine, [request], random.Random(0))["a", 0][1]
    cut = outcomes(engine_of(path, deterministic=False, ubatch_size=7), [request], random.Random(0))["a", 0][1]
    assert not np.array_equal(whole, cut)
    assert np.allclose(whole, cut, atol=0.1 * float(np.abs(whole).max()))


def test_the_environment_chooses_the_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUIPU_DETERMINISTIC", "1")
    tokens = list(range(50, 90))
    whole = LLM(TINY, ctx_size=256).logits(tokens)
    assert np.array_equal(whole, LLM(TINY, ctx_size=256, ubatch_size=3).logits(tokens))
    monkeypatch.setenv("QUIPU_DETERMINISTIC", "yes")
    with pytest.raises(UsageError, match="QUIPU_DETERMINISTIC must be 0 or 1"):
        LLM(TINY, ctx_size=256)
