"""Llama 3.x: a bare JSON object at the start of the answer, or a call after the token `<|python_tag|>`.

{"name": "get_weather", "parameters": {"city": "Rome"}}
<|python_tag|>brave_search.call(query="the weather in Rome")
<|python_tag|>print(1 + 1)
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from quipu.chat.tools.calls import Calls
from quipu.chat.tools.definitions import Tool
from quipu.chat.tools.json_calls import JsonFormat
from quipu.chat.tools.lark import Lark
from quipu.chat.tools.pythonic import read_keyword_arguments
from quipu.chat.tools.reader import NotACallError, Reader, Wait
from quipu.chat.tools.values import escaped

_PYTHON_TAG = "<|python_tag|>"
_CODE_TOOLS = ("python", "code_interpreter", "ipython")  # the names under which callers offer an interpreter
_END = "<|eom_id|>"
_MAX_TRIGGERS = 64  # of one constraint


class LlamaFormat(JsonFormat):
    """What has no mark is a call only if it names a tool that was offered."""

    def read(self, opening: str, reader: Reader, calls: Calls) -> Wait[None]:
        if opening != _PYTHON_TAG:
            yield from super().read(opening, reader, calls)
            return
        space = yield from reader.space()
        if (yield from reader.peek()) == "{":
            yield from super().read(opening, reader, calls)
            return
        name = yield from reader.match([f"{name}.call(" for name in calls.tools])
        if name:
            calls.start(name.removesuffix(".call("))
            yield from read_keyword_arguments(reader, calls)
            yield from reader.space()
            return
        yield from _read_code(reader, calls, space)

    def write_grammar(self, lark: Lark, tools: Sequence[Tool], is_parallel: bool) -> str:
        call = lark.rule("call", self.call_grammar(lark, tools))
        more = f' (";" {lark.space()} {call})*' if is_parallel else ""
        return f"({lark.text(_PYTHON_TAG)})? {call}{more}"

    def triggers(self, tools: Sequence[Tool]) -> tuple[str, ...]:
        """Braces begin many answers, so only the whole name of a tool is certain."""
        if len(tools) > _MAX_TRIGGERS:
            return ('{"name": "',)
        return tuple(f'{{"name": {json.dumps(tool.name, ensure_ascii=False)}' for tool in tools)


def _read_code(reader: Reader, calls: Calls, space: str) -> Wait[None]:
    """Read code for the interpreter, up to the end of the answer."""
    tool = next((calls.tools[name] for name in _CODE_TOOLS if name in calls.tools), None)
    if tool is None or not (yield from reader.peek()):
        raise NotACallError
    properties = tool.parameters.get("properties")
    key = next(iter(properties), "code") if isinstance(properties, dict) else "code"
    calls.start(tool.name)
    calls.add(f'{{"{escaped(key)}": "{escaped(space)}')
    yield from reader.until((_END,), lambda text: calls.add(escaped(text)))
    calls.add('"}')
    calls.end()


LLAMA = LlamaFormat(
    "llama",
    (_PYTHON_TAG,),
    first_openings=("{",),
    markers=(_PYTHON_TAG,),
    arguments_key="parameters",
    needs_known_name=True,
)
