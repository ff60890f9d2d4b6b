"""The grammar that holds a model to the tools of a request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from quipu.chat.tools.definitions import Tool, ToolChoice
from quipu.chat.tools.format import ToolFormat
from quipu.chat.tools.lark import Lark
from quipu.chat.tools.schemas import softened


@dataclass(frozen=True, slots=True)
class ToolGrammar:
    """What an answer has to keep to.

    Attributes:
        source: in llguidance's variant of Lark.
        triggers: where there are any, the grammar holds from the first character of the first of them on, and before
            it anything may be written; where there are none, it holds from the start.
        after: triggers count only after this text; "" from the start.
    """

    source: str
    triggers: tuple[str, ...] = ()
    after: str = ""


@dataclass(frozen=True, slots=True)
class Reasoning:
    """How an answer may begin with reasoning.

    Attributes:
        opening: of the reasoning; "" where it has none.
        closing: of the reasoning.
        is_open: the prompt ends within it.
    """

    opening: str = ""
    closing: str = ""
    is_open: bool = False


def write_tool_grammar(
    tool_format: ToolFormat,
    tools: Sequence[Tool],
    choice: ToolChoice,
    *,
    token_ids: Mapping[str, int] | None = None,
    prompt: str = "",
    reasoning: Reasoning | None = None,
) -> ToolGrammar | None:
    """The grammar for an answer; None where there is nothing to hold it to.

    Args:
        tool_format: how the model writes calls.
        tools: those of the request.
        choice: which of them may or must be called.
        token_ids: the control tokens among the format's markers and the tags of reasoning, by their text.
        prompt: the rendered prompt.
        reasoning: how the answer may begin; None: without reasoning.
    """
    allowed = [
        tool if tool.is_strict else replace(tool, parameters=softened(tool.parameters))
        for tool in tools
        if not choice.name or tool.name == choice.name
    ]
    if choice.mode == "none" or not allowed:
        return None
    lark = Lark(token_ids)
    whole = tool_format.write_whole_grammar(lark, allowed, choice, prompt)
    if not whole and choice.mode == "auto":
        is_open = reasoning is not None and reasoning.is_open
        calls = tool_format.write_grammar(lark, allowed, choice.is_parallel)
        triggers = tuple(text for text in tool_format.triggers(allowed) if lark.is_one_kind(text))
        if not triggers:
            return None
        return ToolGrammar(lark.source(calls), triggers, reasoning.closing if reasoning and is_open else "")
    calls = whole or tool_format.write_grammar(lark, allowed, choice.is_parallel)
    if reasoning is None or not reasoning.closing:
        return ToolGrammar(lark.source(f"{lark.space()} {calls}"))
    thought = f"{lark.up_to(reasoning.closing)}"
    if not reasoning.is_open:
        thought = f"({lark.text(reasoning.opening)} {thought})?"
    return ToolGrammar(lark.source(f"{thought} {lark.space()} {calls}"))
