"""Conversations and templates that several tests of chat share."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

TEMPLATES = Path(__file__).parent.parent / "data" / "templates"


def template_paths() -> list[Path]:
    """All templates there are: those in the repository, and those that QUIPU_TEST_DATA adds."""
    folders = [TEMPLATES]
    if os.environ.get("QUIPU_TEST_DATA"):
        folders.append(Path(os.environ["QUIPU_TEST_DATA"]) / "templates")
    return sorted({path.name: path for folder in folders for path in folder.glob("*.jinja")}.values())


def read_template(stem: str) -> str:
    """The text of a template in the repository."""
    return (TEMPLATES / f"{stem}.jinja").read_text(encoding="utf-8")


def system(text: str) -> dict[str, Any]:
    return {"role": "system", "content": text}


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def assistant(content: Any, **others: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **others}


WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "Where, e.g. <Zürich>"},
                "days": {"type": "integer", "enum": [1, 2]},
                "tags": {"type": "array", "items": {"type": "string"}},
            },
            "required": ["city"],
        },
    },
}
ADD: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Adds two numbers & says so.",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "number"}, "b": {"type": "number"}},
            "required": ["a", "b"],
        },
    },
}
TOOLS = [WEATHER, ADD]


def call(arguments: Any, *, name: str = "get_weather", call_id: str = "call12345") -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def result(content: str, *, name: str = "get_weather", call_id: str = "call12345") -> dict[str, Any]:
    return {"role": "tool", "name": name, "tool_call_id": call_id, "content": content}


def tool_history(content: Any, *, text_arguments: bool = False) -> list[dict[str, Any]]:
    """A question, a call, and what the tool said."""
    arguments: Any = {"city": "Zürich", "days": 2}
    if text_arguments:
        arguments = json.dumps(arguments, ensure_ascii=False)
    return [user("How is the weather?"), assistant(content, tool_calls=[call(arguments)]), result("12 °C")]
