"""Options that name a model and say how it is loaded, with llama.cpp's names.

Every option defaults to "not given", so that the defaults live in one place: the parameters of `LLM`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from quipu.cli.builtin import resolve_model
from quipu.errors import UsageError

_model = partial(typer.Option, rich_help_panel="Model")
_speed = partial(typer.Option, rich_help_panel="Speed and memory")

# Names of KV cache types, as llama.cpp has them: those of backends.program, whose import would slow down every verb.
CACHE_TYPES = ("f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl")

# llama.cpp's ways to look up n-grams differ in their index; ours is one for all of them.
_SPECULATION_TYPES = {
    "off": ("none", "off"),
    "ngram": ("ngram", "ngram-simple", "ngram-map-k", "ngram-map-k4v", "ngram-mod", "ngram-cache"),
    "draft": ("draft", "draft-simple"),
}
_MOST_DRAFTS = 1024  # quipu.types.MOST_DRAFTS, whose import would slow down every verb

_NO_LIMIT = 1 << 60  # bytes: as much as the memory plan finds affordable


@dataclass(frozen=True, kw_only=True)
class LoadOptions:
    """Which model, and how it is loaded."""

    model: Annotated[str | None, _model("-m", "--model", metavar="FILE", help="GGUF file, or `tiny`")] = None
    ctx_size: Annotated[
        int | None,
        _model(
            "-c",
            "--ctx-size",
            metavar="N",
            help="tokens of context; 0 or not given: the trained length, as far as memory allows",
        ),
    ] = None
    threads: Annotated[
        int | None,
        _speed("-t", "--threads", metavar="N", help="CPU threads; not given: as many as measured best"),
    ] = None
    threads_batch: Annotated[
        int | None,
        _speed("-tb", "--threads-batch", metavar="N", help="CPU threads for prompts; not given: as -t, or all cores"),
    ] = None
    batch_size: Annotated[
        int | None,
        _speed("-b", "--batch-size", metavar="N", help="most tokens in one step"),
    ] = None
    ubatch_size: Annotated[
        int | None,
        _speed("-ub", "--ubatch-size", metavar="N", help="most tokens in one pass through the layers"),
    ] = None
    cache_type_k: Annotated[
        str | None,
        _speed(
            "-ctk",
            "--cache-type-k",
            metavar="TYPE",
            help=f"type of the cached keys, one of {', '.join(CACHE_TYPES)}; not given: f16",
        ),
    ] = None
    cache_type_v: Annotated[
        str | None,
        _speed("-ctv", "--cache-type-v", metavar="TYPE", help="type of the cached values, likewise"),
    ] = None
    gpu_layers: Annotated[
        str | None,
        _speed(
            "-ngl",
            "--n-gpu-layers",
            "--gpu-layers",
            metavar="N",
            help="layers on the GPU; a warning where there is none",
        ),
    ] = None
    tensor_split: Annotated[
        str | None,
        _speed("-ts", "--tensor-split", metavar="N,N", help="shares of several GPUs; a warning where there is none"),
    ] = None
    flash_attn: Annotated[
        bool | None,
        _speed("-fa", "--flash-attn/--no-flash-attn", help="accepted; attention is always computed in one pass"),
    ] = None
    mlock: Annotated[bool, _speed("--mlock", help="not supported yet: a warning")] = False
    mmap: Annotated[
        bool,
        _speed("--mmap/--no-mmap", help="weights are always read through the page cache"),
    ] = True
    kv_size: Annotated[
        str | None,
        _speed("--kv-size", metavar="N", help="size of the KV cache: tokens, or bytes with a unit such as 2GiB"),
    ] = None
    cache_prompt: Annotated[
        bool,
        _speed("--cache-prompt/--no-cache-prompt", help="reuse what was computed of an equal beginning"),
    ] = True
    cache_ram: Annotated[
        int | None,
        _speed(
            "-cram",
            "--cache-ram",
            metavar="MIB",
            help="most memory for what no request needs at present; 0: reuse nothing, -1: no limit",
        ),
    ] = None
    cache_folder: Annotated[
        str | None,
        _speed("--cache-folder", metavar="DIR", help="keep pages of the KV cache there, for later runs too"),
    ] = None
    draft_model: Annotated[
        str | None,
        _speed(
            "-md",
            "--model-draft",
            "--spec-draft-model",
            metavar="FILE",
            help="GGUF file of a smaller model that guesses ahead",
        ),
    ] = None
    speculation_type: Annotated[
        str | None,
        _speed(
            "--spec-type",
            metavar="TYPE",
            help="guess ahead from the text itself (ngram), by the model of -md (draft), or not (none)",
        ),
    ] = None
    draft_max: Annotated[
        int | None,
        _speed(
            "--draft-max",
            "--draft",
            "--draft-n",
            "--spec-draft-n-max",
            metavar="N",
            help="most tokens guessed at a time",
        ),
    ] = None
    draft_min: Annotated[
        int | None,
        _speed("--draft-min", "--draft-n-min", "--spec-draft-n-min", metavar="N", help="fewest tokens worth a guess"),
    ] = None
    priority: Annotated[
        int | None,
        _speed("--prio", metavar="N", help="priority of the process: -1 low, 0 normal, 1 medium, 2 high, 3 highest"),
    ] = None

    def llm_arguments(self) -> dict[str, Any]:
        """Keyword arguments for `LLM`, only those that were given.

        Raises:
            UsageError: a number is out of range, or a cache type is unknown.
        """
        if self.gpu_layers is not None and not re.fullmatch(r"-?\d+|auto|all", self.gpu_layers):
            raise UsageError(f"-ngl takes a number, auto or all, not {self.gpu_layers!r}")
        arguments: dict[str, Any] = {}
        # (name, flag, lowest number that is taken); 0 and less mean the default of `LLM`.
        for name, flag, lowest in (
            ("ctx_size", "--ctx-size", 0),
            ("threads", "--threads", -1),
            ("threads_batch", "--threads-batch", -1),
            ("batch_size", "--batch-size", 1),
            ("ubatch_size", "--ubatch-size", 1),
        ):
            value = getattr(self, name)
            if value is not None and value < lowest:
                raise UsageError(f"{flag} must be 1 or more, not {value}")
            if value is not None and value > 0:
                arguments[name] = value
        kv_type = self.kv_type()
        if kv_type is not None:
            arguments["kv_type"] = kv_type
        return arguments | self._cache_arguments() | self._speculation_arguments()

    def _speculation_arguments(self) -> dict[str, Any]:
        arguments: dict[str, Any] = {}
        if self.draft_model is not None:
            arguments["draft_model"] = resolve_model(self.draft_model)
        if self.speculation_type is not None:
            arguments["speculate"] = _speculation_source(self.speculation_type)
            if arguments["speculate"] == "draft" and self.draft_model is None:
                raise UsageError(f"--spec-type {self.speculation_type} needs a draft model; name its file with -md")
        for name, flag in (("draft_max", "--draft-max"), ("draft_min", "--draft-min")):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= _MOST_DRAFTS:
                raise UsageError(f"{flag} must be a whole number from 0 to {_MOST_DRAFTS}, not {value}")
            if value is not None:
                arguments[name] = value
        return arguments

    def _cache_arguments(self) -> dict[str, Any]:
        arguments: dict[str, Any] = {}
        if self.cache_ram is not None and self.cache_ram < -1:
            raise UsageError(f"--cache-ram must be -1 (no limit), 0 (nothing) or a number of MiB, not {self.cache_ram}")
        if self.kv_size is not None:
            arguments["kv_size"] = self.kv_size
        if not self.cache_prompt:
            arguments["prefix_cache"] = False
        if self.cache_ram is not None:
            arguments["cache_bytes"] = _NO_LIMIT if self.cache_ram < 0 else self.cache_ram << 20
        if self.cache_folder is not None:
            arguments["cache_folder"] = Path(self.cache_folder).expanduser()
        return arguments

    def kv_type(self) -> str | tuple[str, str] | None:
        """The type of the KV cache: one for both, a pair (keys, values), or None where neither was given.

        Raises:
            UsageError: a type that does not exist.
        """
        if self.cache_type_k is None and self.cache_type_v is None:
            return None
        keys, values = (_cache_type(name) for name in (self.cache_type_k or "f16", self.cache_type_v or "f16"))
        return keys if keys == values else (keys, values)

    def warnings(self) -> list[str]:
        """One line for every option that was accepted and does nothing here."""
        lines = []
        if self.gpu_layers not in (None, "0", "auto"):
            lines.append(f"-ngl {self.gpu_layers} has no effect: this build computes on the CPU only")
        if self.tensor_split is not None:
            lines.append(f"--tensor-split {self.tensor_split} has no effect: this build computes on the CPU only")
        if self.mlock:
            lines.append(
                "--mlock is not available yet: the weights stay in the page cache, which the system may reclaim"
            )
        if not self.mmap:
            lines.append("--no-mmap has no effect: the weights are always mapped from the file")
        return lines


def _speculation_source(name: str) -> str:
    """What `LLM` calls a type of speculation, given in its names or llama.cpp's."""
    for source, names in _SPECULATION_TYPES.items():
        if name.lower() in names:
            return source
    raise UsageError(f"--spec-type {name} is not available; use ngram, draft or none")


def _cache_type(name: str) -> str:
    if name.lower() not in CACHE_TYPES:
        raise UsageError(f"{name!r} is not a type for the KV cache; use one of {', '.join(CACHE_TYPES)}")
    return name.lower()
