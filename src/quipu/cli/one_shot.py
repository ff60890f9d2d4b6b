"""One answer and out: text for people and pipes, or one JSON object for programs."""

from __future__ import annotations

import dataclasses
import io
import json
import time
from collections.abc import Mapping
from typing import Any

from quipu.cli.conversation import Conversation
from quipu.cli.replies import Reply, follow
from quipu.cli.screen import Screen
from quipu.cli.timings import timing_lines, timing_values
from quipu.types import FinishReason, SamplingParams

_INTERRUPTED = 130  # 128 + SIGINT, as shells report it


def show_answer(
    conversation: Conversation,
    prompt: str,
    sampling: SamplingParams,
    variables: Mapping[str, Any],
    screen: Screen,
    *,
    load_s: float,
    verbose: bool,
) -> int:
    """Stream one answer and return the exit code.

    Args:
        load_s: seconds it took to open the model.
        verbose: show timings after it.

    Raises:
        QuipuError: the prompt does not fit, the template refuses it, ...
    """
    started_s = time.perf_counter()
    answer = conversation.ask(prompt, sampling, variables)
    text_s = time.perf_counter() - started_s
    reply = follow(answer, screen)
    if reply.finish_reason is FinishReason.ABORT:
        return _INTERRUPTED
    if _filled_context(conversation, reply):
        screen.warn(f"the text was cut: the context of {conversation.llm.ctx_size} tokens is full; raise --ctx-size")
    if verbose and reply.usage is not None and reply.timings is not None:
        for line in timing_lines(load_s, text_s, reply.usage, reply.timings):
            screen.note(line)
    return 0


def print_json(
    conversation: Conversation,
    prompt: str,
    sampling: SamplingParams,
    variables: Mapping[str, Any],
    *,
    load_s: float,
) -> int:
    """Print one answer as a JSON object and return the exit code.

    Raises:
        QuipuError: the prompt does not fit, the template refuses it, ...
    """
    silent = Screen(io.StringIO(), io.StringIO())
    started_s = time.perf_counter()
    answer = conversation.ask(prompt, sampling, variables)
    text_s = time.perf_counter() - started_s
    reply = follow(answer, silent)
    report: dict[str, Any] = {
        "text": reply.text,
        "reasoning": reply.reasoning,
        "tool_calls": [dataclasses.asdict(call) for call in reply.tool_calls],
        "finish_reason": reply.finish_reason.value,
        "seed": reply.seed,
        "ctx_size": conversation.llm.ctx_size,
        "warnings": [*conversation.llm.warnings, *reply.warnings],
    }
    if reply.usage is not None:
        report["usage"] = {**dataclasses.asdict(reply.usage), "total_tokens": reply.usage.total_tokens}
    if reply.usage is not None and reply.timings is not None:
        report["timings"] = timing_values(load_s, text_s, reply.usage, reply.timings)
    print(json.dumps(report, ensure_ascii=False, indent=2))
    return _INTERRUPTED if reply.finish_reason is FinishReason.ABORT else 0


def _filled_context(conversation: Conversation, reply: Reply) -> bool:
    if reply.finish_reason is not FinishReason.LENGTH or reply.usage is None or conversation.llm.context_shift:
        return False
    return reply.usage.total_tokens >= conversation.llm.ctx_size
