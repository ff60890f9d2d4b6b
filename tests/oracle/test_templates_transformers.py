"""Every chat template there is, rendered by transformers and by us: the same bytes, or both refuse.

Where transformers refuses and we do not, the template changes a list, which transformers' sandbox forbids.
"""

from __future__ import annotations

import itertools
import os
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from quipu.chat.render import CompiledTemplate
from quipu.errors import TemplateError

transformers_templates = pytest.importorskip(
    "transformers.utils.chat_template_utils", reason="transformers is not installed; `make oracle` installs it"
)

NOW = datetime(2025, 3, 9, 14, 5, 6)
MAY_CHANGE_LISTS = {"Kimi-K2-Instruct", "Kimi-K2-Thinking"}


class FixedClock(datetime):
    @classmethod
    def now(cls, tz: Any = None) -> FixedClock:
        return cls(2025, 3, 9, 14, 5, 6)


def template_paths() -> list[Path]:
    folders = [Path(__file__).parent.parent / "data" / "templates"]
    if os.environ.get("QUIPU_TEST_DATA"):
        folders.append(Path(os.environ["QUIPU_TEST_DATA"]) / "templates")
    return sorted({path.name: path for folder in folders for path in folder.glob("*.jinja")}.values())


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def assistant(content: Any, **others: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **others}


def tool(content: Any, call_id: str = "call12345", name: str = "get_weather") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call_id, "name": name, "content": content}


def call(arguments: Any, call_id: str = "call12345", name: str = "get_weather") -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


SYSTEM = {"role": "system", "content": "Be brief & <kind>."}
CITY = {"city": "Zürich", "days": 2}
TEXT_CITY = '{"city": "Zürich", "days": 2}'
TEXT_PART = {"type": "text", "text": "a"}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Weather of a city.",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "description": "Where"},
                    "days": {"type": "integer", "enum": [1, 2]},
                    "options": {"type": "object", "properties": {"unit": {"type": "string"}}},
                    "tags": {"type": "array", "items": {"type": "string"}},
                },
                "required": ["city"],
            },
            "return": {"type": "string"},
        },
    },
    {
        "type": "function",
        "function": {
            "name": "add",
            "description": "Adds é.",
            "parameters": {"type": "object", "properties": {"a": {"type": "number"}}, "required": ["a"]},
        },
    },
]
WEATHER = user("How is the weather?")
TWO_CALLS = [
    WEATHER,
    assistant("", tool_calls=[call(CITY), call({"a": 1}, "call54321", "add")]),
    tool("12"),
    tool("3", "call54321", "add"),
    assistant("It is."),
    user("Thanks"),
]
CONVERSATIONS: dict[str, tuple[list[dict[str, Any]], Any]] = {
    "plain": ([user("Hello <b>'you' & me</b>")], None),
    "system": ([SYSTEM, user("Hi")], None),
    "turns": ([user("One"), assistant("Two"), user("Three\n"), assistant(" Four "), user("Five")], None),
    "system and turns": ([SYSTEM, user("One"), assistant("Two"), user("Three")], None),
    "tags in an answer": ([user("One"), assistant("<think>\nhm\n</think>\n\nTwo"), user("Three")], None),
    "reasoning": ([user("One"), assistant("Two", reasoning_content="because"), user("Three")], None),
    "ends with an answer": ([user("One"), assistant("Two")], None),
    "tools": ([WEATHER], TOOLS),
    "system and tools": ([SYSTEM, WEATHER], TOOLS),
    "call": ([WEATHER, assistant("", tool_calls=[call(CITY)]), tool("12 °C")], TOOLS),
    "call in JSON": ([WEATHER, assistant("", tool_calls=[call(TEXT_CITY)]), tool("12 °C")], TOOLS),
    "call, no content": ([WEATHER, assistant(None, tool_calls=[call(CITY)]), tool("12 °C")], TOOLS),
    "call, no content key": ([WEATHER, {"role": "assistant", "tool_calls": [call(CITY)]}, tool("12 °C")], TOOLS),
    "call and reasoning": (
        [WEATHER, assistant("", tool_calls=[call(CITY)], reasoning_content="let me"), tool("12 °C")],
        TOOLS,
    ),
    "call and answer": (
        [WEATHER, assistant("", tool_calls=[call(CITY)]), tool("12 °C"), assistant("12 degrees"), user("And now?")],
        TOOLS,
    ),
    "two calls": (TWO_CALLS, TOOLS),
    "two calls, no tools": (TWO_CALLS, None),
    "parts": ([user([TEXT_PART, TEXT_PART])], None),
    "parts of all": (
        [{"role": "system", "content": [TEXT_PART]}, user([TEXT_PART]), assistant([TEXT_PART]), user([TEXT_PART])],
        None,
    ),
    "developer": ([{"role": "developer", "content": "dev"}, user("a")], None),
    "no tools": ([user("a")], []),
    "nothing": ([], None),
    "answer first": ([assistant("a"), user("b")], None),
    "two questions": ([user("a"), user("b")], None),
    "unknown role": ([{"role": "stranger", "content": "q"}], None),
    "late system": ([user("a"), assistant("b"), SYSTEM, user("c")], None),
    "empty content": ([user("")], None),
}
VARIABLES: tuple[dict[str, Any], ...] = (
    {},
    {"enable_thinking": False},
    {"enable_thinking": True, "thinking": True, "reasoning_effort": "high"},
)


def transformers_render(source: str, messages: Any, tools: Any, **variables: Any) -> str | None:
    """What transformers makes of it; None where it refuses or fails."""
    try:
        rendered, _ = transformers_templates.render_jinja_template(
            conversations=[messages], tools=tools, chat_template=source, **variables
        )
    except Exception:  # a template may raise anything
        return None
    text: str = rendered[0]
    return text


def our_render(template: CompiledTemplate, messages: Any, tools: Any, **variables: Any) -> str | None:
    try:
        return template.render({"messages": messages, "tools": tools, "documents": None, **variables}, now=NOW)
    except TemplateError:
        return None


@pytest.mark.parametrize("path", template_paths(), ids=lambda path: path.stem)
def test_equal_to_transformers(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transformers_templates, "datetime", FixedClock)
    source = path.read_text(encoding="utf-8")
    template = CompiledTemplate(source)
    num_rendered = 0
    for (name, (messages, tools)), add_generation_prompt, others in itertools.product(
        CONVERSATIONS.items(), (True, False), VARIABLES
    ):
        variables = {"add_generation_prompt": add_generation_prompt, "bos_token": "<s>", "eos_token": "</s>", **others}
        expected = transformers_render(source, messages, tools, **variables)
        actual = our_render(template, messages, tools, **variables)
        num_rendered += expected is not None
        if expected is not None or path.stem not in MAY_CHANGE_LISTS:
            assert actual == expected, (name, variables)
    assert num_rendered >= 6 or path.stem == "fireworks-ai-llama-3-firefunction-v2"  # which needs more variables


@pytest.mark.parametrize("path", template_paths(), ids=lambda path: path.stem)
def test_more_variables_and_continued_messages(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transformers_templates, "datetime", FixedClock)
    source = path.read_text(encoding="utf-8")
    template = CompiledTemplate(source)
    tokens = {"bos_token": "<s>", "eos_token": "</s>", "add_generation_prompt": True}
    for messages, tools in CONVERSATIONS.values():
        variables = {**tokens, "functions": "[]", "datetime": "today", "documents": [{"title": "t", "text": "d"}]}
        expected = transformers_render(source, messages, tools or [], **variables)
        if expected is not None:
            assert our_render(template, messages, tools or [], **variables) == expected
