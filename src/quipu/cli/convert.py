"""`quipu convert`: a GGUF file from the folder of a published model."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from quipu.convert import OUTPUT_TYPES, Conversion, Progress
from quipu.convert import convert as convert_folder

_MIB = 1 << 20


def convert(
    source: Annotated[Path, typer.Argument(help="The folder with config.json, safetensors and tokenizer.")],
    target: Annotated[Path, typer.Argument(help="The GGUF file to make; one that exists is replaced.", metavar="OUT")],
    *,
    outtype: Annotated[
        str, typer.Option("--outtype", help=f"How matrices are stored: {', '.join(OUTPUT_TYPES)}.", metavar="TYPE")
    ] = "f16",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Convert a published model to a GGUF file, which appears when it is complete.

    Raises:
        UsageError: an unknown type.
        ModelNotFoundError, ModelFileError, UnsupportedModelError: the folder cannot be converted.
        QuipuError: the file cannot be written.
    """
    done = convert_folder(source, target, outtype=outtype, progress=_show if sys.stderr.isatty() else None)
    for warning in done.warnings:
        typer.echo(f"warning: {warning}", err=True)
    typer.echo(_as_json(done) if as_json else _sentence(done))


def _show(progress: Progress) -> None:
    share = progress.done_bytes / max(1, progress.total_bytes)
    is_last = progress.done_bytes == progress.total_bytes
    # A line that is written over; at the end it makes room for the result.
    typer.echo("\r\x1b[K" if is_last else f"\r\x1b[K{share:4.0%} {progress.tensor}", err=True, nl=False)


def _sentence(done: Conversion) -> str:
    return (
        f"{done.path}: {done.architecture}, {done.num_tensors} tensors, {done.num_parameters / 1e6:.1f} M parameters, "
        f"{done.num_bytes / _MIB:.1f} MiB"
    )


def _as_json(done: Conversion) -> str:
    facts = {
        "path": str(done.path),
        "architecture": done.architecture,
        "num_tensors": done.num_tensors,
        "num_parameters": done.num_parameters,
        "num_bytes": done.num_bytes,
        "warnings": done.warnings,
    }
    return json.dumps(facts, ensure_ascii=False)
