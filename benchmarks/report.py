"""Write docs/performance.md from the JSON files of the benchmarks: targets, tables, bars and plots.

    python benchmarks/report.py [--results build/bench] [--page docs/performance.md]

What was not measured is named and left out. The plots need matplotlib (dependency group `bench`); without it the page
has bars of characters alone.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from accuracy import HEADER as ACCURACY_HEADER
from accuracy import Deviation, accuracy_rows
from charts import Case, case_table, save_png, text_bars
from machine import BUILD_FOLDER, HERE
from measured import ratio, spread, table
from results import TARGETS, Results, relative_deviation
from serving import HEADER as SERVING_HEADER
from serving import serving_rows

INTRODUCTION = """\
# Performance

Written by `make bench`, which runs every script of [benchmarks.md](benchmarks.md) and then `benchmarks/report.py`; do
not edit it by hand. quipu and llama.cpp ran in turns in the same minutes; figures are medians over rounds with their
range in brackets, a ratio is the median of the ratios within rounds (above 1: quipu is faster), and the limit is what
the machine's measured read bandwidth or its measured rate of 8-bit multiply-adds allows. llama.cpp is the faster of its
two layouts of weights. The models are synthetic: real shapes and types, random weights.
"""


@dataclass
class Page:
    """The document while it is written.

    Attributes:
        path: where it will be.
        results: what was measured.
        lines: its text so far.
        bars: title and text of each bar chart, for the terminal.
    """

    path: Path
    results: Results
    lines: list[str] = field(default_factory=list)
    bars: list[tuple[str, str]] = field(default_factory=list)

    def add(self, *paragraphs: str) -> None:
        for paragraph in paragraphs:
            self.lines += [paragraph.rstrip("\n"), ""]

    def add_sources(self, files: Sequence[tuple[str, dict[str, Any]]]) -> None:
        """The commands and dates of a section."""
        lines = [f"{content['command']}  # {content['date']}" for _, content in files]
        self.add("```sh\n" + "\n".join(lines) + "\n```")

    def add_section(self, name: str, heading: str, text: str) -> list[tuple[str, dict[str, Any]]]:
        """A heading, and where the benchmark was run, how; what it wrote."""
        self.add(f"## {heading}", text)
        files = self.results.named(name)
        if files:
            self.add_sources(files)
        else:
            self.add(f"Not measured: `python benchmarks/{name}.py`.")
        return files

    def add_cases(self, name: str, title: str, kind: str, cases: Sequence[Case]) -> None:
        """Table, plot and bars; the table tells the accuracy of each model or type where labels name them."""
        header, rows = case_table(kind, cases)
        errors = [self.accuracy_cell(case.label) for case in cases]
        if any(errors):
            header = [*header, "logits error / llama.cpp's"]
            rows = [[*row, error or "-"] for row, error in zip(rows, errors, strict=True)]
        self.add(table(header, rows))
        folder = self.path.parent / self.path.stem
        if save_png(folder / f"{name}.png", title, kind, cases):
            self.add(f"![{title}]({folder.name}/{name}.png)")
        bars = text_bars(cases)
        self.bars.append((title, bars))
        self.add(f"```text\n{bars}\n```")

    def accuracy_cell(self, model: str) -> str:
        deviations = self.results.accuracy(model)
        relative = None if deviations is None else relative_deviation(deviations, "error")
        return "" if relative is None else f"{relative:.2f}"


def add_machine(page: Page) -> None:
    page.add("## Machine and versions")
    if not page.results.files:
        page.add("Nothing was measured.")
        return
    newest = max(page.results.files.values(), key=lambda content: str(content["date"]))
    rows = [[name, value] for name, value in newest["machine"].items()]
    engines: dict[str, str] = {}
    for content in page.results.files.values():
        engines |= content["engines"]
    rows += [[name, version] for name, version in engines.items()]
    dates = sorted(content["date"] for content in page.results.files.values())
    page.add(table(["", ""], [*rows, ["measured", f"{dates[0]} to {dates[-1]}"]]))
    processor = newest["machine"]["processor"]
    others = [name for name, content in page.results.files.items() if content["machine"]["processor"] != processor]
    if others:
        page.add(f"Measured on another machine: {', '.join(others)}.")


def add_targets(page: Page) -> None:
    rows = []
    for target in TARGETS:
        found = target.worst(page.results)
        where = f" ({found.where})" if found is not None and found.where else ""
        rows.append(
            [
                target.work,
                target.write(target.least),
                target.write(target.aim),
                "-" if found is None else target.write(found.value) + where,
                target.verdict(found),
            ]
        )
    page.add(
        "## Targets",
        "Where a target is about several types, the worst of them is shown.",
        table(["work", "at least", "aim", "measured", ""], rows),
    )


def add_speeds(page: Page, name: str, heading: str, text: str, kind: str) -> None:
    """One section with one chart over all files of a benchmark."""
    if page.add_section(name, heading, text):
        page.add_cases(name, heading, kind, page.results.cases(name))


def add_charts(page: Page, name: str, heading: str, text: str, charts: Sequence[tuple[str, str, str]]) -> None:
    """A section with a chart for each of `charts`: key in the files, title, kind of label."""
    for stem, content in page.add_section(name, heading, text):
        model = Path(content.get("model", {}).get("name", "")).stem
        if model:
            error = page.accuracy_cell(model)
            page.add(f"Model: {model}." + (f" Its logits error is {error} of llama.cpp's." if error else ""))
        for key, title, kind in charts:
            full_title = f"{title}, {content['kv_type']} cache" if "kv_type" in content else title
            page.add(f"### {full_title}")
            image = stem if key == "cases" else f"{stem}-{key}"
            page.add_cases(image, full_title, kind, [Case.from_json(case) for case in content[key]])


def add_attention(page: Page) -> None:
    text = "Milliseconds per step of all layers, without the matrices: one token after the context, or 512 that end it."
    for _, content in page.add_section("attention", "Attention alone", text):
        page.add(f"{content['shape']}.")
        for kind in ("decode", "prefill"):
            found = [one for one in content["results"] if one["kind"] == kind]
            contexts = sorted({one["context"] for one in found})
            rows = []
            for name in dict.fromkeys(one["type"] for one in found):
                of_type = {one["context"]: one["seconds"] for one in found if one["type"] == name}
                cells = [f"{1e3 * statistics.median(of_type[context]):.2f}" for context in contexts]
                rows.append([name, *cells])
            page.add(table([f"{kind}: KV type", *(f"{context} tokens" for context in contexts)], rows))


def add_load(page: Page) -> None:
    text = "Seconds from the start of a process to its first token, with the file in the page cache."
    for _, content in page.add_section("first_token", "Load", text):
        rows = [[name, spread(values, 3)] for name, values in content["seconds"].items()]
        page.add(table(["engine and prompt", "seconds (range)"], rows))
    for _, content in page.results.named("import_time"):
        added = [f"`{name}` {seconds:.3f} s" for name, seconds in content["added_seconds"].items()]
        page.add(f"Added to a bare interpreter: {', '.join(added)}.")


def add_prefix_reuse(page: Page) -> None:
    text = "Seconds to the first token of a prompt whose beginning was computed before."
    for _, content in page.add_section("prefix_reuse", "Prefix cache", text):
        fresh = content["seconds"]["fresh"]
        rows = [
            [name, str(content["reused"][name]), spread(values, 3), f"{ratio(values, fresh):.1%}"]
            for name, values in content["seconds"].items()
        ]
        page.add(table(["prompt", "tokens reused", "seconds (range)", "of a fresh one"], rows))


def add_serving(page: Page) -> None:
    text = "Many requests at a time: what the engine adds to a step, what it yields, and how requests bear each other."
    for _, content in page.add_section("serving", "Serving", text):
        page.add(table(SERVING_HEADER, serving_rows(content["sections"])))


def add_speculation(page: Page) -> None:
    text = "Tokens per second of one request, with guesses from the text itself, beside none."
    for _, content in page.add_section("speculation", "Speculation", text):
        rows = [
            [kind, source, spread(values, 1), f"{ratio(values, of_kind['off']):.2f}x"]
            for kind, of_kind in content["tokens_per_second"].items()
            for source, values in of_kind.items()
        ]
        page.add(table(["text", "guesses", "tokens per second (range)", "of none"], rows))


def add_sampling(page: Page) -> None:
    text = "Milliseconds to choose one token, by sampler chain and by how far the logits spread."
    for _, content in page.add_section("sampling", "Sampling", text):
        rows = []
        for result in content["results"]:
            ours, theirs = ([1e3 * seconds for seconds in result[name]] for name in ("quipu", "llama.cpp"))
            compared = [spread(theirs, 3), f"{ratio(theirs, ours):.1f}x"] if theirs else ["", ""]
            rows.append([f"{result['width']:g}", result["chain"], spread(ours, 3), *compared])
        page.add(f"Vocabulary of {content['vocab_size']} tokens.")
        page.add(table(["spread", "chain", "quipu, ms (range)", "llama.cpp, ms (range)", "times faster"], rows))


def add_memory(page: Page) -> None:
    text = "MiB resident while running, and the highest over file and full KV cache."
    for _, content in page.add_section("memory", "Memory", text):
        rows = [
            [
                name,
                *(f"{account[kind] / 2**20:.0f}" for kind in ("resident", "file", "anonymous", "highest")),
                f"{account['highest'] / content['file_and_kv_bytes']:.3f}",
            ]
            for name, account in content["bytes"].items()
        ]
        page.add(table(["engine", "resident", "of files", "own", "highest", "highest / (file + KV cache)"], rows))


def add_accuracy(page: Page) -> None:
    text = (
        "Relative L2 error of the logits against exact ones, and the mean Kullback-Leibler divergence of the "
        "distribution over tokens. quipu computes a prompt in one step and token by token with different kernels; the "
        "worse of the two is compared."
    )
    for _, content in page.add_section("accuracy", "Accuracy", text):
        for key, title in (("golden", "Models quantized by llama.cpp"), ("types", "Every weight type")):
            found = {
                name: {who: Deviation(**values) for who, values in of_name.items()}
                for name, of_name in content[key].items()
            }
            page.add(f"### {title}")
            page.add(table(ACCURACY_HEADER, accuracy_rows(found)) if found else "Not measured.")


def write_page(page: Page) -> Iterator[str]:
    """Write the page; what a terminal should show comes back."""
    page.add(INTRODUCTION)
    add_targets(page)
    add_machine(page)
    add_speeds(page, "decode", "Decode", "One sequence, one token at a time, short context.", "model")
    add_speeds(page, "prefill", "Prefill", "One prompt of 512 tokens into an empty cache.", "model")
    add_charts(
        page,
        "weight_types",
        "Weight types",
        "A model of one type each. The limit of prefill is in 8-bit multiply-adds, out of reach of float types.",
        [("decode", "Decode by weight type", "type"), ("prefill", "Prefill by weight type", "type")],
    )
    text = "Tokens per second of all sequences together, one token of each per step."
    add_charts(page, "batch", "Batches", text, [("cases", "Decode by number of sequences", "sequences")])
    text = "Decode after a cache that holds so many tokens."
    add_charts(page, "context", "Context", text, [("cases", "Decode by context", "tokens of context")])
    text = "Alone, and beside a process that keeps one core busy."
    charts = [("decode", "Decode by threads", "threads"), ("prefill", "Prefill by threads", "threads")]
    add_charts(page, "threads", "Threads", text, charts)
    add_attention(page)
    add_load(page)
    add_serving(page)
    add_prefix_reuse(page)
    add_speculation(page)
    add_sampling(page)
    add_memory(page)
    add_accuracy(page)
    page.path.parent.mkdir(parents=True, exist_ok=True)
    page.path.write_text("\n".join(page.lines).rstrip("\n") + "\n", encoding="utf-8")
    for title, bars in page.bars:
        yield f"\n{title}\n\n{bars}"
    yield f"\n{page.path} is written, with {len(page.results.files)} benchmarks"


def main() -> None:
    parser = argparse.ArgumentParser(
        description="the page of performance", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--results", type=Path, default=BUILD_FOLDER, help="folder with the JSON files")
    parser.add_argument("--page", type=Path, default=HERE.parent / "docs" / "performance.md")
    arguments = parser.parse_args()
    for text in write_page(Page(arguments.page, Results(arguments.results))):
        print(text)


if __name__ == "__main__":
    main()
