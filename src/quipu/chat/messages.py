"""Checks and tidies the messages of a request, before a template sees them.

Messages have OpenAI's shape: `role`, `content` (text, or a list of parts), and for tools `tool_calls` and
`tool_call_id`. Keys that are not known are passed on, since a template may read them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from quipu.errors import InvalidRequestError

ROLES = ("system", "developer", "user", "assistant", "tool", "function")

Message = dict[str, Any]


def check_messages(
    messages: Sequence[Mapping[str, Any]], knows_role: Callable[[str], bool] | None = None
) -> list[Message]:
    """Check a conversation and return new messages; the caller's own are not changed.

    Keys whose value is None are dropped, except an assistant's `content`: templates tell apart None and no key.

    Args:
        messages: the conversation, the oldest first.
        knows_role: tells of roles beyond the usual ones whether the template knows them.

    Raises:
        InvalidRequestError: names the first field that is wrong, such as `messages[2].role`.
    """
    if isinstance(messages, str | bytes) or not isinstance(messages, Sequence):
        raise _error("messages", f"must be a list of messages, not {_kind(messages)}")
    if not messages:
        raise _error("messages", "must hold at least one message")
    return [_check_message(message, f"messages[{i}]", knows_role) for i, message in enumerate(messages)]


def check_tools(tools: Sequence[Mapping[str, Any]] | None) -> list[dict[str, Any]] | None:
    """Check tool definitions: `{"type": "function", "function": {"name", "description", "parameters"}}`.

    Raises:
        InvalidRequestError: names the first field that is wrong, such as `tools[0].function.name`.
    """
    if tools is None:
        return None
    if isinstance(tools, str | bytes) or not isinstance(tools, Sequence):
        raise _error("tools", f"must be a list of tools, not {_kind(tools)}")
    for i, tool in enumerate(tools):
        field = f"tools[{i}]"
        if not isinstance(tool, Mapping):
            raise _error(field, f"must be an object, not {_kind(tool)}")
        if tool.get("type", "function") != "function":
            continue  # a kind of tool that only some templates know, such as code_interpreter
        function = tool.get("function", tool)
        if not isinstance(function, Mapping):
            raise _error(f"{field}.function", f"must be an object, not {_kind(function)}")
        _require_text(function.get("name"), f"{field}.function.name")
    return [dict(tool) for tool in tools]


def text_of(content: Any) -> str:
    """The text of checked content. Parts are joined with line ends, as they stand in a request for people to read."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    return "\n".join(part["text"] for part in content)


def map_arguments(messages: list[Message], *, to_object: bool) -> list[Message]:
    """The messages with the arguments of all earlier tool calls as objects, or as JSON text.

    Raises:
        InvalidRequestError: names the arguments that are not JSON.
    """
    mapped = []
    for i, message in enumerate(messages):
        calls = message.get("tool_calls")
        if calls:
            calls = [_map_call(call, f"messages[{i}].tool_calls[{j}]", to_object) for j, call in enumerate(calls)]
            message = {**message, "tool_calls": calls}
        mapped.append(message)
    return mapped


def _map_call(call: dict[str, Any], field: str, to_object: bool) -> dict[str, Any]:
    function = call.get("function", call)
    arguments = function.get("arguments")
    if to_object and isinstance(arguments, str):
        try:
            arguments = json.loads(arguments) if arguments.strip() else {}
        except (ValueError, RecursionError):
            raise _error(f"{field}.function.arguments", "must be JSON") from None
    elif not to_object and isinstance(arguments, Mapping):
        arguments = json.dumps(arguments, ensure_ascii=False)
    function = {**function, "arguments": arguments}
    return {**call, "function": function} if "function" in call else function


def _check_message(message: Any, field: str, knows_role: Callable[[str], bool] | None) -> Message:
    if not isinstance(message, Mapping):
        raise _error(field, f"must be an object with role and content, not {_kind(message)}")
    role = message.get("role")
    is_known = isinstance(role, str) and (role in ROLES or (knows_role is not None and knows_role(role)))
    if not is_known:
        expected = f"must be one of {', '.join(ROLES[:-1])}"
        raise _error(f"{field}.role", f"{expected}, not {role!r}" if role else expected)
    checked = {key: value for key, value in message.items() if value is not None}
    if "tool_calls" in checked:
        checked["tool_calls"] = _check_calls(checked["tool_calls"], f"{field}.tool_calls")
    if "content" in checked:
        checked["content"] = _check_content(checked["content"], f"{field}.content")
    elif role != "assistant" or not any(checked.get(key) for key in ("tool_calls", "function_call", *_REASONING)):
        raise _error(f"{field}.content", "is missing: give a text or a list of parts")
    else:
        checked["content"] = None
    return checked


_REASONING = ("reasoning_content", "reasoning", "thinking")


def _check_content(content: Any, field: str) -> str | list[dict[str, Any]]:
    if isinstance(content, str):
        return content
    if not isinstance(content, list | tuple):
        raise _error(field, f"must be a text or a list of parts, not {_kind(content)}")
    parts = []
    for i, part in enumerate(content):
        if isinstance(part, str):
            part = {"type": "text", "text": part}
        if not isinstance(part, Mapping):
            raise _error(f"{field}[{i}]", f"must be an object, not {_kind(part)}")
        kind = part.get("type", "text" if "text" in part else None)
        if kind != "text":
            raise _error(f"{field}[{i}].type", f"must be 'text', not {kind!r}: this model reads text only")
        if not isinstance(part.get("text"), str):
            raise _error(f"{field}[{i}].text", f"must be a text, not {_kind(part.get('text'))}")
        parts.append({**part, "type": "text"})
    return parts


def _check_calls(calls: Any, field: str) -> list[dict[str, Any]]:
    if not isinstance(calls, list | tuple):
        raise _error(field, f"must be a list, not {_kind(calls)}")
    checked = []
    for i, call in enumerate(calls):
        if not isinstance(call, Mapping):
            raise _error(f"{field}[{i}]", f"must be an object, not {_kind(call)}")
        function = call.get("function", call)
        if not isinstance(function, Mapping):
            raise _error(f"{field}[{i}].function", f"must be an object, not {_kind(function)}")
        _require_text(function.get("name"), f"{field}[{i}].function.name")
        if not isinstance(function.get("arguments", ""), str | Mapping):
            kind = _kind(function["arguments"])
            raise _error(f"{field}[{i}].function.arguments", f"must be JSON text or an object, not {kind}")
        checked.append(dict(call))
    return checked


def _require_text(value: Any, field: str) -> None:
    if not isinstance(value, str) or not value:
        raise _error(field, f"must be a text that is not empty, not {_kind(value)}")


def _kind(value: Any) -> str:
    """A value's type in the words of JSON."""
    names: tuple[tuple[type | tuple[type, ...], str], ...] = (
        (bool, "a truth value"),
        (str, "a text" if value else "an empty text"),
        ((int, float), "a number"),
        ((list, tuple), "a list"),
        (Mapping, "an object"),
    )
    if value is None:
        return "null"
    return next((name for kind, name in names if isinstance(value, kind)), type(value).__name__)


def _error(field: str, problem: str) -> InvalidRequestError:
    return InvalidRequestError(f"{field} {problem}", field=field)
