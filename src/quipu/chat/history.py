"""Earlier tool calls and their results, and definitions of tools, in the form that a template can show."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quipu.chat.messages import Message

_MAX_DEPTH = 20  # of schemas; what lies deeper stays as it is


def split_calls(messages: list[Message]) -> list[Message]:
    """The messages with each tool call in a message of its own, followed by its result.

    What an answer said beside its calls stays with the first. Every call has an id already.
    """
    split: list[Message] = []
    i = 0
    while i < len(messages):
        message = messages[i]
        i += 1
        calls = message.get("tool_calls") or ()
        if len(calls) < 2:
            split.append(message)
            continue
        results: list[Message] = []
        while i < len(messages) and messages[i]["role"] == "tool":
            results.append(messages[i])
            i += 1
        for number, call in enumerate(calls):
            split.append({**message, "tool_calls": [call]} if number == 0 else _without_text(message, call))
            of_call = [result for result in results if result.get("tool_call_id") == call["id"]]
            split += of_call
            results = [result for result in results if result not in of_call]
        split += results
    return split


def complete(tools: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The definitions with everything that some templates read although it may be missing.

    That is an empty description of each tool and parameter, and of objects and lists what they hold: anything.
    """
    return [_completed(tool) for tool in tools]


def _without_text(message: Message, call: Mapping[str, Any]) -> Message:
    return {"role": message["role"], "content": None, "tool_calls": [dict(call)]}


def _completed(tool: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(tool.get("function"), Mapping):
        return tool
    function = {"description": "", **tool["function"]}
    parameters = _completed_schema({"type": "object", **(function.get("parameters") or {})}, _MAX_DEPTH)
    parameters["properties"] = {
        name: {"description": "", **schema} if isinstance(schema, Mapping) else schema
        for name, schema in parameters.get("properties", {}).items()
    }
    return {**tool, "function": {**function, "parameters": parameters}}


def _completed_schema(schema: Mapping[str, Any], depth: int) -> dict[str, Any]:
    completed = dict(schema)
    if depth == 0:
        return completed
    if schema.get("type") == "object" and not isinstance(schema.get("additionalProperties"), Mapping):
        completed["additionalProperties"] = {}
    if schema.get("type") == "array" and not isinstance(schema.get("items"), Mapping):
        completed["items"] = {}
    for key in ("items", "additionalProperties"):
        if isinstance(completed.get(key), Mapping):
            completed[key] = _completed_schema(completed[key], depth - 1)
    if isinstance(schema.get("properties"), Mapping):
        completed["properties"] = {
            name: _completed_schema(part, depth - 1) if isinstance(part, Mapping) else part
            for name, part in schema["properties"].items()
        }
    return completed
