"""What an engine tells about itself."""

from __future__ import annotations

from dataclasses import dataclass

from quipu.engine.step_time import StepTimes


@dataclass(frozen=True, slots=True)
class EngineStats:
    """What an engine is doing, at one moment.

    Attributes:
        num_running: sequences that are being computed. Each choice of a request is one.
        num_waiting: those that are not, for whatever reason.
        num_steps, num_tokens, num_preemptions: since the engine was made.
        num_step_tokens: tokens of the last step.
        num_pages, num_free_pages: of the KV cache.
        mean_output_tokens: of the requests that ended last, which admission reckons with.
        step_times: the fitted time of a step.
        num_drafted_tokens, num_accepted_tokens: guesses that were checked, and those that came true.
    """

    num_running: int
    num_waiting: int
    num_steps: int
    num_tokens: int
    num_preemptions: int
    num_step_tokens: int
    num_pages: int
    num_free_pages: int
    mean_output_tokens: float
    step_times: StepTimes
    num_drafted_tokens: int = 0
    num_accepted_tokens: int = 0
