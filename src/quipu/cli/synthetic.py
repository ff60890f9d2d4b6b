"""The synthetic models of `quipu bench --synthetic`: made once, kept in a cache folder, used again."""

from __future__ import annotations

import os
import re
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from quipu.bench.synthetic import write_synthetic_model
from quipu.errors import UsageError

_SEED = 0


def cache_folder() -> Path:
    """Where synthetic models are kept: `synthetic` under QUIPU_CACHE, else under XDG_CACHE_HOME or `~/.cache`."""
    chosen = os.environ.get("QUIPU_CACHE")
    if chosen:
        return Path(chosen).expanduser() / "synthetic"
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "quipu" / "synthetic"


def synthetic_model(shape: str, type_name: str) -> Path:
    """The GGUF file with random weights of that shape and type; written first where it is not there yet.

    Raises:
        UsageError: the shape or the type is unknown.
    """
    for word in (shape, type_name):
        if not re.fullmatch(r"[A-Za-z0-9._-]+", word):
            raise UsageError(f"{word!r} is not a name of a shape or a type; try --synthetic llama-1b --type Q4_K_M")
    path = cache_folder() / f"{shape}-{type_name}.gguf"
    if path.is_file():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.part")
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    try:
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
            task = progress.add_task(f"writing {path.name}", total=None)
            write_synthetic_model(
                unfinished,
                shape,
                type_name,
                seed=_SEED,
                progress=lambda done, total: progress.update(task, completed=done, total=total),
            )
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return path
