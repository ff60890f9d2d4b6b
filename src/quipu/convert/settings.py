"""JSON files that come with a model, and typed access to their values. They are hostile input like the weights."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from quipu.errors import ModelFileError
from quipu.gguf.metadata import shorten

MAX_JSON_BYTES = 256 << 20  # tokenizers of the largest vocabularies have a tenth of it

_REQUIRED: Any = object()


class Settings:
    """The object in a JSON file. Every method names the file and the key in its error.

    Attributes:
        path: the file, or what stands for it in error messages.
        values: the object.
    """

    def __init__(self, path: object, values: Mapping[str, Any]) -> None:
        self.path = path
        self.values = values

    def __contains__(self, name: str) -> bool:
        return self.values.get(name) is not None

    def integer(self, name: str, default: int = _REQUIRED, *, minimum: int = 0, maximum: int = 2**31 - 1) -> int:
        """A whole number; null counts as missing.

        Raises:
            ModelFileError: it is missing and there is no default, of another kind, or out of range.
        """
        value = self._get(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or not minimum <= value <= maximum:
            raise self._unfit(name, value, f"a whole number from {minimum} to {maximum}")
        return value

    def number(self, name: str, default: float = _REQUIRED, *, minimum: float = -math.inf) -> float:
        """A finite number; raises as `integer`."""
        value = self._get(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not minimum <= value < math.inf:
            raise self._unfit(name, value, f"a number from {minimum} on")
        return float(value)

    def flag(self, name: str, default: bool = _REQUIRED) -> bool:
        """A truth value; raises as `integer`."""
        value = self._get(name, default)
        if not isinstance(value, bool):
            raise self._unfit(name, value, "true or false")
        return value

    def text(self, name: str, default: str = _REQUIRED) -> str:
        """A text; raises as `integer`."""
        value = self._get(name, default)
        if not isinstance(value, str):
            raise self._unfit(name, value, "a text")
        return value

    def section(self, name: str) -> Settings:
        """The object at a key; empty where there is none. Raises as `integer`."""
        value = self._get(name, {})
        if not isinstance(value, dict):
            raise self._unfit(name, value, "an object")
        return Settings(f"{self.path}: {name}", value)

    def items(self, name: str) -> list[Any]:
        """The list at a key; empty where there is none. Raises as `integer`."""
        value = self._get(name, [])
        if not isinstance(value, list):
            raise self._unfit(name, value, "a list")
        return value

    def sections(self, name: str) -> list[Settings]:
        """The objects in the list at a key. Raises as `integer`."""
        sections = []
        for index, value in enumerate(self.items(name)):
            if not isinstance(value, dict):
                raise self._unfit(f"{name}[{index}]", value, "an object")
            sections.append(Settings(f"{self.path}: {name}[{index}]", value))
        return sections

    def _get(self, name: str, default: Any) -> Any:
        value = self.values.get(name)
        if value is not None:
            return value
        if default is _REQUIRED:
            raise ModelFileError(f"{self.path}: {name!r} is missing; use a complete copy of the model")
        return default

    def _unfit(self, name: str, value: object, expected: str) -> ModelFileError:
        return ModelFileError(
            f"{self.path}: {name!r} is {shorten(repr(value))}, but has to be {expected}; use another copy of the model"
        )


def read_json(path: Path) -> Any:
    """The value in a JSON file, or None where there is no such file.

    Raises:
        ModelFileError: it cannot be read, is too large, or is no JSON.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_JSON_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read ({error.strerror or error}); check the file") from None
    if len(data) > MAX_JSON_BYTES:
        raise ModelFileError(f"{path} has more than {MAX_JSON_BYTES} bytes, which no model needs; fetch it again")
    return parse_json(data, str(path))


def parse_json(data: bytes, label: str) -> Any:
    """What UTF-8 JSON stands for, all of whose keys are different within their object.

    Raises:
        ModelFileError: it is anything else; the text begins with `label`.
    """
    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=_unique)
    except UnicodeDecodeError as error:
        raise ModelFileError(f"{label} is not UTF-8 (byte {error.start}); fetch it again") from None
    except RecursionError:
        raise ModelFileError(f"{label} is nested too deeply; fetch it again") from None
    except ValueError as error:
        raise ModelFileError(f"{label} is not valid JSON ({shorten(str(error))}); fetch it again") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("a key occurs twice")
    return values
