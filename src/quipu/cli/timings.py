"""Where the time of an answer went, as lines for people and as values for programs."""

from __future__ import annotations

from typing import Any

from quipu.types import Timings, Usage


def rates(usage: Usage, timings: Timings) -> tuple[float | None, float | None]:
    """Tokens per second of the prompt and of the generation; None where nothing was computed.

    The first token comes out of the prompt's last step, so the generation is timed over those after it.
    """
    computed = usage.prompt_tokens - usage.cached_tokens
    later = usage.completion_tokens - 1
    return (
        computed / timings.prompt_s if computed > 0 and timings.prompt_s > 0 else None,
        later / timings.generation_s if later > 0 and timings.generation_s > 0 else None,
    )


def timing_lines(load_s: float, text_s: float, usage: Usage, timings: Timings) -> list[str]:
    """Load, text, prompt and generation, one line each.

    Args:
        load_s: seconds it took to open the model.
        text_s: seconds from the text to its tokens, with the chat template; the first time the tokenizer is built, too.
    """
    prompt_rate, generation_rate = rates(usage, timings)
    cached = f" ({usage.cached_tokens} remembered)" if usage.cached_tokens else ""
    drafted = []
    if usage.drafted_tokens:
        share = 100 * usage.accepted_tokens / usage.drafted_tokens
        drafted = [f"guesses                 {usage.drafted_tokens:6d} tokens, {share:.0f} % of them right"]
    total_s = load_s + text_s + timings.queue_s + timings.prompt_s + timings.generation_s
    return [
        f"load        {load_s:8.2f} s",
        f"text        {text_s:8.2f} s",
        f"prompt      {timings.prompt_s:8.2f} s  {usage.prompt_tokens:6d} tokens{cached}{_rate(prompt_rate)}",
        f"generation  {timings.generation_s:8.2f} s  {usage.completion_tokens:6d} tokens{_rate(generation_rate)}",
        *drafted,
        f"total       {total_s:8.2f} s",
    ]


def timing_values(load_s: float, text_s: float, usage: Usage, timings: Timings) -> dict[str, Any]:
    """The same for JSON; seconds and tokens per second."""
    prompt_rate, generation_rate = rates(usage, timings)
    return {
        "load_s": load_s,
        "text_s": text_s,
        "queue_s": timings.queue_s,
        "prompt_s": timings.prompt_s,
        "generation_s": timings.generation_s,
        "prompt_tokens_per_second": prompt_rate,
        "generation_tokens_per_second": generation_rate,
    }


def _rate(value: float | None) -> str:
    return "" if value is None else f"  {value:9.2f} tokens/s"
