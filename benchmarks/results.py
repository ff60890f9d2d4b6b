"""What the benchmarks wrote, and how it stands beside the targets."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from charts import Case
from measured import THEIRS, ratio

SMALL, LARGE = "qwen2-0.5b-Q4_K_M", "llama-1b-Q4_K_M"
_NOTHING = 1e-12  # a deviation below is the rounding of the comparison itself
FLOAT_TYPES = ("F16", "BF16", "F32")


def overhead_share(seconds_per_step: Mapping[str, Sequence[float]]) -> float:
    """What is not the model's run, as a share of the step."""
    return 1 - ratio(seconds_per_step["run"], seconds_per_step["step"])


def stream_slowdowns(content: Mapping[str, Any], summary: Callable[[Sequence[float]], float]) -> list[float]:
    """A summary of the gaps beside the prompt, over the median of those alone, of each round."""
    pairs = zip(content["beside"], content["alone"], strict=True)
    return [summary(beside) / statistics.median(alone) for beside, alone in pairs]


def valid_share(content: Mapping[str, Any]) -> float:
    """Answers that are as their schema says."""
    return 1 - len(content["invalid"]) / int(content["num_answers"])


class Results:
    """The JSON files of a folder, by name. The sections of a file count as files named after them."""

    def __init__(self, folder: Path) -> None:
        self.files: dict[str, dict[str, Any]] = {}
        for path in sorted(folder.glob("*.json")):
            content = json.loads(path.read_text("utf-8"))
            self.files[path.stem] = content
            for name, section in content.get("sections", {}).items():
                about = {key: content[key] for key in ("machine", "engines", "command", "date")}
                self.files[f"{name}-{path.stem}"] = {**section, **about}

    def named(self, name: str) -> list[tuple[str, dict[str, Any]]]:
        """The files `name` and `name-...`."""
        return [(stem, content) for stem, content in self.files.items() if stem.partition("-")[0] == name]

    def cases(self, name: str, key: str = "cases", model: str | None = None) -> list[Case]:
        """All cases under `key` in the files `name` and `name-...`, or only those measured with one model."""
        return [
            Case.from_json(case)
            for _, content in self.named(name)
            if model is None or content.get("model", {}).get("name") == f"{model}.gguf"
            for case in content.get(key, [])
        ]

    def accuracy(self, model: str) -> Mapping[str, Mapping[str, float]] | None:
        """Deviations of a model's type: of the golden model of that family and type, else of the synthetic one."""
        content = self.files.get("accuracy", {})
        family, type_name = model.partition("-")[0], model.rpartition("-")[2]
        golden, types = content.get("golden", {}), content.get("types", {})
        found: Mapping[str, Mapping[str, float]] | None = golden.get(f"{family}-{type_name}", types.get(type_name))
        return found


def relative_deviation(of_model: Mapping[str, Mapping[str, float]], key: str) -> float | None:
    """Ours (the worse of prompt and decode) over llama.cpp's; None where that was not measured, or is nothing."""
    theirs = of_model.get(THEIRS[0], {}).get(key, 0.0)
    return max(of_model[kind][key] for kind in ("prompt", "decode")) / theirs if theirs > _NOTHING else None


@dataclass(frozen=True)
class Found:
    """A measured figure, and of what; `is_enough` where another condition of the target already holds."""

    value: float
    where: str = ""
    is_enough: bool = False


@dataclass(frozen=True)
class Target:
    """What the figures should be.

    Attributes:
        work: what is done, and what the figure is.
        least: the figure to reach.
        aim: the figure to strive for.
        unit: "x" for a ratio, "%" for a share, "s" for seconds.
        find: looks the figures up; the worst of them counts.
        lower_is_better: whether small figures are good.
    """

    work: str
    least: float
    aim: float
    unit: str
    find: Callable[[Results], Sequence[Found]]
    lower_is_better: bool = False

    def worst(self, results: Results) -> Found | None:
        """The figure that counts; None where it was not measured."""
        choose = max if self.lower_is_better else min
        found = self.find(results)
        missed = [one for one in found if not one.is_enough]
        return choose(missed or found, key=lambda one: one.value, default=None)

    def verdict(self, found: Found | None) -> str:
        if found is None:
            return "not measured"
        if self._reaches(found.value, self.aim):
            return "aim reached"
        return "met" if found.is_enough or self._reaches(found.value, self.least) else "missed"

    def _reaches(self, value: float, wanted: float) -> bool:
        return value <= wanted if self.lower_is_better else value >= wanted

    def write(self, value: float) -> str:
        return f"{value:.0%}" if self.unit == "%" else f"{value:.2f} {self.unit}"


def _ratio(name: str, model: str, label: str | None = None) -> Callable[[Results], Sequence[Found]]:
    return lambda results: [
        Found(case.ratio)
        for case in results.cases(name, model=model)
        if case.ratio is not None and label in (None, case.label)
    ]


def _share(name: str, model: str) -> Callable[[Results], Sequence[Found]]:
    return lambda results: [Found(case.share) for case in results.cases(name, model=model) if case.share is not None]


def _types(
    work: str, is_meant: Callable[[str], bool], enough_share: float | None = None
) -> Callable[[Results], Sequence[Found]]:
    """The ratios of some weight types; reaching `enough_share` of the limit is enough where it is given."""

    def find(results: Results) -> Iterator[Found]:
        for case in results.cases("weight_types", work):
            if is_meant(case.label) and case.ratio is not None:
                is_enough = enough_share is not None and case.share is not None and case.share >= enough_share
                yield Found(case.ratio, case.label, is_enough)

    return lambda results: list(find(results))


def _first_token(name: str) -> Callable[[Results], Sequence[Found]]:
    return lambda results: [
        Found(statistics.median(content["seconds"][name]))
        for _, content in results.named("first_token")
        if name in content["seconds"] and content["model"]["name"] == f"{LARGE}.gguf"
    ]


def _prefix_reuse(results: Results) -> Sequence[Found]:
    return [
        Found(ratio(content["seconds"]["another question"], content["seconds"]["fresh"]))
        for _, content in results.named("prefix_reuse")
        if content["model"]["name"] == f"{SMALL}.gguf" and content["prefix"] == 2000
    ]


def _overhead(results: Results) -> Sequence[Found]:
    return [
        Found(overhead_share(case["seconds_per_step"]), f"{case['num_sequences']} sequences")
        for _, content in results.named("overhead")
        if content["model"]["name"] == f"{SMALL}.gguf"
        for case in content["overheads"]
    ]


def _stream(summary: Callable[[Sequence[float]], float]) -> Callable[[Results], Sequence[Found]]:
    return lambda results: [
        Found(statistics.median(stream_slowdowns(content, summary)))
        for _, content in results.named("stream")
        if content["model"]["name"] == f"{SMALL}.gguf" and content["num_prompt"] == 8000
    ]


def _constrained(results: Results) -> Sequence[Found]:
    return [Found(valid_share(content)) for _, content in results.named("constrained")]


def _memory(results: Results) -> Sequence[Found]:
    return [
        Found(content["bytes"]["quipu"]["highest"] / content["file_and_kv_bytes"])
        for _, content in results.named("memory")
        if content["model"]["name"] == f"{LARGE}.gguf"
    ]


def _accuracy(kind: str, key: str) -> Callable[[Results], Sequence[Found]]:
    def find(results: Results) -> Iterator[Found]:
        for model, deviations in results.files.get("accuracy", {}).get(kind, {}).items():
            value = relative_deviation(deviations, key)
            if value is not None and not model.endswith(FLOAT_TYPES):
                yield Found(value, model)

    return lambda results: list(find(results))


def _speculation(kind: str) -> Callable[[Results], Sequence[Found]]:
    def find(results: Results) -> Iterator[Found]:
        for _, content in results.named("speculation"):
            of_kind = content["tokens_per_second"][kind]
            yield Found(ratio(of_kind["ngram"], of_kind["off"]), kind)

    return lambda results: list(find(results))


TARGETS = (
    Target("decode, 1B Q4_K_M: share of the read bandwidth", 0.85, 0.92, "%", _share("decode", LARGE)),
    Target("decode, 1B Q4_K_M, against llama.cpp", 1.4, 1.6, "x", _ratio("decode", LARGE)),
    Target("decode, 0.5B Q4_K_M, against llama.cpp", 1.5, 1.8, "x", _ratio("decode", SMALL)),
    Target("decode, 1B Q8_0, against llama.cpp", 1.15, 1.3, "x", _ratio("decode", "llama-1b-Q8_0")),
    Target(
        "decode, types IQ1, IQ2 and IQ3, against llama.cpp",
        1.5,
        2.5,
        "x",
        _types("decode", lambda name: name.startswith(("IQ1", "IQ2", "IQ3"))),
    ),
    Target(
        "decode, types IQ4, against llama.cpp (or 85 % of the bandwidth)",
        1.3,
        1.5,
        "x",
        _types("decode", lambda name: name.startswith("IQ4"), enough_share=0.85),
    ),
    Target("decode at 4,096 tokens of context, 0.5B, against llama.cpp", 2, 2.5, "x", _ratio("context", SMALL, "4096")),
    Target("prefill 512, 1B Q4_K_M, against llama.cpp", 2.5, 3.5, "x", _ratio("prefill", LARGE)),
    Target("prefill 512, 0.5B Q4_K_M, against llama.cpp", 2.5, 3.5, "x", _ratio("prefill", SMALL)),
    Target(
        "prefill 512, every quantized type, against llama.cpp",
        1.5,
        3,
        "x",
        _types("prefill", lambda name: name not in FLOAT_TYPES),
    ),
    Target(
        "prefill 512, F16, BF16 and F32, against llama.cpp",
        1.2,
        1.4,
        "x",
        _types("prefill", lambda name: name in FLOAT_TYPES),
    ),
    Target("16 sequences together, 1B, against llama.cpp", 3, 5, "x", _ratio("batch", LARGE, "16")),
    Target(
        "process start to first token, 1B Q4_K_M, token ids", 0.5, 0.35, "s", _first_token("quipu, token ids"), True
    ),
    Target("process start to first token, 1B Q4_K_M, text", 1.2, 1.0, "s", _first_token("quipu, text"), True),
    Target("first token after 2,000 cached tokens, 0.5B, of a fresh prompt", 0.05, 0.03, "%", _prefix_reuse, True),
    Target("engine and sampler in a step, 0.5B, 1 and 16 sequences", 0.03, 0.02, "%", _overhead, True),
    Target(
        "16 requests, prompts and answers of 64 tokens, 1B, against llama.cpp", 3, 5, "x", _ratio("throughput", LARGE)
    ),
    Target(
        "tokens of a stream beside a prompt of 8,000, 0.5B, over those alone",
        2.5,
        2,
        "x",
        _stream(statistics.median),
        True,
    ),
    Target("speculation, text that repeats its prompt, over none", 1.8, 2.5, "x", _speculation("repeats")),
    Target("speculation, text that does not, over none", 0.97, 1, "x", _speculation("differs")),
    Target("valid JSON under a schema, tiny-chat", 1, 1, "%", _constrained),
    Target("resident memory over file and KV cache, 1B Q4_K_M", 1.1, 1.05, "x", _memory, True),
    Target("logits error over llama.cpp's, golden models", 1.1, 1, "x", _accuracy("golden", "error"), True),
    Target("KL divergence over llama.cpp's, golden models", 1.1, 1, "x", _accuracy("golden", "divergence"), True),
    Target("logits error over llama.cpp's, every quantized type", 1.1, 1, "x", _accuracy("types", "error"), True),
)
