"""llama.cpp behind a pipe: one JSON request per line on standard input, one JSON reply per line on standard output.

    python llama_cpp_worker.py

Needs `llama-cpp-python` and nothing of quipu, so that it can live in an environment of its own. It uses the low-level
interface: no sampling, no text, only `llama_decode` on token ids.

Requests (times are seconds on the monotonic clock):
    {"op": "load", "model", "threads", "ctx_size", "batch_size", "kv_type", "num_sequences", "repack": bool}
                                                            ctx_size is per sequence -> {"seconds", "engine"}
    {"op": "prefill", "token_ids"}                          an empty cache, then one prompt -> {"seconds"}
    {"op": "decode", "token_ids", "num_tokens"}             a prompt, then one token at a time -> {"seconds": [...]}
    {"op": "batch_decode", "prompts", "num_tokens"}         prompts, then one token of each -> {"seconds": [...]}
    {"op": "answer", "prompts", "num_tokens"}               both together, with many sequences -> {"seconds"}
    {"op": "decode_at", "context", "num_tokens"}            one token at a time, filled cache -> {"seconds": [...]}
    {"op": "logits", "token_ids"}                           of every token of a prompt -> {"logits": [[...], ...]}
    {"op": "quit"}
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Sequence

import llama_cpp
from llama_cpp import llama_cpp as low_level

from answering import serve
from llama_cpp_state import lengthen

_BF16 = 30  # ggml's number, which the bindings do not name
_SAMPLE_TOKENS = 256  # a long cache repeats the keys and values of this many


@low_level.llama_log_callback  # type: ignore[untyped-decorator]
def _drop_log(level: int, text: bytes, user_data: ctypes.c_void_p) -> None:
    """Keeps the engine's own messages out of the benchmark's."""


class LlamaCpp:
    """One loaded model and one context."""

    def __init__(
        self,
        *,
        model: str,
        threads: int,
        ctx_size: int,
        batch_size: int,
        repack: bool,
        kv_type: str = "f16",
        num_sequences: int = 1,
    ) -> None:
        low_level.llama_log_set(_drop_log, ctypes.c_void_p(0))
        low_level.llama_backend_init()
        model_params = low_level.llama_model_default_params()
        model_params.n_gpu_layers = 0
        model_params.use_extra_bufts = repack
        self.model = low_level.llama_model_load_from_file(model.encode(), model_params)
        if not self.model:
            raise SystemExit(f"llama.cpp cannot load {model}")
        self.threads = threads
        self.ctx_size = ctx_size
        self.batch_size = batch_size
        self.kv_type = _BF16 if kv_type == "bf16" else getattr(low_level, f"GGML_TYPE_{kv_type.upper()}")
        self.context = None
        self.num_sequences = 0
        self.filled = -1  # tokens that `decode_at` has put into the cache
        self.open_context(num_sequences)

    def open_context(self, num_sequences: int) -> None:
        """Make room for so many sequences, each with a cache of its own."""
        if self.context:
            low_level.llama_free(self.context)
        params = low_level.llama_context_default_params()
        params.n_ctx = self.ctx_size * num_sequences
        params.n_seq_max = num_sequences
        params.n_batch = params.n_ubatch = self.batch_size
        params.n_threads = params.n_threads_batch = self.threads
        params.flash_attn_type = low_level.LLAMA_FLASH_ATTN_TYPE_AUTO
        params.type_k = params.type_v = self.kv_type
        self.context = low_level.llama_init_from_model(self.model, params)
        if not self.context:
            raise SystemExit(f"llama.cpp cannot make a context of {params.n_ctx} tokens")
        self.num_sequences = num_sequences

    def feed(self, token_ids: list[int]) -> None:
        """Append tokens to the cache; logits of the last one are computed."""
        for begin in range(0, len(token_ids), self.batch_size):
            part = token_ids[begin : begin + self.batch_size]
            array = (low_level.llama_token * len(part))(*part)
            self.run(low_level.llama_batch_get_one(array, len(part)))
        low_level.llama_synchronize(self.context)

    def feed_sequences(
        self,
        parts: Sequence[Sequence[int]],
        first_position: int,
        *,
        first_sequence: int = 0,
        all_logits: bool = False,
    ) -> None:
        """Append the same number of tokens to each sequence, from `first_sequence` on, in one pass."""
        total = sum(map(len, parts))
        batch = low_level.llama_batch_init(total, 0, 1)
        batch.n_tokens = total
        row = 0
        for sequence, tokens in enumerate(parts, first_sequence):
            for offset, token in enumerate(tokens):
                batch.token[row] = token
                batch.pos[row] = first_position + offset
                batch.n_seq_id[row] = 1
                batch.seq_id[row][0] = sequence
                batch.logits[row] = all_logits or offset == len(tokens) - 1
                row += 1
        self.run(batch)
        low_level.llama_synchronize(self.context)
        low_level.llama_batch_free(batch)

    def run(self, batch: low_level.llama_batch) -> None:
        status = low_level.llama_decode(self.context, batch)
        if status != 0:
            raise SystemExit(f"llama_decode returned {status}")

    def clear(self) -> None:
        low_level.llama_memory_clear(low_level.llama_get_memory(self.context), True)
        self.filled = -1

    def prefill(self, token_ids: list[int]) -> float:
        self.clear()
        begin = time.perf_counter()
        self.feed(token_ids)
        return time.perf_counter() - begin

    def decode(self, token_ids: list[int], num_tokens: int) -> list[float]:
        """Seconds of each of `num_tokens` steps of one token, after the prompt."""
        self.clear()
        self.feed(token_ids)
        return self.time_steps(token_ids, num_tokens)

    def time_steps(self, token_ids: Sequence[int], num_tokens: int) -> list[float]:
        """Seconds of each of `num_tokens` steps of one token."""
        seconds = []
        for index in range(num_tokens):
            begin = time.perf_counter()
            self.feed([token_ids[index % len(token_ids)]])
            seconds.append(time.perf_counter() - begin)
        return seconds

    def batch_decode(self, prompts: list[list[int]], num_tokens: int) -> list[float]:
        """Seconds of each of `num_tokens` steps of one token per sequence, after prompts of equal length."""
        if len(prompts) != self.num_sequences:
            self.open_context(len(prompts))
        self.clear()
        length = len(prompts[0])
        self.feed_sequences(prompts, 0)
        seconds = []
        for index in range(num_tokens):
            begin = time.perf_counter()
            self.feed_sequences([[prompt[index % length]] for prompt in prompts], length + index)
            seconds.append(time.perf_counter() - begin)
        return seconds

    def answer(self, prompts: list[list[int]], num_tokens: int) -> float:
        """Seconds in which so many tokens are generated after each of the prompts, which are of equal length.

        The prompts are read as many at a time as fit a pass; the last pass of each gives its first token.
        """
        if len(prompts) != self.num_sequences:
            self.open_context(len(prompts))
        self.clear()
        length = len(prompts[0])
        at_a_time = max(1, self.batch_size // length)
        begin = time.perf_counter()
        for first in range(0, len(prompts), at_a_time):
            self.feed_sequences(prompts[first : first + at_a_time], 0, first_sequence=first)
        for index in range(num_tokens - 1):
            self.feed_sequences([[prompt[index % length]] for prompt in prompts], length + index)
        return time.perf_counter() - begin

    def decode_at(self, context: int, num_tokens: int) -> list[float]:
        """Seconds of each of `num_tokens` steps of one token, after a context that is filled once and then kept."""
        sample = [1000 + 7 * index for index in range(min(context, _SAMPLE_TOKENS))]
        vocab_size = low_level.llama_vocab_n_tokens(low_level.llama_model_get_vocab(self.model))
        sample = [token % vocab_size for token in sample]
        if self.filled != context:
            self.fill(context, sample)
        seconds = self.time_steps(sample or [0], num_tokens)
        low_level.llama_memory_seq_rm(low_level.llama_get_memory(self.context), 0, context, -1)
        return seconds

    def fill(self, context: int, sample: list[int]) -> None:
        """Make the cache hold `context` tokens; beyond the sample by repeating its keys and values, which is quick."""
        self.clear()
        self.feed(sample)
        if context > len(sample):
            size = low_level.llama_state_seq_get_size(self.context, 0)
            state = (ctypes.c_uint8 * size)()
            low_level.llama_state_seq_get_data(self.context, state, size, 0)
            longer = lengthen(memoryview(state).cast("B"), context)
            if longer is None:  # another layout than ours knows: compute them all
                self.feed([sample[index % len(sample)] for index in range(len(sample), context)])
            else:
                array = (ctypes.c_uint8 * len(longer)).from_buffer(longer)
                if not low_level.llama_state_seq_set_data(self.context, array, len(longer), 0):
                    raise SystemExit(f"llama.cpp refuses a cache of {context} tokens")
        self.filled = context

    def logits(self, token_ids: list[int]) -> list[list[float]]:
        """Those of every token, from one pass over an empty cache."""
        self.clear()
        self.feed_sequences([token_ids], 0, all_logits=True)
        vocab_size = low_level.llama_vocab_n_tokens(low_level.llama_model_get_vocab(self.model))
        return [low_level.llama_get_logits_ith(self.context, row)[:vocab_size] for row in range(len(token_ids))]

    def describe(self) -> str:
        info = low_level.llama_print_system_info().decode()
        features = [part.split("=")[0].strip() for part in info.split("|") if "= 1" in part]
        return f"llama-cpp-python {llama_cpp.__version__} ({', '.join(features)})"


if __name__ == "__main__":
    serve(LlamaCpp)
