"""llama.cpp behind a pipe: one JSON request per line on standard input, one JSON reply per line on standard output.

    python llama_cpp_worker.py

Needs `llama-cpp-python` and nothing of quipu, so that it can live in an environment of its own. It uses the low-level
interface: no sampling, no text, only `llama_decode` on token ids.

Requests (times are seconds on the monotonic clock):
    {"op": "load", "model", "threads", "ctx_size", "batch_size", "repack": bool}  -> {"seconds", "engine"}
    {"op": "prefill", "token_ids"}                          an empty cache, then one prompt -> {"seconds"}
    {"op": "decode", "token_ids", "num_tokens"}             a prompt, then one token at a time -> {"seconds": [...]}
    {"op": "quit"}
"""

from __future__ import annotations

import ctypes
import time

import llama_cpp
from llama_cpp import llama_cpp as low_level

from serving import serve


@low_level.llama_log_callback  # type: ignore[untyped-decorator]
def _drop_log(level: int, text: bytes, user_data: ctypes.c_void_p) -> None:
    """Keeps the engine's own messages out of the benchmark's."""


class LlamaCpp:
    """One loaded model and one context."""

    def __init__(self, *, model: str, threads: int, ctx_size: int, batch_size: int, repack: bool) -> None:
        low_level.llama_log_set(_drop_log, ctypes.c_void_p(0))
        low_level.llama_backend_init()
        model_params = low_level.llama_model_default_params()
        model_params.n_gpu_layers = 0
        model_params.use_extra_bufts = repack
        self.model = low_level.llama_model_load_from_file(model.encode(), model_params)
        if not self.model:
            raise SystemExit(f"llama.cpp cannot load {model}")
        context_params = low_level.llama_context_default_params()
        context_params.n_ctx = ctx_size
        context_params.n_batch = context_params.n_ubatch = batch_size
        context_params.n_threads = context_params.n_threads_batch = threads
        context_params.flash_attn_type = low_level.LLAMA_FLASH_ATTN_TYPE_AUTO
        context_params.type_k = context_params.type_v = low_level.GGML_TYPE_F16
        self.context = low_level.llama_init_from_model(self.model, context_params)
        if not self.context:
            raise SystemExit(f"llama.cpp cannot make a context of {ctx_size} tokens")
        self.batch_size = batch_size

    def feed(self, token_ids: list[int]) -> None:
        """Append tokens to the cache; logits of the last one are computed."""
        for begin in range(0, len(token_ids), self.batch_size):
            part = token_ids[begin : begin + self.batch_size]
            array = (low_level.llama_token * len(part))(*part)
            status = low_level.llama_decode(self.context, low_level.llama_batch_get_one(array, len(part)))
            if status != 0:
                raise SystemExit(f"llama_decode returned {status}")
        low_level.llama_synchronize(self.context)

    def clear(self) -> None:
        low_level.llama_memory_clear(low_level.llama_get_memory(self.context), True)

    def prefill(self, token_ids: list[int]) -> float:
        self.clear()
        begin = time.perf_counter()
        self.feed(token_ids)
        return time.perf_counter() - begin

    def decode(self, token_ids: list[int], num_tokens: int) -> list[float]:
        """Seconds of each of `num_tokens` steps of one token, after the prompt."""
        self.clear()
        self.feed(token_ids)
        seconds = []
        for index in range(num_tokens):
            begin = time.perf_counter()
            self.feed([token_ids[index % len(token_ids)]])
            seconds.append(time.perf_counter() - begin)
        return seconds

    def describe(self) -> str:
        info = low_level.llama_print_system_info().decode()
        features = [part.split("=")[0].strip() for part in info.split("|") if "= 1" in part]
        return f"llama-cpp-python {llama_cpp.__version__} ({', '.join(features)})"


if __name__ == "__main__":
    serve(LlamaCpp)
