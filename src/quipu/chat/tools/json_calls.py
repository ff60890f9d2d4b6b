"""Calls that are JSON objects with a name and arguments, between marks: most families.

    <tool_call>
    {"name": "get_weather", "arguments": {"city": "Rome"}}
    </tool_call>

What differs is the marks, the names of the keys, and whether several calls are a list or follow one another.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from quipu.chat.tools.calls import Calls
from quipu.chat.tools.definitions import Tool
from quipu.chat.tools.format import ToolFormat
from quipu.chat.tools.lark import Lark
from quipu.chat.tools.reader import NotACallError, Reader, Wait
from quipu.chat.tools.schemas import closed
from quipu.chat.tools.values import read_text, read_value, transcode

# All that models use, whatever their own family's are.
_NAME_KEYS = ("name", "tool_name", "function", "function_name")
_ARGUMENT_KEYS = ("arguments", "parameters", "args")
_ID_KEYS = ("id", "tool_call_id", "call_id")


@dataclass(frozen=True)
class JsonFormat(ToolFormat):
    """A family whose calls are JSON objects.

    Attributes:
        name, openings, first_openings, markers: as in `ToolFormat`. The grammar writes the first opening.
        closings: texts that may end the calls.
        name_key, arguments_key: what the family calls them.
        is_list: several calls stand in a list; else they follow one another.
        holds_all: one pair of marks holds all calls; else each has its own.
        id_before, id_after: the key of an id that may stand before the name, or after the arguments.
        needs_known_name: only a call of an offered tool is one.
        keeps_id: an id that the model writes before the arguments is the call's.
    """

    name: str
    openings: tuple[str, ...]
    closings: tuple[str, ...] = ()
    first_openings: tuple[str, ...] = ()
    markers: tuple[str, ...] = ()
    name_key: str = "name"
    arguments_key: str = "arguments"
    is_list: bool = False
    holds_all: bool = False
    id_before: str = ""
    id_after: str = ""
    needs_known_name: bool = False
    keeps_id: bool = False

    def read(self, opening: str, reader: Reader, calls: Calls) -> Wait[None]:
        yield from reader.space()
        bracket = opening[-1:] if opening.endswith(("{", "[")) else (yield from reader.expect("{", "["))
        if bracket == "[":
            yield from read_list(reader, calls, self)
        else:
            yield from read_object(reader, calls, self)
            yield from self._read_more(reader, calls)
        yield from reader.space()
        if self.closings:
            yield from reader.match(self.closings)
            yield from reader.space()

    def writes(self, text: str) -> bool:
        openings = [opening for opening in (*self.openings, *self.first_openings) if opening in text]
        after = text.partition(openings[0])[2].lstrip() if openings else ""
        is_list = after.startswith("[") or any(opening.endswith("[") for opening in openings[:1])
        return is_list == self.is_list

    def _read_more(self, reader: Reader, calls: Calls) -> Wait[None]:
        """Further objects after the first, with nothing but white space, a comma or a semicolon between them."""
        while True:
            yield from reader.space()
            yield from reader.match((",", ";"))
            yield from reader.space()
            if not (yield from reader.match(("{",))):
                return
            yield from read_object(reader, calls, self)

    def write_grammar(self, lark: Lark, tools: Sequence[Tool], is_parallel: bool) -> str:
        call = lark.rule("call", self.call_grammar(lark, tools))
        begin = f"{lark.text(self.openings[0])} {lark.space()}"
        end = f"{lark.space()} {lark.text(self.closings[0])}" if self.closings else ""
        if self.is_list:
            more = f' ("," {lark.space()} {call})*' if is_parallel else ""
            bracket = "" if self.openings[0].endswith("[") else '"["'
            return f'{begin} {bracket} {lark.space()} {call}{more} {lark.space()} "]" {end}'
        if self.holds_all:
            more = f" ({lark.space()} {call})*" if is_parallel else ""
            return f"{begin} {call}{more} {end}"
        marked = lark.rule("marked_call", f"{begin} {call} {end}")
        return f"{marked} ({lark.space()} {marked})*" if is_parallel else marked

    def call_grammar(self, lark: Lark, tools: Sequence[Tool]) -> str:
        """The object of one call."""
        space = lark.space()
        call_id = lark.shared("CALL_ID", '/"[A-Za-z0-9_-]{1,64}"/') if self.id_before or self.id_after else ""
        before = f'({_key(lark, self.id_before)} {call_id} {space} "," {space})?' if self.id_before else ""
        after = f'("," {space} {_key(lark, self.id_after)} {call_id} {space})?' if self.id_after else ""
        options = []
        for tool in tools:
            name = f"{_key(lark, self.name_key)} {lark.text(json.dumps(tool.name, ensure_ascii=False))}"
            arguments = f"{_key(lark, self.arguments_key)} {lark.json(closed(tool.parameters))}"
            options.append(f'"{{" {space} {before} {name} {space} "," {space} {arguments} {space} {after} "}}"')
        return "\n    | ".join(options)

    def read_call(self, reader: Reader, calls: Calls) -> Wait[None]:
        """Read a call after its opening bracket."""
        yield from read_keys(reader, calls, _Call(self))


def _key(lark: Lark, name: str) -> str:
    return f'{lark.text(json.dumps(name))} {lark.space()} ":" {lark.space()}'


def read_list(reader: Reader, calls: Calls, family: JsonFormat) -> Wait[None]:
    """Read calls after the bracket that opens their list. A list that ends early is none of the calls' business."""
    while True:
        yield from reader.space()
        if (yield from reader.match(("]",))):
            return
        yield from reader.match((",",))
        yield from reader.space()
        if not (yield from reader.match(("{",))):
            return
        yield from read_object(reader, calls, family)


def read_object(reader: Reader, calls: Calls, family: JsonFormat) -> Wait[None]:
    """Read a call after its opening bracket; what follows the last whole call is dropped."""
    yield from family.read_call(reader, calls)
    calls.drop_text()


class _Call:
    """What is known of a call whose object is being read."""

    def __init__(self, family: JsonFormat) -> None:
        self.family = family
        self.name: str | None = None
        self.id = ""
        self.arguments: str | None = None  # those that came before the name
        self.is_whole = False

    def start(self, calls: Calls) -> None:
        assert self.name is not None
        if self.family.needs_known_name and self.name not in calls.tools:
            raise NotACallError
        calls.start(self.name, self.id if self.family.keeps_id else "")


def read_keys(reader: Reader, calls: Calls, call: _Call, depth: int = 0) -> Wait[None]:
    """Read the keys and values of a call's object, up to its closing bracket."""
    is_first = True
    while True:
        yield from reader.space()
        if (yield from reader.match(("}",))):
            break
        if not is_first:
            yield from reader.expect(",")
            yield from reader.space()
            if (yield from reader.match(("}",))):
                break
        is_first = False
        key = yield from read_text(reader, max_chars=64)
        yield from reader.space()
        yield from reader.expect(":")
        yield from reader.space()
        yield from _read_member(reader, calls, call, key, depth)
    if depth == 0:
        _finish(calls, call)


def _read_member(reader: Reader, calls: Calls, call: _Call, key: str, depth: int) -> Wait[None]:
    """Read the value of one key."""
    char = yield from reader.peek()
    if key == "function" and char == "{" and depth == 0:  # OpenAI's own shape
        reader.skip(1)
        yield from read_keys(reader, calls, call, depth + 1)
    elif key in _NAME_KEYS and call.name is None:
        call.name = yield from read_text(reader, max_chars=256)
        if call.family.needs_known_name and call.name not in calls.tools:
            raise NotACallError
        if call.arguments is not None:
            call.start(calls)
            calls.add(call.arguments)
            calls.end()
            call.is_whole = True
    elif key in _ARGUMENT_KEYS and not call.is_whole and call.arguments is None:
        yield from _read_arguments(reader, calls, call)
    elif key in _ID_KEYS and char in ('"', "'"):
        call.id = yield from read_text(reader, max_chars=256)
    elif call.family.needs_known_name and key not in ("type", "index", *_ID_KEYS):
        raise NotACallError  # some other object that happens to stand here
    else:
        yield from read_value(reader, lambda text: None)


def _read_arguments(reader: Reader, calls: Calls, call: _Call) -> Wait[None]:
    """Read the arguments: an object, the text of one, or null."""
    if (yield from reader.peek()) == "{":
        if call.name is not None:
            call.start(calls)
            yield from read_value(reader, calls.add)
            calls.end()
            call.is_whole = True
            return
        pieces: list[str] = []
        yield from read_value(reader, pieces.append)
        call.arguments = "".join(pieces)
        return
    pieces = []
    yield from read_value(reader, pieces.append)
    value = json.loads("".join(pieces))
    text = "{}" if value is None else transcode(value) if isinstance(value, str) else None
    if text is None or not text.startswith("{"):
        raise NotACallError
    call.arguments = text
    if call.name is not None:
        call.start(calls)
        calls.add(text)
        calls.end()
        call.is_whole = True


def _finish(calls: Calls, call: _Call) -> None:
    """What is left to do at the closing bracket."""
    if call.is_whole:
        return
    if call.name is None or (call.arguments is None and call.family.needs_known_name):
        raise NotACallError
    call.start(calls)
    calls.add(call.arguments or "{}")
    calls.end()


# The first of several openings is what the family writes. Sources: the templates of the models and their cards.
HERMES = JsonFormat("hermes", ("<tool_call>",), ("</tool_call>",), markers=("<tool_call>", "</tool_call>"))
MINIMAX_M1 = JsonFormat(
    "minimax-m1",
    ("<tool_calls>",),
    ("</tool_calls>",),
    markers=("<tool_calls>", "</tool_calls>"),
    holds_all=True,
)
APRIEL = JsonFormat(
    "apriel",
    ("<tool_calls>",),
    ("</tool_calls>",),
    markers=("<tool_calls>", "</tool_calls>"),
    is_list=True,
    id_after="id",
)
GRANITE = JsonFormat("granite", ("<|tool_call|>",), markers=("<|tool_call|>",), is_list=True)
PHI = JsonFormat(
    "phi",
    ("<|tool_call|>",),
    ("<|/tool_call|>",),
    markers=("<|tool_call|>", "<|/tool_call|>"),
    is_list=True,
)
FIREFUNCTION = JsonFormat("firefunction", ("functools[",), is_list=True)
MISTRAL_LIST = JsonFormat("mistral-list", ("[TOOL_CALLS]",), markers=("[TOOL_CALLS]",), is_list=True, id_after="id")
COHERE = JsonFormat(
    "cohere",
    ("<|START_ACTION|>",),
    ("<|END_ACTION|>",),
    markers=("<|START_ACTION|>", "<|END_ACTION|>"),
    name_key="tool_name",
    arguments_key="parameters",
    is_list=True,
    id_before="tool_call_id",
)
COHERE_ACTION = JsonFormat(
    "cohere-action",
    ("Action:\n```json\n", "Action: ```json\n"),
    ("```",),
    name_key="tool_name",
    arguments_key="parameters",
    is_list=True,
    needs_known_name=True,
)
GIGACHAT = JsonFormat(
    "gigachat",
    ("<|message_sep|>\n\nfunction call<|role_sep|>\n", "function call<|role_sep|>\n"),
    markers=("<|message_sep|>", "<|role_sep|>"),
)
LFM2_JSON = JsonFormat(
    "lfm2-json",
    ("<|tool_call_start|>",),
    ("]<|tool_call_end|>", "<|tool_call_end|>"),
    markers=("<|tool_call_start|>", "<|tool_call_end|>"),
    is_list=True,
)
GENERIC = JsonFormat(
    "generic",
    ("<tool_call>", "```json\n"),
    ("</tool_call>", "```"),
    first_openings=("{", "["),
    markers=("<tool_call>", "</tool_call>"),
    needs_known_name=True,
)
