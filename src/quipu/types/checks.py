"""Checks of the values that a caller gave."""

from __future__ import annotations

import math
from enum import StrEnum
from typing import TypeVar

from quipu.errors import InvalidRequestError

Member = TypeVar("Member", bound=StrEnum)


def is_number(value: object) -> bool:
    """Whether it is a finite number; `True` is none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def is_whole(value: object) -> bool:
    """Whether it is a whole number; `True` is none."""
    return isinstance(value, int) and not isinstance(value, bool)


def require(condition: bool, field_name: str, expected: str, value: object) -> None:
    """
    Raises:
        InvalidRequestError: unless `condition`: `field_name` must be what is `expected`, not `value`.
    """
    if not condition:
        raise InvalidRequestError(f"{field_name} must be {expected}, not {value!r}", field=field_name)


def member(kind: type[Member], value: object, field_name: str) -> Member:
    """The member of an enumeration that a caller named.

    Raises:
        InvalidRequestError: it has none of that name.
    """
    names = [one.value for one in kind]
    if not isinstance(value, str) or value not in names:
        raise InvalidRequestError(f"{field_name} must be one of {', '.join(names)}, not {value!r}", field=field_name)
    return kind(value)
