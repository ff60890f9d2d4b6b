"""The state of an interactive conversation, and its turns."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from quipu.api import LLM
from quipu.cli.conversation import Conversation
from quipu.cli.describe import ModelFacts
from quipu.cli.reader import Lines
from quipu.cli.replies import Reply, follow
from quipu.cli.screen import Screen
from quipu.cli.timings import timing_lines
from quipu.errors import ContextLengthError, QuipuError, exit_code
from quipu.types import FinishReason, SamplingParams

_MAKE_ROOM = "/clear starts afresh, /drop N forgets the N oldest turns, and -c N at the start gives more room"

_NOT_KEPT = "(stopped before the answer; your message is not kept)"


@dataclass
class Session:
    """One interactive conversation.

    Attributes:
        llm: the open model.
        facts: what the file says about itself.
        conversation: the turns so far.
        sampling: how tokens are chosen; `/set parameter` replaces it.
        lines: where turns come from.
        screen: where answers go.
        load_s: seconds it took to open the model.
        multiline: turns end with a backslash rather than with the line.
        verbose: show timings after each answer.
        variables: variables of the chat template, such as `enable_thinking`.
        exit_code: that of the last turn that failed, else 0.
    """

    llm: LLM
    facts: ModelFacts
    conversation: Conversation
    sampling: SamplingParams
    lines: Lines
    screen: Screen
    load_s: float = 0.0
    multiline: bool = False
    verbose: bool = False
    variables: dict[str, Any] = field(default_factory=dict)
    exit_code: int = 0

    def take_turn(self, question: str) -> None:
        """Ask `question` and show the answer. An error is shown and the question forgotten: the session goes on."""
        started_s = time.perf_counter()
        try:
            answer = self.conversation.ask(question, self.sampling, self.variables)
            text_s = time.perf_counter() - started_s
            reply = follow(answer, self.screen)
        except ContextLengthError as error:
            self.exit_code = exit_code(error)
            self.screen.error(
                f"the conversation has come to {error.num_prompt_tokens} tokens but the context holds "
                f"{error.ctx_size}; your last message was not sent: {_MAKE_ROOM}"
            )
            return
        except QuipuError as error:
            self.exit_code = exit_code(error)
            self.screen.error(str(error))
            return
        except KeyboardInterrupt:  # before the engine had the question
            self.screen.note(_NOT_KEPT)
            return
        if reply.finish_reason is FinishReason.ABORT and not reply.text:
            self.screen.note(_NOT_KEPT)
            return
        self.conversation.add(question, reply.text, reply.tool_calls)
        self._comment(reply, text_s)

    def _comment(self, reply: Reply, text_s: float) -> None:
        """Say why the answer ended, where that was not the model's wish, and how fast it was."""
        used = reply.usage.total_tokens if reply.usage is not None else 0
        if reply.tool_calls:
            self.screen.note("(the next line is handed to the model as what the tool answered)")
        if reply.finish_reason is FinishReason.ABORT:
            self.screen.note("(stopped)")
        elif reply.finish_reason is FinishReason.LENGTH and used >= self.llm.ctx_size and not self.llm.context_shift:
            self.screen.warn(
                f"the answer was cut: the conversation takes {used} of the context's {self.llm.ctx_size} tokens; "
                f"{_MAKE_ROOM}"
            )
        elif reply.finish_reason is FinishReason.LENGTH:
            self.screen.note(f"(cut after {self.sampling.max_tokens} tokens, the limit of -n)")
        if self.verbose and reply.usage is not None and reply.timings is not None:
            for line in timing_lines(self.load_s, text_s, reply.usage, reply.timings):
                self.screen.note(line)
