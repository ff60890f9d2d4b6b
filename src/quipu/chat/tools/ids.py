"""The ids that link a tool call with the message that holds its result.

Most templates print ids or leave them out. Some insist on nine letters and digits (Mistral), and Kimi's ids are made
of the tool's name and a number.
"""

from __future__ import annotations

import hashlib
import string
import uuid
from collections.abc import Callable
from enum import Enum
from itertools import count
from typing import Any

from quipu.chat.messages import Message

_ALPHABET = string.digits + string.ascii_letters
_NINE = 9


class CallIds(Enum):
    """What a template takes as the id of a call."""

    ANY = "any"
    NINE = "nine letters and digits"
    NUMBERED = "the tool's name and the number of the call in its message"

    def generator(self) -> Callable[[str], str]:
        """What makes the ids of one answer's calls, each from the tool's name."""
        numbers = count()

        def new_id(name: str) -> str:
            if self is CallIds.NUMBERED:
                return f"functions.{name}:{next(numbers)}"
            if self is CallIds.NINE:
                return _nine_of(uuid.uuid4().hex)
            return f"call_{uuid.uuid4().hex[:24]}"

        return new_id

    def fit(self, messages: list[Message]) -> list[Message]:
        """The messages with every call and result named, in the form that the template takes.

        A result without an id belongs to the first call that has none yet. The name of the tool is put beside each
        result, for templates that show it.
        """
        names: dict[str, str] = {}  # of the tools called, by the id that the template sees
        renamed: dict[str, str] = {}
        waiting: list[str] = []
        fitted = []
        for message in messages:
            if message.get("tool_calls"):
                calls = []
                waiting = []
                for number, call in enumerate(message["tool_calls"]):
                    given, name = call.get("id"), call.get("function", call)["name"]
                    call_id = self._fitted_id(given, name, number, f"call_{len(names)}")
                    if isinstance(given, str):
                        renamed[given] = call_id
                    names[call_id] = name
                    waiting.append(call_id)
                    calls.append({**call, "id": call_id})
                message = {**message, "tool_calls": calls}
            elif message["role"] == "tool":
                message = _fit_result(message, names, renamed, waiting)
            fitted.append(message)
        return fitted

    def _fitted_id(self, given: Any, name: str, number: int, missing: str) -> str:
        if self is CallIds.NUMBERED:
            return f"functions.{name}:{number}"
        if not isinstance(given, str) or not given:
            given = missing
        is_nine = len(given) == _NINE and all(char in _ALPHABET for char in given)
        return _nine_of(given) if self is CallIds.NINE and not is_nine else given


def _fit_result(message: Message, names: dict[str, str], renamed: dict[str, str], waiting: list[str]) -> Message:
    given = message.get("tool_call_id")
    call_id = renamed.get(given, given) if isinstance(given, str) else None
    if call_id is None and waiting:
        call_id = waiting[0]
    if call_id in waiting:
        waiting.remove(call_id)
    if call_id is None:
        return message
    named = {"name": names[call_id]} if call_id in names else {}
    return {**named, **message, "tool_call_id": call_id}


def _nine_of(text: str) -> str:
    """Nine letters and digits that stand for a text."""
    number = int.from_bytes(hashlib.sha256(text.encode("utf-8", "replace")).digest()[:8], "big")
    digits = []
    for _ in range(_NINE):
        number, digit = divmod(number, len(_ALPHABET))
        digits.append(_ALPHABET[digit])
    return "".join(digits)
