"""Reading the hyper-parameters of a model: keys of one architecture, with type and range checks."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from quipu.errors import ModelFileError
from quipu.gguf.cursor import NestedArray
from quipu.gguf.metadata import describe_value, shorten
from quipu.gguf.values import StringArray

ARCHITECTURE_KEY = "general.architecture"

Element = TypeVar("Element")
Default = TypeVar("Default")

_REQUIRED: Any = object()


class ModelKeys:
    """Typed access to metadata. Names are relative: `block_count` is the key `{architecture}.block_count`.

    Every method raises ModelFileError, naming the key, if the value is missing and no default is given, is of another
    kind, or is out of range. Integers of any width are taken; where a float is asked for, an integer is taken too.

    Attributes:
        metadata: all keys and values.
        architecture: the value of `general.architecture`.
        path: the file's name, for error messages.
    """

    def __init__(self, metadata: Mapping[str, Any], *, path: object = "the model file") -> None:
        """
        Args:
            metadata: all keys and values, for example `GGUFReader.metadata`.
            path: what to call the file in error messages.

        Raises:
            ModelFileError: there is no architecture.
        """
        self.metadata = metadata
        self.path = path
        self.architecture = self._get(ARCHITECTURE_KEY, _to_text, _REQUIRED)
        if not self.architecture:
            raise ModelFileError(f"{path}: {ARCHITECTURE_KEY} is empty; convert the model again")

    def key(self, name: str) -> str:
        """The full key of `name`."""
        return f"{self.architecture}.{name}"

    def __contains__(self, name: str) -> bool:
        return self.key(name) in self.metadata

    def integer(
        self, name: str, default: Default = _REQUIRED, *, minimum: int = 0, maximum: int = 2**31 - 1
    ) -> int | Default:
        """A whole number from `minimum` to `maximum`."""

        def convert(value: Any) -> int:
            return _in_range(_to_integer(value), minimum, maximum)

        return self._get(self.key(name), convert, default)

    def number(
        self,
        name: str,
        default: Default = _REQUIRED,
        *,
        minimum: float = -math.inf,
        maximum: float = math.inf,
    ) -> float | Default:
        """A finite number from `minimum` to `maximum`."""

        def convert(value: Any) -> float:
            return _in_range(_to_float(value), minimum, maximum)

        return self._get(self.key(name), convert, default)

    def flag(self, name: str, default: Default = _REQUIRED) -> bool | Default:
        """A truth value."""
        return self._get(self.key(name), _to_flag, default)

    def text(self, name: str, default: Default = _REQUIRED) -> str | Default:
        """A string."""
        return self._get(self.key(name), _to_text, default)

    def integers(
        self,
        name: str,
        length: int | None = None,
        default: Default = _REQUIRED,
        *,
        minimum: int = 0,
        maximum: int = 2**31 - 1,
    ) -> tuple[int, ...] | Default:
        """Whole numbers, `length` of them; a single number stands for `length` equal ones."""

        def convert(value: Any) -> int:
            return _in_range(_to_integer(value), minimum, maximum)

        return self._get(self.key(name), _sequence_of(convert, length), default)

    def numbers(
        self,
        name: str,
        length: int | None = None,
        default: Default = _REQUIRED,
        *,
        minimum: float = -math.inf,
        maximum: float = math.inf,
    ) -> tuple[float, ...] | Default:
        """Finite numbers, `length` of them; a single number stands for `length` equal ones."""

        def convert(value: Any) -> float:
            return _in_range(_to_float(value), minimum, maximum)

        return self._get(self.key(name), _sequence_of(convert, length), default)

    def flags(self, name: str, length: int | None = None, default: Default = _REQUIRED) -> tuple[bool, ...] | Default:
        """Truth values, `length` of them; a single one stands for `length` equal ones."""
        return self._get(self.key(name), _sequence_of(_to_flag, length), default)

    def _get(self, key: str, convert: Callable[[Any], Element], default: Default) -> Element | Default:
        if key not in self.metadata:
            if default is _REQUIRED:
                raise ModelFileError(f"{self.path}: metadata key {key!r} is missing; use a complete file of this model")
            return default
        value = self.metadata[key]
        try:
            return convert(value)
        except _Unfit as problem:
            raise ModelFileError(
                f"{self.path}: metadata key {shorten(key)} is {describe_value(value)}, but has to be {problem}; the "
                "file is damaged or was converted wrongly, fetch or convert it again"
            ) from None


class _Unfit(Exception):
    """A value is not what was asked for; the text says what was."""


def _to_integer(value: Any) -> int:
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | np.integer):
        raise _Unfit("a whole number")
    return int(value)


def _to_float(value: Any) -> float:
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | float | np.integer | np.floating):
        raise _Unfit("a number")
    number = float(value)
    if not math.isfinite(number):
        raise _Unfit("a finite number")
    return number


def _to_flag(value: Any) -> bool:
    if not isinstance(value, bool | np.bool_):
        raise _Unfit("true or false")
    return bool(value)


def _to_text(value: Any) -> str:
    if not isinstance(value, str):
        raise _Unfit("a text")
    return value


Number = TypeVar("Number", int, float)


def _in_range(value: Number, minimum: float, maximum: float) -> Number:
    if minimum <= value <= maximum:
        return value
    if maximum == math.inf:
        raise _Unfit(f"at least {minimum}")
    raise _Unfit(f"at most {maximum}" if minimum == -math.inf else f"from {minimum} to {maximum}")


def _sequence_of(convert: Callable[[Any], Element], length: int | None) -> Callable[[Any], tuple[Element, ...]]:
    def convert_all(value: Any) -> tuple[Element, ...]:
        if isinstance(value, str | StringArray | NestedArray) or not isinstance(value, Sequence | np.ndarray):
            return (convert(value),) * (1 if length is None else length)
        if length is not None and len(value) != length:
            raise _Unfit(f"{length} values")
        return tuple(convert(item) for item in value)

    return convert_all
