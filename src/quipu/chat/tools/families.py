"""All formats, and which of them a template belongs to."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from quipu.chat.tools.apertus import APERTUS
from quipu.chat.tools.deepseek import DEEPSEEK_V3, DEEPSEEK_V31
from quipu.chat.tools.definitions import Tool
from quipu.chat.tools.format import ToolFormat
from quipu.chat.tools.functionary import FUNCTIONARY
from quipu.chat.tools.gemma import GEMMA
from quipu.chat.tools.glm import GLM
from quipu.chat.tools.harmony import HARMONY
from quipu.chat.tools.json_calls import (
    APRIEL,
    COHERE,
    COHERE_ACTION,
    FIREFUNCTION,
    GENERIC,
    GIGACHAT,
    GRANITE,
    HERMES,
    MINIMAX_M1,
    MISTRAL_LIST,
    PHI,
)
from quipu.chat.tools.kimi import KIMI
from quipu.chat.tools.llama import LLAMA
from quipu.chat.tools.mistral import MISTRAL
from quipu.chat.tools.named_calls import FUNCTIONARY_V31
from quipu.chat.tools.parser import ToolParser
from quipu.chat.tools.pythonic import PYTHONIC
from quipu.chat.tools.xml_calls import DEEPSEEK_V4, MINIMAX_M2, QWEN3_CODER, SEED
from quipu.types import ToolCall

# Of formats that read the same text, the one that writes it comes first.
FORMATS: tuple[ToolFormat, ...] = (
    HARMONY,
    KIMI,
    DEEPSEEK_V3,
    DEEPSEEK_V31,
    DEEPSEEK_V4,
    MINIMAX_M2,
    SEED,
    QWEN3_CODER,
    GLM,
    HERMES,
    APRIEL,
    MINIMAX_M1,
    GEMMA,
    MISTRAL_LIST,
    MISTRAL,
    COHERE,
    COHERE_ACTION,
    APERTUS,
    GIGACHAT,
    FIREFUNCTION,
    FUNCTIONARY_V31,
    FUNCTIONARY,
    PHI,
    GRANITE,
    PYTHONIC,
    LLAMA,
    GENERIC,
)

# Templates that show tools but no calls name their marks in what they tell the model, or nowhere.
_NAMED_BY: tuple[tuple[str, ToolFormat], ...] = (
    ("<|/tool_call|>", PHI),
    ("<|tool|>", PHI),
    ("<|tool_call|>", GRANITE),
    ("<|tool_list_start|>", PYTHONIC),
    ("List of tools: [", PYTHONIC),
    ("<tool_call>", HERMES),
    ("[TOOL_CALLS]", MISTRAL),
    ("functools[", FIREFUNCTION),
)


def format_of_calls(text: str, tool: Tool, arguments: Mapping[str, Any], prompt: str = "") -> ToolFormat | None:
    """The format in which `text` is a call of this tool with these arguments; None where it is none that we know.

    Args:
        text: an answer as a template renders it, with what follows it.
        tool: that is called in it.
        arguments: of the call.
        prompt: the rendered prompt before it.
    """
    for tool_format in FORMATS:
        parser = ToolParser(tool_format, (tool,), lambda name: name, prompt)
        deltas = parser.append(text).tool_calls + parser.flush().tool_calls
        calls = ToolCall.fold(deltas)
        is_read = len(calls) == 1 and calls[0].name == tool.name and _is_equal(calls[0].arguments, arguments)
        if is_read and tool_format.writes(text):
            return tool_format
    return None


def format_named_in(text: str) -> ToolFormat:
    """The format whose marks a template names."""
    return next((tool_format for mark, tool_format in _NAMED_BY if mark in text), GENERIC)


def _is_equal(arguments: str, expected: Mapping[str, Any]) -> bool:
    return bool(json.loads(arguments) == expected)
