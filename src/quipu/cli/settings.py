"""`/set`: sampling parameters by the names that Ollama and llama.cpp use, and switches of the session."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from quipu.cli.sampling_options import max_tokens
from quipu.cli.session import Session
from quipu.errors import UsageError
from quipu.types import SamplingParams, parse_samplers

# Other names of the fields of SamplingParams.
_ALIASES: Mapping[str, str] = MappingProxyType(
    {
        "temp": "temperature",
        "typical": "typical_p",
        "num_predict": "max_tokens",
        "n_predict": "max_tokens",
        "n": "max_tokens",
        "dynatemp_exp": "dynatemp_exponent",
        "mirostat_lr": "mirostat_eta",
        "mirostat_ent": "mirostat_tau",
        "top_nsigma": "top_n_sigma",
    }
)
# How the words after a name become a value. What is out of range, SamplingParams refuses.
_READ: Mapping[str, Callable[[list[str]], Any]] = MappingProxyType(
    {
        "max_tokens": lambda words: max_tokens(int(*words)),
        "min_tokens": lambda words: int(*words),
        "temperature": lambda words: float(*words),
        "top_k": lambda words: int(*words),
        "top_p": lambda words: float(*words),
        "min_p": lambda words: float(*words),
        "typical_p": lambda words: float(*words),
        "repeat_penalty": lambda words: float(*words),
        "presence_penalty": lambda words: float(*words),
        "frequency_penalty": lambda words: float(*words),
        "repeat_last_n": lambda words: int(*words),
        "samplers": lambda words: parse_samplers(*words),
        **dict.fromkeys(
            (
                "top_n_sigma",
                "xtc_probability",
                "xtc_threshold",
                "dynatemp_range",
                "dynatemp_exponent",
                "dry_multiplier",
                "dry_base",
                "mirostat_tau",
                "mirostat_eta",
                "adaptive_target",
                "adaptive_decay",
            ),
            lambda words: float(*words),
        ),
        **dict.fromkeys(
            ("min_keep", "mirostat", "dry_allowed_length", "dry_penalty_last_n"), lambda words: int(*words)
        ),
        "dry_sequence_breakers": tuple,
        "seed": lambda words: None if words == ["-1"] else int(*words),
        "stop": tuple,
    }
)
_LIST = """\
/set parameter NAME VALUE    a sampling parameter; /show parameters lists them
/set system TEXT             the system message
/set verbose, /set quiet     timings after each answer, or none
/set think, /set nothink     ask the chat template for reasoning, or for none
/set history, /set nohistory remember what you type, or not"""


def with_parameter(sampling: SamplingParams, name: str, words: list[str]) -> SamplingParams:
    """`sampling` with one parameter changed.

    Args:
        name: a field, or the name of one in Ollama or llama.cpp.
        words: the value, in words as a shell would split it.

    Raises:
        UsageError: no such parameter, or not a value for it.
    """
    if name in ("num_ctx", "ctx_size"):
        raise UsageError("the size of the context is fixed when the model is loaded; start again with -c N")
    field_name = _ALIASES.get(name, name)
    if field_name not in _READ:
        raise UsageError(f"there is no parameter {name!r}; use one of {', '.join(_READ)}")
    if not words:
        raise UsageError(f"/set parameter {name} needs a value")
    try:
        value = _READ[field_name](words)
    except (ValueError, TypeError):
        raise UsageError(f"{' '.join(words)!r} is not a value for {name}") from None
    return dataclasses.replace(sampling, **{field_name: value})


def change_setting(session: Session, rest: str) -> bool:
    """Do `/set REST`. Never asks to leave.

    Raises:
        UsageError: no such setting, or not a value for it.
    """
    name, _, value = rest.partition(" ")
    value = value.strip()
    if not name:
        for line in _LIST.splitlines():
            session.screen.note(line)
    elif name == "parameter":
        _set_parameter(session, value)
    elif name == "system":
        session.conversation.set_system(value.strip('"'))
        session.screen.note("set the system message" if session.conversation.system else "removed the system message")
    elif name in ("verbose", "quiet"):
        session.verbose = name == "verbose"
        session.screen.note("timings on" if session.verbose else "timings off")
    elif name in ("think", "nothink"):
        session.variables["enable_thinking"] = name == "think"
        session.screen.note("asking for reasoning" if name == "think" else "asking for no reasoning")
    elif name in ("history", "nohistory"):
        session.lines.keep_history(name == "history")
        session.screen.note("remembering what you type" if name == "history" else "no longer remembering what you type")
    else:
        raise UsageError(f"there is no setting {name!r}; /set lists them")
    return False


def _set_parameter(session: Session, rest: str) -> None:
    try:
        words = shlex.split(rest)
    except ValueError as error:
        raise UsageError(f"the quotes in {rest!r} do not close ({error})") from None
    if not words:
        raise UsageError("/set parameter needs a name and a value, as in /set parameter temperature 0.5")
    session.sampling = with_parameter(session.sampling, words[0], words[1:])
    session.screen.note(f"set {words[0]} to {' '.join(words[1:])}")
