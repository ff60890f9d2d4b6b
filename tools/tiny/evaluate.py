"""Evaluation of the embedded models: `python -m tiny.evaluate FOLDER` over the GGUF files in FOLDER, by quipu itself.

Held-out questions share no template with the training. Prints a table; `--json FILE` also writes the figures and
every wrong answer, `--limit` fails when a figure is below what the model card promises.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from quipu import LLM, SamplingParams
from tiny.batches import Sample, to_sample
from tiny.checker import judge
from tiny.corpus.example import Conversation
from tiny.corpus.mixture import evaluation
from tiny.rendering import Renderer

EVALUATION_SEED = 7
MAX_ANSWER_TOKENS = 300
TOOL_TOPICS = ("tool_call", "missing_tool", "needless_tool")
LIMITS = {"right": 0.85, "tools": 0.95, "language": 0.95}


@dataclass
class Score:
    """Counts of one topic."""

    total: int = 0
    right: int = 0
    in_language: int = 0


@dataclass
class Report:
    """All figures of one evaluation.

    Attributes:
        topics: counts by topic.
        right: share of right answers over all questions.
        tools: share of conversations with tools on offer, or needed, that call exactly what they should, or nothing.
        language: share of answers in the language of the question.
        perplexity: per answer token on held-out conversations, by file.
        agreement: share of tokens for which the draft's most likely token is the chat model's.
        wrong: the wrong answers.
    """

    topics: dict[str, Score] = field(default_factory=dict)
    right: float = 0.0
    tools: float = 0.0
    language: float = 0.0
    perplexity: dict[str, float] = field(default_factory=dict)
    agreement: float = 0.0
    wrong: list[dict[str, str]] = field(default_factory=list)


def answer(llm: LLM, conversations: Sequence[Conversation]) -> list[str]:
    """Greedy answers, as raw text with all marks."""
    renderer = Renderer()
    prompts = [renderer.prompt(conversation) for conversation in conversations]
    ids = [llm.tokenize(prompt, parse_special=True) for prompt in prompts]
    sampling = SamplingParams(temperature=0.0, max_tokens=MAX_ANSWER_TOKENS)
    return [done.text for done in llm.generate(ids, sampling)]


def score(llm: LLM, conversations: Sequence[Conversation], report: Report) -> None:
    """Ask every question and count."""
    tools = [0, 0]
    for conversation, text in zip(conversations, answer(llm, conversations), strict=True):
        verdict = judge(conversation, text)
        counts = report.topics.setdefault(conversation.topic, Score())
        counts.total += 1
        counts.right += not verdict.fault
        counts.in_language += not verdict.language_fault
        if conversation.topic in TOOL_TOPICS:
            tools[0] += "tool call" not in verdict.fault
            tools[1] += 1
        if verdict.fault or verdict.language_fault:
            question = conversation.messages[-2]["content"]
            report.wrong.append(
                {"topic": conversation.topic, "question": question, "answer": text, **verdict._asdict()}
            )
    total = sum(counts.total for counts in report.topics.values())
    report.right = sum(counts.right for counts in report.topics.values()) / total
    report.language = sum(counts.in_language for counts in report.topics.values()) / total
    report.tools = tools[0] / tools[1]


def answer_logits(llm: LLM, sample: Sample) -> tuple[np.ndarray, np.ndarray]:
    """Logits float32 [answer tokens, vocab] before each answer token of a conversation, and the tokens int [n]."""
    logits = llm.logits(sample.ids)
    places = np.flatnonzero(np.array(sample.weights)[1:])
    return logits[places], np.array(sample.ids)[places + 1]


def perplexity(llm: LLM, samples: Sequence[Sample]) -> float:
    """Perplexity per answer token."""
    loss, count = 0.0, 0
    for sample in samples:
        logits, tokens = answer_logits(llm, sample)
        shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
        loss += float((np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(tokens)), tokens]).sum())
        count += len(tokens)
    return math.exp(loss / count)


def agreement(chat: LLM, draft: LLM, samples: Sequence[Sample]) -> float:
    """Share of answer positions where both models find the same token most likely."""
    equal, count = 0, 0
    for sample in samples:
        ours, theirs = (answer_logits(llm, sample)[0].argmax(axis=1) for llm in (chat, draft))
        equal += int((ours == theirs).sum())
        count += len(ours)
    return equal / count


def evaluate(folder: Path, per_topic: int, num_texts: int) -> Report:
    """Measure the files NAME-F16.gguf and NAME-Q8_0.gguf of both models in `folder`."""
    report = Report()
    conversations = evaluation(EVALUATION_SEED, per_topic)
    texts = evaluation(EVALUATION_SEED + 1, max(1, num_texts // 15))
    with LLM(folder / "tiny-chat-Q8_0.gguf", kv_size=65536) as chat, LLM(folder / "tiny-draft-Q8_0.gguf") as draft:
        score(chat, conversations, report)
        renderer = Renderer()
        samples = [to_sample(chat.tokenizer, renderer, conversation) for conversation in texts]
        report.perplexity["tiny-chat-Q8_0"] = perplexity(chat, samples)
        report.perplexity["tiny-draft-Q8_0"] = perplexity(draft, samples)
        report.agreement = agreement(chat, draft, samples)
    for name in ("tiny-chat-F16", "tiny-draft-F16"):
        path = folder / f"{name}.gguf"
        if path.exists():
            with LLM(path) as llm:
                report.perplexity[name] = perplexity(llm, samples)
    return report


def show(report: Report, console: Console) -> None:
    table = Table("topic", "questions", "right", "language", title="held-out questions, greedy, tiny-chat Q8_0")
    for topic, counts in report.topics.items():
        table.add_row(
            topic, str(counts.total), f"{counts.right / counts.total:.1%}", f"{counts.in_language / counts.total:.1%}"
        )
    table.add_section()
    total = sum(counts.total for counts in report.topics.values())
    table.add_row("all", str(total), f"{report.right:.1%}", f"{report.language:.1%}")
    console.print(table)
    console.print(f"tool calls as they should be, or none: {report.tools:.1%}")
    for name, value in sorted(report.perplexity.items()):
        console.print(f"perplexity of {name}: {value:.4f}")
    console.print(f"tokens on which tiny-draft agrees with tiny-chat: {report.agreement:.1%}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="the folder with the GGUF files")
    parser.add_argument("--per-topic", type=int, default=100, help="questions of each topic (100)")
    parser.add_argument("--texts", type=int, default=450, help="conversations for perplexity and agreement (450)")
    parser.add_argument("--json", type=Path, help="write the figures and the wrong answers here")
    parser.add_argument("--limit", action="store_true", help="fail where a figure is below its limit")
    arguments = parser.parse_args()
    report = evaluate(arguments.folder, arguments.per_topic, arguments.texts)
    show(report, Console())
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(asdict(report), ensure_ascii=False, indent=1), encoding="utf-8")
    figures = {"right": report.right, "tools": report.tools, "language": report.language}
    failed = [name for name, limit in LIMITS.items() if figures[name] < limit]
    if arguments.limit and failed:
        print("below the limit: " + ", ".join(f"{n} {figures[n]:.1%} < {LIMITS[n]:.0%}" for n in failed))
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
