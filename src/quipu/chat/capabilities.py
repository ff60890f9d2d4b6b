"""What a chat template can show, found by rendering small conversations and looking for their words in the result."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cached_property
from typing import Any

from quipu.chat.messages import Message
from quipu.chat.render import CompiledTemplate
from quipu.chat.tools import CallIds, Tool, ToolFormat, format_named_in, format_of_calls
from quipu.errors import TemplateError

# Words that no template contains.
_QUESTION = "Qzvquestion"
_ANSWER = "Qzvanswer"
_SYSTEM = "Qzvsystem"
_RESULT = "Qzvresult"
_TOOL = "qzv_tool"
_ARGUMENT = "qzv_argument"
_VALUE = "Qzvvalue"
_SECOND_VALUE = "Qzvother"
_LONG_ID = "qzv-an-id-of-another-form"

_PROBE_TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": _TOOL,
        "description": "A tool.",
        "parameters": {
            "type": "object",
            "properties": {_ARGUMENT: {"type": "string", "description": "A text."}},
            "required": [_ARGUMENT],
        },
    },
}
_BARE_PARAMETERS = {"type": "object", "properties": {_ARGUMENT: {"type": "object"}}}
_ABSENT = object()
# How "no text beside the tool calls" may be written, the most usual first.
_NO_CONTENT = (None, _ABSENT, "")


class TemplateCapabilities:
    """What one template can do. Each answer costs a few renderings, the first time it is asked for."""

    def __init__(self, template: CompiledTemplate, bos_token: str, eos_token: str) -> None:
        self._template = template
        self._tokens = {"bos_token": bos_token, "eos_token": eos_token}

    @cached_property
    def variables(self) -> frozenset[str]:
        """The names of variables that the template reads."""
        return self._template.variables()

    @cached_property
    def supports_system(self) -> bool:
        """A system message at the start reaches the prompt."""
        return self._shows(_SYSTEM, [_message("system", _SYSTEM), _message("user", _QUESTION)])

    @cached_property
    def supports_later_system(self) -> bool:
        """A system message in the middle of a conversation reaches the prompt."""
        messages = [_message("user", _QUESTION), _message("assistant", _ANSWER), _message("system", _SYSTEM)]
        return self._shows(_SYSTEM, [*messages, _message("user", _QUESTION)])

    @cached_property
    def supports_tools(self) -> bool:
        """Definitions of tools reach the prompt."""
        return self._shows(_TOOL, [_message("user", _QUESTION)], [_PROBE_TOOL])

    @cached_property
    def supports_tool_calls(self) -> bool:
        """The tool calls of earlier answers reach the prompt."""
        return bool(self._call_styles)

    @cached_property
    def supports_tool_results(self) -> bool:
        """What tools answered reaches the prompt."""
        content, is_object = self._call_styles[0] if self._call_styles else ("", True)
        return self._shows(_RESULT, _conversation_with_call(content, is_object), [_PROBE_TOOL])

    @cached_property
    def accepts_text(self) -> bool:
        """Content may be a text."""
        return self._shows(_QUESTION, [_message("user", _QUESTION)])

    @cached_property
    def accepts_parts(self) -> bool:
        """Content may be a list of parts."""
        parts = [{"type": "text", "text": _QUESTION}, {"type": "text", "text": _ANSWER}]
        text = self._try([_message("user", parts)])
        # a template that knows nothing of parts may print the list itself
        return text is not None and _QUESTION in text and _ANSWER in text and "'type'" not in text

    @cached_property
    def accepts_object_arguments(self) -> bool:
        """The arguments of a tool call may be an object."""
        return any(is_object for _, is_object in self._call_styles)

    @cached_property
    def accepts_text_arguments(self) -> bool:
        """The arguments of a tool call may be JSON text, as OpenAI's clients send them."""
        return any(not is_object for _, is_object in self._call_styles)

    @cached_property
    def missing_variables(self) -> frozenset[str]:
        """Variables without which the template cannot even show one question: of `functions`, `datetime`, `tools`."""
        messages = [_message("user", _QUESTION)]
        if self._try(messages, supply=frozenset()) is not None:
            return frozenset()
        named = frozenset(name for name in ("functions", "datetime") if name in self.variables)
        for supply in (named, named | {"tools"}):
            if self._try(messages, supply=supply) is not None:
                return supply
        return frozenset()

    @cached_property
    def supports_parallel_calls(self) -> bool:
        """Several tool calls of one answer reach the prompt."""
        if not self._call_styles:
            return False
        content, is_object = self._call_styles[0]
        question, answer, result = _conversation_with_call(content, is_object)
        second = {**answer["tool_calls"][0], "id": "call00002"}
        arguments: Any = {_ARGUMENT: _SECOND_VALUE}
        second["function"] = {"name": _TOOL, "arguments": arguments if is_object else json.dumps(arguments)}
        answer = {**answer, "tool_calls": [*answer["tool_calls"], second]}
        text = self._try([question, answer, result, {**result, "tool_call_id": "call00002"}], [_PROBE_TOOL])
        return text is not None and _VALUE in text and _SECOND_VALUE in text

    @cached_property
    def supports_system_with_tools(self) -> bool:
        """A system message reaches the prompt beside definitions of tools."""
        messages = [_message("system", _SYSTEM), _message("user", _QUESTION)]
        text = self._try(messages, [_PROBE_TOOL])
        return text is not None and _SYSTEM in text and _TOOL in text

    @cached_property
    def needs_complete_tools(self) -> bool:
        """Definitions of tools must hold what JSON schema lets them leave out, such as descriptions."""
        bare = {"type": "function", "function": {"name": _TOOL, "parameters": _BARE_PARAMETERS}}
        messages = [_message("user", _QUESTION)]
        return self.supports_tools and self._try(messages, [bare]) is None

    @cached_property
    def call_ids(self) -> CallIds:
        """What the template takes as the id of a tool call."""
        if not self._call_styles:
            return CallIds.ANY
        content, is_object = self._call_styles[0]
        text = self._try(_conversation_with_call(content, is_object, _LONG_ID), [_PROBE_TOOL])
        if text is None:
            return CallIds.NINE
        # the template numbers calls by itself, but shows results with the ids that it is given
        is_numbered = f"functions.{_TOOL}:0" in text and _LONG_ID in text
        return CallIds.NUMBERED if is_numbered else CallIds.ANY

    @cached_property
    def tool_format(self) -> ToolFormat:
        """How the model writes tool calls: the format in which the template shows earlier ones."""
        tool = Tool(_TOOL, _PROBE_TOOL["function"]["parameters"])
        question = [_message("user", _QUESTION)]
        prompt = self._try(question, [_PROBE_TOOL]) or ""
        for content, is_object in self._call_styles:
            conversation = _conversation_with_call(content, is_object)[:2]
            shown = self._try(conversation, [_PROBE_TOOL], add_generation_prompt=False)
            if shown is None:
                continue
            found = format_of_calls(_answer_in(shown, prompt), tool, {_ARGUMENT: _VALUE}, prompt)
            if found is not None:
                return found
        return format_named_in(prompt + self._template.source)

    def fit_empty_content(self, message: Message) -> Message:
        """The message of an answer that only calls tools, written so that the template shows the calls."""
        if not message.get("tool_calls") or message.get("content") not in (None, "") or not self._call_styles:
            return message
        styles = [content for content, _ in self._call_styles]
        given = message.get("content", _ABSENT)
        content = given if any(style is given or style == given for style in styles) else styles[0]
        without = {key: value for key, value in message.items() if key != "content"}
        return without if content is _ABSENT else {**without, "content": content}

    @cached_property
    def _call_styles(self) -> list[tuple[Any, bool]]:
        """The ways to write a tool call that the template shows well: (content, whether arguments are an object)."""
        shown = []
        for content in _NO_CONTENT:
            object_text = None
            for is_object in (True, False):
                text = self._try(_conversation_with_call(content, is_object), [_PROBE_TOOL])
                # a text that comes out in another way than the object is not in the form of the model
                if text is None or (object_text is not None and text != object_text):
                    continue
                after = text[text.rfind(_QUESTION) :] if _QUESTION in text else text
                # escaped JSON inside JSON, Python's notation and a printed None are not what the model was taught
                if _VALUE in after and f'\\"{_ARGUMENT}' not in after and f"'{_ARGUMENT}'" not in after:
                    object_text = text if is_object else object_text
                    shown.append((after.count("None"), content, is_object))
        fewest = min((num_none for num_none, _, _ in shown), default=0)
        return [(content, is_object) for num_none, content, is_object in shown if num_none == fewest]

    def _shows(self, word: str, messages: Sequence[Message], tools: list[dict[str, Any]] | None = None) -> bool:
        text = self._try(messages, tools)
        return text is not None and word in text

    def _try(
        self,
        messages: Sequence[Message],
        tools: list[dict[str, Any]] | None = None,
        *,
        supply: frozenset[str] | None = None,
        add_generation_prompt: bool = True,
    ) -> str | None:
        """The rendered text, or None where the template refuses or fails."""
        variables = {
            "messages": messages,
            "tools": tools,
            "documents": None,
            "add_generation_prompt": add_generation_prompt,
        }
        names = self.missing_variables if supply is None else supply
        try:
            return self._template.render({**variables, **self._tokens, **supplied(names, tools, None)})
        except TemplateError:
            return None


def supplied(names: frozenset[str], tools: list[dict[str, Any]] | None, now: datetime | None) -> Mapping[str, Any]:
    """Values for variables that a template needs and nobody gave, in the form that their model cards prescribe."""
    values: dict[str, Any] = {}
    if "functions" in names:
        values["functions"] = json.dumps(tools or [], indent=4, ensure_ascii=False)
    if "datetime" in names:
        values["datetime"] = (now or datetime.now()).strftime("%Y-%m-%d %H:%M:%S %Z").strip()
    if "tools" in names and tools is None:
        values["tools"] = []
    return values


def _message(role: str, content: Any) -> Message:
    return {"role": role, "content": content}


def _answer_in(shown: str, prompt: str) -> str:
    """What the assistant says in a rendered conversation, and what follows it.

    Args:
        shown: the conversation.
        prompt: the same without the answer, ready for it to be written.
    """
    same = (one == other for one, other in zip(shown, prompt, strict=False))
    num_common = next((i for i, is_same in enumerate(same) if not is_same), min(len(shown), len(prompt)))
    if num_common < len(prompt):  # the prompt says more; go back to where a mark or a line began
        num_common = max(shown.rfind(end, 0, num_common) + 1 for end in ">\n]")
    return shown[num_common:]


def _conversation_with_call(content: Any, is_object: bool, call_id: str = "call00001") -> list[Message]:
    arguments: Any = {_ARGUMENT: _VALUE}
    call = {
        "id": call_id,  # some templates insist on nine letters and digits
        "type": "function",
        "function": {"name": _TOOL, "arguments": arguments if is_object else json.dumps(arguments)},
    }
    answer: Message = {"role": "assistant", "tool_calls": [call]}
    if content is not _ABSENT:
        answer["content"] = content
    result = {"role": "tool", "name": _TOOL, "tool_call_id": call_id, "content": _RESULT}
    return [_message("user", _QUESTION), answer, result]
