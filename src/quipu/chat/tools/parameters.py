"""Arguments that models write one by one between tags, rather than as JSON.

Whether a text is a text or JSON, the tool's schema decides; where it says nothing, what parses as JSON is JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from quipu.chat.tools.calls import Calls
from quipu.chat.tools.definitions import Tool
from quipu.chat.tools.lark import Lark
from quipu.chat.tools.reader import SPACE, NotACallError, Reader, Wait
from quipu.chat.tools.schemas import strings_of
from quipu.chat.tools.values import escaped, transcode

_KINDS: tuple[tuple[type | tuple[type, ...], frozenset[str]], ...] = (
    (bool, frozenset(("boolean",))),
    (int, frozenset(("integer", "number"))),
    (float, frozenset(("number",))),
    (str, frozenset(("string",))),
    (list, frozenset(("array",))),
    (dict, frozenset(("object",))),
)


class Arguments:
    """Makes one JSON object of arguments that come one by one.

    Args:
        calls: takes its pieces, for the call that has begun.
        tool: the one that is called; None where it was not offered.
    """

    def __init__(self, calls: Calls, tool: Tool | None) -> None:
        self._calls = calls
        self._tool = tool
        self._names: set[str] = set()

    def close(self) -> None:
        """All arguments have come."""
        self._calls.add("}" if self._names else "{}")
        self._calls.end()

    def read(
        self, reader: Reader, name: str, end: str, followers: Sequence[str], *, is_padded: bool, is_text: bool | None
    ) -> Wait[None]:
        """Read an argument and what ends it.

        Args:
            reader: stands at its beginning.
            name: of the parameter.
            end: the tag that ends it.
            followers: what may stand behind that tag, after white space. Where nothing of it does, the tag is part of
                a text.
            is_padded: a line end at the beginning and one at the end are none of the argument.
            is_text: the model has said whether it is a text (True) or JSON (False); None: it has not.

        Raises:
            NotACallError: the text ends before it does, or the model has repeated a parameter.
        """
        if not name or name in self._names:
            raise NotACallError
        if is_padded:
            yield from reader.match(("\n", "\r\n"))
        types = self._tool.types_of(name) if self._tool is not None else frozenset()
        if is_text is None and types == {"string"}:
            is_text = True
        key = f'{", " if self._names else "{"}"{escaped(name)}": '
        self._names.add(name)
        value = _Value(self._calls if is_text else None, key, is_padded)
        while True:
            if not (yield from reader.until((end,), value.add)):
                raise NotACallError
            space = yield from reader.space()
            if (yield from _is_next(reader, followers)):
                break
            value.add(end + space)
        text = value.end()
        if is_text:
            return
        self._calls.add(key + _json_of(text, types))


class _Value:
    """The text of an argument: passed on as a JSON string at once, or kept."""

    def __init__(self, calls: Calls | None, key: str, is_padded: bool) -> None:
        self._calls = calls
        self._is_padded = is_padded
        self._kept: list[str] = []
        self._line_end = ""
        if calls is not None:
            calls.add(key + '"')

    def add(self, text: str) -> None:
        if self._is_padded:  # a line end at the end is held back, since it may be the last
            text = self._line_end + text
            body = text.removesuffix("\n").removesuffix("\r") if text.endswith("\n") else text.removesuffix("\r")
            text, self._line_end = body, text[len(body) :]
        if self._calls is not None:
            self._calls.add(escaped(text))
        else:
            self._kept.append(text)

    def end(self) -> str:
        if self._line_end == "\r":  # half of one is none
            self._is_padded = False
            self.add("\r")
        if self._calls is not None:
            self._calls.add('"')
        return "".join(self._kept)


def write_value(lark: Lark, schema: Mapping[str, Any], root: Mapping[str, Any], types: frozenset[str], end: str) -> str:
    """The grammar of an argument and the tag that ends it. Of texts, only those that a schema lists are bound.

    Args:
        lark: takes the rules.
        schema: of the argument.
        root: the schema that local references point into.
        types: that the argument may have.
        end: the tag, with white space that belongs to it.
    """
    if strings := strings_of(schema, root):
        others = [] if types == {"string"} else [f"{lark.json(_listed_others(schema))}"]
        return f"{lark.any_of(*map(lark.text, strings), *others)} {lark.text(end)}"
    if not types or "string" in types:
        return lark.up_to(end)
    return f"{lark.json(schema)} {lark.text(end)}"


def _listed_others(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    return {**schema, "enum": [value for value in schema.get("enum", ()) if not isinstance(value, str)]}


def _is_next(reader: Reader, followers: Sequence[str]) -> Wait[bool]:
    """Whether one of the texts comes next; it is not read. At the end of the text, that counts as one."""
    for num_chars in range(1, max(map(len, followers)) + 1):
        text = yield from reader.wait_for(num_chars)
        if len(text) < num_chars or text in followers:
            return (len(text) < num_chars and not text) or text in followers
        if not any(follower.startswith(text) for follower in followers):
            return False
    return False


def _json_of(text: str, types: frozenset[str]) -> str:
    """An argument that may be JSON, as JSON: it is where it parses and has one of the types."""
    value = transcode(text)
    if value is not None and (not types or not types.isdisjoint(_kinds(json.loads(value)))):
        return value
    if "boolean" in types and text.strip(SPACE).lower() in ("true", "false"):
        return text.strip(SPACE).lower()
    if value is not None and "string" not in types:
        return value  # not what the schema says, but for the tool to refuse
    return f'"{escaped(text)}"'


def _kinds(value: Any) -> frozenset[str]:
    return next((kinds for kind, kinds in _KINDS if isinstance(value, kind)), frozenset(("null",)))
