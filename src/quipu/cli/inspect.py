"""`quipu inspect`: what is inside a GGUF file."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import islice
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from quipu.cli.builtin import resolve_model
from quipu.errors import UsageError
from quipu.gguf import GGUFReader, NestedArray, StringArray, TensorInfo

_MAX_TEXT = 160
_MAX_ELEMENTS = 6
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
_PIPE_WIDTH = 160  # columns where the output is not a terminal


def inspect(
    file: Annotated[str, typer.Argument(metavar="FILE", help="GGUF file, of several shards the first; or `tiny`")],
    as_json: Annotated[bool, typer.Option("--json", help="everything as one JSON object, arrays in full")] = False,
    tensors: Annotated[bool, typer.Option("--tensors/--no-tensors", help="list every tensor, or only the sums")] = True,
    metadata: Annotated[
        str | None, typer.Option("--metadata", metavar="KEY", help="print this value in full and nothing else")
    ] = None,
) -> int:
    """Show the metadata, the tensors, their sizes by type and the shards of a GGUF file."""
    with GGUFReader(resolve_model(file)) as reader:
        values = reader.metadata.typed()
        if metadata is not None:
            _print_value(_find_value(values, metadata), as_json)
        elif as_json:
            print(json.dumps(_report(reader, values, tensors), indent=2))
        else:
            _show(reader, values, tensors)
    return 0


def _find_value(values: Mapping[str, Any], key: str) -> Any:
    if key not in values:
        close = get_close_matches(key, values, n=1)
        hint = f"did you mean {close[0]!r}?" if close else "leave --metadata out to see all keys"
        raise UsageError(f"the file has no metadata key {key!r}; {hint}")
    return values[key]


def _print_value(value: Any, as_json: bool) -> None:
    plain = _to_plain(value)
    if as_json:
        print(json.dumps(plain))
    elif isinstance(plain, list):
        for item in plain:
            print(_printable(item if isinstance(item, str) else json.dumps(item)))
    else:
        print(_printable(str(plain), keep="\n\t"))


def _to_plain(value: Any) -> Any:
    """A metadata value as JSON can hold it; numbers that are not finite become text, broken UTF-8 lone surrogates."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    if isinstance(value, StringArray):
        return value.to_list()
    if isinstance(value, NestedArray):
        return [_to_plain(item) for item in value]
    if isinstance(value, np.ndarray):
        items = value.tolist()
        return items if value.dtype.kind != "f" or np.isfinite(value).all() else [_to_plain(item) for item in items]
    if isinstance(value, np.generic):
        value = value.item()
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


@dataclass(frozen=True, slots=True)
class _Share:
    """The tensors of one type, or all of them."""

    type: str
    num_tensors: int
    num_parameters: int
    num_bytes: int

    @property
    def bits_per_weight(self) -> float:
        return 8 * self.num_bytes / max(self.num_parameters, 1)


def _sum_up(name: str, tensors: Iterable[TensorInfo]) -> _Share:
    chosen = list(tensors)
    return _Share(name, len(chosen), sum(t.num_elements for t in chosen), sum(t.num_bytes for t in chosen))


def _shares(reader: GGUFReader) -> list[_Share]:
    """One share per type, the largest first."""
    types = {tensor.type for tensor in reader.tensors.values()}
    shares = [_sum_up(kind.name, (t for t in reader.tensors.values() if t.type is kind)) for kind in types]
    return sorted(shares, key=lambda share: (-share.num_bytes, share.type))


def _report(reader: GGUFReader, values: Mapping[str, Any], with_tensors: bool) -> dict[str, Any]:
    total = _sum_up("all", reader.tensors.values())
    report: dict[str, Any] = {
        "path": str(reader.path),
        "version": reader.version,
        "alignment": reader.alignment,
        "file_bytes": reader.file_bytes,
        "num_tensors": total.num_tensors,
        "num_parameters": total.num_parameters,
        "tensor_bytes": total.num_bytes,
        "bits_per_weight": round(total.bits_per_weight, 4),
        "shards": [
            {"path": str(path), "bytes": num_bytes}
            for path, num_bytes in zip(reader.shards, reader.shard_bytes, strict=True)
        ],
        "metadata": {
            key: {"type": reader.metadata.type_name(key), "value": _to_plain(value)} for key, value in values.items()
        },
        "types": [
            {
                "type": share.type,
                "num_tensors": share.num_tensors,
                "num_parameters": share.num_parameters,
                "bytes": share.num_bytes,
            }
            for share in _shares(reader)
        ],
    }
    if with_tensors:
        report["tensors"] = [
            {
                "name": tensor.name,
                "shape": tensor.shape,
                "type": tensor.type.name,
                "bytes": tensor.num_bytes,
                "offset": tensor.offset,
                "shard": tensor.shard,
            }
            for tensor in reader.tensors.values()
        ]
    return report


def _show(reader: GGUFReader, values: Mapping[str, Any], with_tensors: bool) -> None:
    console = Console(highlight=False, emoji=False)
    if not console.is_terminal:
        console = Console(highlight=False, emoji=False, width=_PIPE_WIDTH)
    total = _sum_up("all", reader.tensors.values())
    facts = f"GGUF version {reader.version}, {_size(reader.file_bytes)}, alignment {reader.alignment}"
    console.print(Text(f"{_printable(str(reader.path))}: {facts}", style="bold"), soft_wrap=True)
    parameters = f"{total.num_parameters:,} parameters in {total.num_tensors} tensors"
    bits = f", {total.bits_per_weight:.2f} bits per weight" if total.num_tensors else ""
    console.print(Text(parameters + bits), soft_wrap=True)
    console.print(_metadata_table(reader, values))
    if with_tensors and reader.tensors:
        console.print(_tensor_table(reader))
    if reader.tensors:
        console.print(_share_table([*_shares(reader), total]))
    if len(reader.shards) > 1:
        console.print(_shard_table(reader))


def _metadata_table(reader: GGUFReader, values: Mapping[str, Any]) -> Table:
    table = Table("key", "type", "value", title="metadata", title_justify="left")
    table.columns[0].overflow = table.columns[2].overflow = "fold"
    for key, value in values.items():
        table.add_row(Text(_printable(key)), reader.metadata.type_name(key), Text(_summarize(value)))
    return table


def _tensor_table(reader: GGUFReader) -> Table:
    is_split = len(reader.shards) > 1
    table = Table("tensor", "shape", "type", title="tensors", title_justify="left")
    table.columns[0].overflow = "fold"
    table.add_column("size", justify="right")
    if is_split:
        table.add_column("shard", justify="right")
    for tensor in reader.tensors.values():
        shape = " x ".join(map(str, tensor.shape)) or "single value"
        shard = [str(tensor.shard + 1)] if is_split else []
        table.add_row(Text(_printable(tensor.name)), shape, tensor.type.name, _size(tensor.num_bytes), *shard)
    return table


def _share_table(shares: list[_Share]) -> Table:
    table = Table("type", title="sizes by type", title_justify="left")
    for heading in ("tensors", "parameters", "size", "bits per weight"):
        table.add_column(heading, justify="right")
    for share in shares:
        numbers = f"{share.num_tensors:,}", f"{share.num_parameters:,}", _size(share.num_bytes)
        table.add_row(share.type, *numbers, f"{share.bits_per_weight:.3f}")
    return table


def _shard_table(reader: GGUFReader) -> Table:
    table = Table("shard", "file", title="shards", title_justify="left")
    table.columns[1].overflow = "fold"
    table.add_column("tensors", justify="right")
    table.add_column("size", justify="right")
    for number, (path, num_bytes) in enumerate(zip(reader.shards, reader.shard_bytes, strict=True)):
        num_tensors = sum(tensor.shard == number for tensor in reader.tensors.values())
        table.add_row(str(number + 1), Text(_printable(path.name)), f"{num_tensors:,}", _size(num_bytes))
    return table


def _summarize(value: Any) -> str:
    """A value on one line: long texts and arrays are cut, with their length."""
    if isinstance(value, StringArray | NestedArray | np.ndarray):
        first = ", ".join(_summarize_element(item) for item in islice(_first(value), _MAX_ELEMENTS))
        more = ", ..." if len(value) > _MAX_ELEMENTS else ""
        return f"{len(value):,} elements: [{first}{more}]"
    if isinstance(value, np.floating):
        return str(value)  # the shortest text that gives the stored value back: 1e-05, not 9.999999747378752e-06
    text = _to_plain(value)
    if isinstance(text, str):
        shown = _printable(text[:_MAX_TEXT])
        return shown if len(text) <= _MAX_TEXT else f"{shown}... ({len(text):,} characters)"
    return str(text).lower() if isinstance(text, bool) else str(text)


def _first(value: Any) -> Any:
    return (value[index] for index in range(min(len(value), _MAX_ELEMENTS)))


def _summarize_element(item: Any) -> str:
    if isinstance(item, str):
        return _printable(repr(item[:_MAX_TEXT]))
    if isinstance(item, StringArray | NestedArray | np.ndarray):
        return f"<{len(item):,} elements>"
    return f"{item:.6g}" if isinstance(item, np.floating) else str(item).lower()


def _printable(text: str, keep: str = "") -> str:
    """`text` with control characters escaped, so that a file cannot steer the terminal."""
    return "".join(
        character if character.isprintable() or character in keep else character.encode("unicode_escape").decode()
        for character in text
    )


def _size(num_bytes: int) -> str:
    if num_bytes < 1024:
        return f"{num_bytes} B"
    exponent = min((num_bytes.bit_length() - 1) // 10, len(_UNITS) - 1)
    return f"{num_bytes / 1024**exponent:.2f} {_UNITS[exponent]}"
