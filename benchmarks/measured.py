"""Figures over rounds, and how they are written: medians, ranges, ratios within rounds, tables."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

OURS = "quipu"
THEIRS = ("llama.cpp", "llama.cpp, no repacking")


def best_of_theirs(results: Mapping[str, Sequence[float]], *, higher_is_better: bool) -> str | None:
    """The name of the faster layout of llama.cpp by median; None when it was not measured."""
    names = [name for name in THEIRS if name in results]
    if not names:
        return None
    choose = max if higher_is_better else min
    return choose(names, key=lambda name: statistics.median(results[name]))


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Median of ours / theirs within each round."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def spread(values: Sequence[float], digits: int = 1) -> str:
    """`median (lowest to highest)`."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, padded so that it also reads as plain text."""
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    lines = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in (header, *rows)]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
