"""Regular expressions: what is checked before the library sees them.

They are matched by derivatives, so nothing backtracks; look-around and back references are refused by the library.
"""

from __future__ import annotations

from quipu.chat.constraints.limits import ConstraintLimits
from quipu.chat.constraints.schema import pattern_problem
from quipu.errors import InvalidRequestError

_SPECIAL = frozenset("\\.+*?()|[]{}^$#&-~/")
_CONTROLS = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def check_regex(pattern: str, limits: ConstraintLimits, field: str) -> str:
    """The expression as the library takes it: matched from end to end, without anchors that say so.

    Raises:
        InvalidRequestError: it is empty, nested too deeply, or repeats something too often.
    """
    problem = pattern_problem(pattern, limits)
    if pattern.startswith("^"):
        pattern = pattern[1:]
    if pattern.endswith("$") and (len(pattern) - len(pattern[:-1].rstrip("\\"))) % 2 == 1:
        pattern = pattern[:-1]
    if not pattern:
        problem = "it is empty; write what the answer must match"
    if problem:
        raise InvalidRequestError(f"{field}: {problem}", field=field)
    return pattern


def escaped(text: str) -> str:
    """An expression that matches exactly `text`."""
    parts = []
    for character in text:
        if character in _SPECIAL:
            parts.append("\\" + character)
        elif character < " " or character == "\x7f":
            parts.append(_CONTROLS.get(character, f"\\x{ord(character):02X}"))
        else:
            parts.append(character)
    return "".join(parts)
