"""The prefix cache through LLM and the command line, on the embedded chat model."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import pytest

from quipu import LLM, SamplingParams
from quipu.errors import InvalidRequestError, StateFileError, UsageError
from quipu.gguf import GGUFReader
from quipu.types import ReuseLimit

MODEL = Path(str(files("quipu") / "data" / "tiny-chat-Q8_0.gguf"))
DRAFT = Path(str(files("quipu") / "data" / "tiny-draft-Q8_0.gguf"))
GREEDY = SamplingParams(temperature=0.0, max_tokens=12, ignore_eos=True)
TEXT = "The knots on the cord were read by touch, from left to right, and each one stood for a number. " * 8

pytestmark = pytest.mark.skipif(not MODEL.is_file(), reason="the embedded model has not been made")


@pytest.fixture
def llm() -> Iterator[LLM]:
    with LLM(MODEL, threads=1, ctx_size=512) as opened:
        yield opened


def test_a_conversation_is_computed_once(llm: LLM) -> None:
    messages = [{"role": "user", "content": "Tell me about the sea."}]
    first = llm.chat(messages, GREEDY)
    assert first.reuse is not None
    assert first.reuse.cached_tokens == first.usage.cached_tokens == 0
    messages += [{"role": "assistant", "content": first.text}, {"role": "user", "content": "And the sky?"}]
    second = llm.chat(messages, GREEDY)
    assert second.usage.cached_tokens >= first.usage.prompt_tokens - 1
    assert second.reuse is not None
    assert second.reuse.reason.startswith(f"{second.usage.cached_tokens} of {second.usage.prompt_tokens} tokens")
    with LLM(MODEL, threads=1, ctx_size=512, prefix_cache=False) as plain:
        alone = plain.chat(messages, GREEDY)
    assert alone.reuse is not None
    assert alone.reuse.limit is ReuseLimit.OFF
    assert alone.token_ids == second.token_ids


def test_tenants(llm: LLM) -> None:
    llm.generate(TEXT, GREEDY, cache_salt="a")
    for salt in ("b", ""):
        assert llm.generate(TEXT, GREEDY, cache_salt=salt).usage.cached_tokens == 0
    assert llm.generate(TEXT, GREEDY, cache_salt="a").usage.cached_tokens > 100
    message = [{"role": "user", "content": TEXT}]
    llm.chat(message, GREEDY, cache_salt="a")
    assert llm.chat(message, GREEDY, cache_salt="c").usage.cached_tokens == 0
    with pytest.raises(InvalidRequestError, match="cache_salt"):
        llm.generate("x", GREEDY, cache_salt=3)  # type: ignore[call-overload]


def test_logits_are_always_computed(llm: LLM) -> None:
    tokens = llm.tokenize(TEXT)
    before = llm.logits(tokens)
    assert (llm.logits(tokens) == before).all()
    assert llm.generate(tokens, GREEDY).usage.cached_tokens == len(tokens) - 1


def test_states(llm: LLM, tmp_path: Path) -> None:
    path = tmp_path / "state"
    with pytest.raises(UsageError, match="nothing of these tokens"):
        llm.save_state(path)
    assert not llm.can_save_state
    first = llm.generate(TEXT, GREEDY)
    assert llm.can_save_state
    assert llm.save_state(path) == first.usage.total_tokens - 1
    with LLM(MODEL, threads=1, ctx_size=512) as other:
        tokens = other.restore_state(path)
        assert tokens == [*llm.tokenize(TEXT, add_special=True), *first.token_ids][: len(tokens)]
        assert len(tokens) == first.usage.total_tokens - 1
        again = other.generate(TEXT, GREEDY)
        assert again.usage.cached_tokens == first.usage.prompt_tokens - 1
        assert again.token_ids == first.token_ids
        assert other.save_state(tmp_path / "text", TEXT) == first.usage.prompt_tokens
        assert other.restore_state(tmp_path / "text", cache_salt="a") == tokens[: first.usage.prompt_tokens]
        assert other.generate(TEXT, GREEDY, cache_salt="a").usage.cached_tokens == first.usage.prompt_tokens - 1
    for model, options in ((MODEL, {"kv_type": "q8_0"}), (DRAFT, {})):
        with LLM(model, threads=1, ctx_size=512, **options) as other, pytest.raises(StateFileError, match="another"):
            other.restore_state(path)
    with LLM(MODEL, threads=1, ctx_size=512, prefix_cache=False) as off, pytest.raises(UsageError, match="is off"):
        off.restore_state(path)


def test_a_folder_outlives_the_process(tmp_path: Path) -> None:
    with LLM(MODEL, threads=1, ctx_size=512, cache_folder=tmp_path / "pages") as llm:
        first = llm.generate(TEXT, GREEDY)
    with LLM(MODEL, threads=1, ctx_size=512, cache_folder=tmp_path / "pages") as llm:
        second = llm.generate(TEXT, GREEDY)
    assert second.usage.cached_tokens == (first.usage.prompt_tokens - 1) // 64 * 64
    assert second.token_ids == first.token_ids


def test_a_folder_that_cannot_be_used_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(UsageError, match="folder of the prefix cache"):
        LLM(MODEL, threads=1, ctx_size=512, cache_folder=tmp_path / "file")


def test_context_shift() -> None:
    sampling = SamplingParams(temperature=0.0, max_tokens=150, ignore_eos=True)
    with LLM(MODEL, threads=1, ctx_size=64, context_shift=True, keep=-1) as llm:
        done = llm.generate("Once upon a time", sampling)
    assert len(done.token_ids) == 150
    assert any("were dropped" in warning for warning in done.warnings)
    with LLM(MODEL, threads=1, ctx_size=64) as llm:
        assert llm.generate("Once upon a time", sampling).usage.total_tokens == 64


def test_sizes() -> None:
    with LLM(MODEL, threads=1, ctx_size=128, kv_size="1MiB") as llm:
        engine = llm._open_engine().engine
        assert engine.plan.kv_bytes <= 1 << 20 < engine.plan.kv_bytes + engine.page_bytes
    for options in ({"kv_size": "many"}, {"kv_size": "1KiB"}, {"kv_size": 100}, {"cache_bytes": -1}):
        with pytest.raises(UsageError):
            LLM(MODEL, threads=1, ctx_size=128, **options)


def test_models_are_told_apart() -> None:
    with GGUFReader(MODEL) as one, GGUFReader(DRAFT) as two:
        assert one.fingerprint() == one.fingerprint() != two.fingerprint()
        assert len(one.fingerprint()) == 32


def quipu_run(*words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "quipu", "run", "tiny", "-t", "1", "--temp", "0", "-n", "8", *words]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done


def test_prompt_cache_on_the_command_line(tmp_path: Path) -> None:
    path = tmp_path / "cache file"
    words = ["-p", TEXT, "--json", "--prompt-cache", str(path)]
    first = json.loads(quipu_run(*words).stdout)
    assert first["usage"]["cached_tokens"] == 0
    written = path.stat().st_mtime_ns
    second = json.loads(quipu_run(*words, "--prompt-cache-ro").stdout)
    assert second["usage"]["cached_tokens"] == second["usage"]["prompt_tokens"] - 1
    assert second["text"] == first["text"]
    assert path.stat().st_mtime_ns == written
    path.write_bytes(path.read_bytes()[:-1])
    assert "the state cannot be restored" in quipu_run(*words, code=1).stderr


def test_cache_options_on_the_command_line(tmp_path: Path) -> None:
    words = ["-p", TEXT, "--json", "--cache-folder", str(tmp_path), "-cram", "64", "--kv-size", "2048"]
    quipu_run(*words)
    assert json.loads(quipu_run(*words).stdout)["usage"]["cached_tokens"] > 64
    assert json.loads(quipu_run(*words, "--no-cache-prompt").stdout)["usage"]["cached_tokens"] == 0
    shifted = quipu_run(
        "-no-cnv", "-p", "Once", "-c", "32", "-n", "60", "--ignore-eos", "--context-shift", "--keep", "4"
    )
    assert "were dropped" in shifted.stderr
    assert "the text was cut" not in shifted.stderr


def test_wrong_options_are_refused() -> None:
    assert "--context-shift" in quipu_run("-p", "x", "--keep", "4", code=2).stderr
    assert "kv_size must be" in quipu_run("-p", "x", "--kv-size", "lots", code=2).stderr
