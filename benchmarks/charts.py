"""Tables, bars and plots of speeds: ours, llama.cpp's and the limit, case by case."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from measured import OURS, best_of_theirs, ratio, spread

_BAR_WIDTH = 48
_BLOCKS = " ▏▎▍▌▋▊▉█"  # eighths of a character
_COLOURS = {"quipu": "#1b6ca8", "llama.cpp": "#e08e45", "limit": "#9a9a9a"}


@dataclass(frozen=True)
class Case:
    """One thing measured with every engine.

    Attributes:
        label: what sets it apart from the others of its table.
        results: engine -> tokens per second of each round.
        limit: tokens per second that the machine allows; None where it is not known.
    """

    label: str
    results: Mapping[str, Sequence[float]]
    limit: float | None = None

    @property
    def theirs(self) -> str | None:
        """The faster layout of llama.cpp; None when it was not measured."""
        return best_of_theirs(self.results, higher_is_better=True)

    @property
    def our_median(self) -> float:
        return statistics.median(self.results[OURS])

    @property
    def their_median(self) -> float | None:
        return None if self.theirs is None else statistics.median(self.results[self.theirs])

    @property
    def ratio(self) -> float | None:
        """Median of ours / theirs within each round."""
        return None if self.theirs is None else ratio(self.results[OURS], self.results[self.theirs])

    @property
    def share(self) -> float | None:
        """Ours as a share of the limit."""
        return self.our_median / self.limit if self.limit else None

    def to_json(self) -> dict[str, Any]:
        return {"label": self.label, "tokens_per_second": self.results, "limit": self.limit}

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> Case:
        return Case(content["label"], content["tokens_per_second"], content["limit"])


def case_table(kind: str, cases: Sequence[Case]) -> tuple[list[str], list[list[str]]]:
    """Header and rows; `kind` heads the column of labels."""
    header = [kind, "quipu t/s (range)", "llama.cpp t/s (range)", "ratio", "limit", "quipu of limit"]
    rows = []
    for case in cases:
        rows.append(
            [
                case.label,
                spread(case.results[OURS]),
                "-" if case.theirs is None else spread(case.results[case.theirs]),
                "-" if case.ratio is None else f"{case.ratio:.2f}",
                f"{case.limit:.1f}" if case.limit else "-",
                "-" if case.share is None else f"{case.share:.0%}",
            ]
        )
    return header, rows


def text_bars(cases: Sequence[Case]) -> str:
    """Bars of characters, all on one scale."""
    lines: list[tuple[str, str, float]] = []
    for case in cases:
        values = [("quipu", case.our_median), ("llama.cpp", case.their_median), ("limit", case.limit)]
        label = case.label
        for name, value in values:
            if value:
                lines.append((label, name, value))
                label = ""
    largest = max((value for _, _, value in lines), default=1.0)
    width = max((len(label) for label, _, _ in lines), default=0)
    return "\n".join(
        f"{label:<{width}}  {name:<9}  {_bar(value / largest):<{_BAR_WIDTH}} {value:.1f}"
        for label, name, value in lines
    )


def _bar(share: float) -> str:
    eighths = round(share * _BAR_WIDTH * 8)
    full, rest = divmod(eighths, 8)
    return (_BLOCKS[8] * full + (_BLOCKS[rest] if rest else "")) or _BLOCKS[1]


def save_png(path: Path, title: str, kind: str, cases: Sequence[Case]) -> bool:
    """Plot the cases: lines where all labels are numbers, else bars. False where matplotlib is not installed."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return False
    figure = Figure(figsize=(7.2, 3.4), dpi=90, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    columns: dict[str, list[float | None]] = {
        "quipu": [case.our_median for case in cases],
        "llama.cpp": [case.their_median for case in cases],
        "limit": [case.limit for case in cases],
    }
    series = {name: values for name, values in columns.items() if any(values)}
    positions = range(len(cases))
    is_line = len(cases) > 2 and all(case.label.isdigit() for case in cases)
    for index, (name, values) in enumerate(series.items()):
        heights = [value if value else float("nan") for value in values]
        if is_line:
            style = "--" if name == "limit" else "o-"
            axes.plot(positions, heights, style, color=_COLOURS[name], label=name)
        else:
            width = 0.8 / len(series)
            shifted = [position + (index - (len(series) - 1) / 2) * width for position in positions]
            axes.bar(shifted, heights, width, color=_COLOURS[name], label=name)
    is_crowded = len(cases) > 6 and not is_line
    axes.set_xticks(positions, [case.label for case in cases], rotation=60 if is_crowded else 0, fontsize=8)
    if is_line:  # a drop to a tenth must be as visible as a rise to ten times
        axes.set_yscale("log")
    axes.set_xlabel(kind)
    axes.set_ylabel("tokens per second")
    axes.set_title(title, fontsize=10, loc="left")
    axes.grid(axis="y", alpha=0.3)
    axes.legend(fontsize=8, ncols=3, loc="lower right", bbox_to_anchor=(1, 1), frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": None})
    return True
