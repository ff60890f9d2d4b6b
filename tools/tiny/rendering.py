"""Conversations as the text that the models are trained on, with the parts that they learn to write marked."""

from __future__ import annotations

import re
from functools import cached_property
from pathlib import Path

from quipu.chat.render import CompiledTemplate
from tiny.corpus.example import Conversation, Document

TEMPLATE = (Path(__file__).parent / "chat_template.jinja").read_text(encoding="utf-8").rstrip("\n")
END_OF_TEXT, START_OF_TURN, END_OF_TURN = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
CONTROL_TOKENS = (END_OF_TEXT, START_OF_TURN, END_OF_TURN)
# Text that a person should see as it is, but one token each.
MARKS = ("<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>")
_ANSWER = re.compile(r"(?<=<\|im_start\|>assistant\n).*?<\|im_end\|>", re.DOTALL)

Segment = tuple[str, bool]


class Renderer:
    """Renders with quipu's own templates engine, so that training sees what a user's conversation becomes."""

    @cached_property
    def _template(self) -> CompiledTemplate:
        return CompiledTemplate(TEMPLATE)

    def text(self, conversation: Conversation, num_messages: int, *, add_generation_prompt: bool) -> str:
        """The first messages as the template writes them."""
        variables = {} if conversation.thinking is None else {"enable_thinking": conversation.thinking}
        return self._template.render(
            {
                "messages": conversation.messages[:num_messages],
                "tools": conversation.tools or None,
                "add_generation_prompt": add_generation_prompt,
                **variables,
            }
        )

    def prompt(self, conversation: Conversation) -> str:
        """What a model has to answer for the last message."""
        return self.text(conversation, -1, add_generation_prompt=True)

    def segments(self, item: Conversation | Document) -> list[Segment]:
        """Parts of the text, each with whether the model learns to write it."""
        if isinstance(item, Document):
            return [(item.given, False), (item.learned + END_OF_TEXT, True)]
        whole = self.text(item, len(item.messages), add_generation_prompt=False)
        if item.thinking is not None:
            # What the prompt ends with is given, not written; only the answer after it is learned.
            prompt = self.prompt(item)
            answer = whole[whole.rindex(f"{START_OF_TURN}assistant\n") :].removeprefix(f"{START_OF_TURN}assistant\n")
            return [(prompt, False), (answer.removeprefix("<think>\n").rstrip("\n"), True)]
        parts: list[Segment] = []
        done = 0
        for match in _ANSWER.finditer(whole):
            parts += [(whole[done : match.start()], False), (match[0], True)]
            done = match.end()
        return parts
