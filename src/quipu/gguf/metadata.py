"""The metadata of a GGUF file as a mapping that decodes values when they are asked for."""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from quipu.errors import ModelFileError
from quipu.gguf.cursor import ArrayValue, Cursor, NestedArray
from quipu.gguf.values import TYPE_OF_DTYPE, StringArray, ValueType

MAX_KEYS = 1 << 16
MAX_KEY_BYTES = (1 << 16) - 1  # GGUF specification

MetadataValue: TypeAlias = "int | float | bool | str | ArrayValue"
TypedValue: TypeAlias = "np.generic | str | bytes | ArrayValue"


class TextSpan(NamedTuple):
    """Where the bytes of a string value stand in the file."""

    start: int
    end: int


class Metadata(Mapping[str, MetadataValue]):
    """Key to value, in the order of the file.

    Numbers are Python numbers, strings are str, arrays of numbers are read-only numpy views of the file, arrays of
    strings are `StringArray`, arrays of arrays are `NestedArray`.

    Looking a string up raises ModelFileError, naming the key, if the string is not valid UTF-8.
    """

    def __init__(
        self, name: str, mapping: mmap.mmap | bytes, entries: Mapping[str, np.generic | TextSpan | ArrayValue]
    ) -> None:
        """
        Args:
            name: the file's name, for error messages.
            mapping: the file.
            entries: numbers as numpy scalars of the stored type, strings as their place in the file.
        """
        self._name = name
        self._mapping = mapping
        self._entries = entries

    def __getitem__(self, key: str) -> MetadataValue:
        entry = self._entries[key]
        if isinstance(entry, TextSpan):
            return self._decode(key, entry)
        if isinstance(entry, np.generic):
            number: int | float | bool = entry.item()
            return number
        return entry

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: object) -> bool:
        return key in self._entries

    def __repr__(self) -> str:
        return f"Metadata(<{len(self)} keys>)"

    def value_type(self, key: str) -> ValueType:
        """The type that the value of `key` is stored as."""
        entry = self._entries[key]
        if isinstance(entry, TextSpan):
            return ValueType.STRING
        return TYPE_OF_DTYPE[entry.dtype] if isinstance(entry, np.generic) else ValueType.ARRAY

    def type_name(self, key: str) -> str:
        """The stored type in words: `uint32`, `string`, `array of float32`, `array of string`, `array of array`."""
        entry = self._entries[key]
        if isinstance(entry, StringArray):
            return "array of string"
        if isinstance(entry, NestedArray):
            return "array of array"
        if isinstance(entry, np.ndarray):
            return f"array of {TYPE_OF_DTYPE[entry.dtype].name.lower()}"
        return self.value_type(key).name.lower()

    def typed(self) -> dict[str, TypedValue]:
        """All values in the form in which `write_gguf` stores them again byte for byte.

        Numbers are numpy scalars of the stored type; a string that is not valid UTF-8 is given as bytes.
        """
        values: dict[str, TypedValue] = {}
        for key, entry in self._entries.items():
            if isinstance(entry, TextSpan):
                stored = self._mapping[entry.start : entry.end]
                try:
                    values[key] = stored.decode("utf-8")
                except UnicodeDecodeError:
                    values[key] = stored
            else:
                values[key] = entry
        return values

    def _decode(self, key: str, span: TextSpan) -> str:
        try:
            return self._mapping[span.start : span.end].decode("utf-8")
        except UnicodeDecodeError as error:
            raise ModelFileError(
                f"{self._name}: the text of metadata key {key!r} is not valid UTF-8 (byte {error.start} of "
                f"{span.end - span.start}); the file is damaged, fetch or convert it again"
            ) from None


def read_metadata(cursor: Cursor, name: str, mapping: mmap.mmap | bytes, num_keys: int) -> Metadata:
    """Read and check `num_keys` keys with their values.

    Raises:
        ModelFileError: a key or value is broken or cut off, or a key stands twice.
    """
    if num_keys > MAX_KEYS:
        cursor.fail(f"claims {num_keys} metadata keys, but quipu reads at most {MAX_KEYS}")
    entries: dict[str, Any] = {}
    for index in range(num_keys):
        cursor.subject = f"the name of metadata key number {index}"
        key = cursor.read_text(MAX_KEY_BYTES)
        cursor.subject = f"metadata key {shorten(key)}"
        if not key:
            cursor.fail("has no name")
        if key in entries:
            cursor.fail("stands twice")
        value_type = cursor.read_value_type()
        if value_type is ValueType.STRING:
            entries[key] = TextSpan(*cursor.read_string())
        elif value_type is ValueType.ARRAY:
            entries[key] = cursor.read_array()
        else:
            entries[key] = cursor.read_number(value_type)
    return Metadata(name, mapping, entries)


def shorten(name: str, max_length: int = 80) -> str:
    """`name` quoted for an error message, with control characters escaped and the middle left out if it is long."""
    quoted = repr(name)
    if len(quoted) <= max_length:
        return quoted
    return f"{quoted[: max_length - 20]}...{quoted[-17:]}"


def describe_value(value: object) -> str:
    """A metadata value for an error message, in one short line."""
    if isinstance(value, str):
        return shorten(value)
    if isinstance(value, Sequence | np.ndarray):
        return f"a list of {len(value)} values"
    return repr(value)
