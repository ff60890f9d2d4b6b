"""From texts and conversations to what the engine is given, and to what reads the answers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from quipu.chat.answer import Answer, AnswerParser
from quipu.chat.messages import check_tools
from quipu.chat.template import ChatTemplate
from quipu.chat.tools import Tool, ToolChoice, read_tool_choice, read_tools
from quipu.errors import InvalidRequestError
from quipu.tokenizer import Tokenizer
from quipu.types import ConstraintSpec


@dataclass(frozen=True, slots=True)
class OfferedTools:
    """The tools of a request.

    Attributes:
        schemas: as they were given, for the template; None: the model is shown none.
        tools: the same, checked.
        choice: which of them may or must be called.
    """

    schemas: Sequence[Mapping[str, Any]] | None
    tools: tuple[Tool, ...]
    choice: ToolChoice

    @classmethod
    def read(cls, tools: Any, tool_choice: Any, parallel_tool_calls: bool, *, is_constrained: bool) -> OfferedTools:
        """What a caller gave.

        Args:
            tools, tool_choice, parallel_tool_calls: as for `LLM.chat`.
            is_constrained: the answer is constrained by something else.

        Raises:
            InvalidRequestError: a tool is malformed, `tool_choice` names none of them, or they meet a constraint.
        """
        offered = read_tools(check_tools(tools))
        choice = read_tool_choice(tool_choice, offered, parallel_tool_calls)
        if choice.mode == "none":
            return cls(None, (), choice)
        if is_constrained:
            raise InvalidRequestError(
                "constraint cannot be combined with tools, whose calls it would forbid; leave out one of them, or set "
                "tool_choice to 'none'",
                field="constraint",
            )
        return cls(tools, offered, choice)


@dataclass(frozen=True, slots=True)
class ChatPrompt:
    """A conversation as the engine takes it.

    Attributes:
        token_ids: the prompt.
        shown_tokens: control tokens that the text of the answer has to show, as its parser looks for them.
        constraint: what holds the answer; None where it may be anything.
        answers: translate the events of the answer, one for each choice.
    """

    token_ids: list[int]
    shown_tokens: Mapping[int, str]
    constraint: ConstraintSpec | None
    answers: tuple[Answer, ...]


class ChatEncoder:
    """Makes prompts of conversations. Threads may share it.

    Args:
        template: writes them as text.
        tokenizer: of the model.
    """

    def __init__(self, template: ChatTemplate, tokenizer: Tokenizer) -> None:
        self.template = template
        self._tokenizer = tokenizer
        self._shown_tokens: dict[tuple[str, ...], Mapping[int, str]] = {}  # by the markers of a parser

    def encode(
        self,
        messages: Sequence[Mapping[str, Any]],
        offered: OfferedTools,
        constraint: ConstraintSpec | None,
        variables: Mapping[str, Any],
        *,
        num_choices: int = 1,
    ) -> ChatPrompt:
        """The prompt of a conversation.

        Args:
            messages: the oldest first.
            offered: the tools.
            constraint: what the answer must look like, once the model has thought; None: anything, but for tools.
            variables: further arguments of `ChatTemplate.render`.
            num_choices: how many answers there will be.

        Raises:
            TemplateError: the template refuses the messages, failed, or was stopped.
            InvalidRequestError: a message is malformed.
        """
        prompt = self.template.render(messages, tools=offered.schemas, **variables)
        parsers = [
            self.template.answer_parser(prompt.text, tools=offered.tools, choice=offered.choice)
            for _ in range(num_choices)
        ]
        parser = parsers[0]
        shown = self._tokens_shown(parser.markers)
        if constraint is None:
            constraint = self._tool_constraint(offered, prompt.text, shown)
        else:
            constraint = _after_reasoning(constraint, parser)
        answers = tuple(Answer(parser, prompt.warnings) for parser in parsers)
        return ChatPrompt(self._encode_rendered(prompt.text), shown, constraint, answers)

    def _encode_rendered(self, text: str) -> list[int]:
        """A rendered conversation as tokens. Templates write BOS or leave it to the tokenizer: it comes once."""
        tokenizer = self._tokenizer
        token_ids = tokenizer.encode(text, add_special=False, parse_special=True)
        if tokenizer.add_bos and tokenizer.bos_token_id is not None:
            token_ids.insert(0, tokenizer.bos_token_id)
        return _without_second_bos(token_ids, tokenizer)

    def _tokens_shown(self, markers: tuple[str, ...]) -> Mapping[int, str]:
        """Those of `markers` that are one token: text leaves control tokens out, but the parser has to see them."""
        if markers not in self._shown_tokens:
            tokenizer = self._tokenizer
            encoded = [(text, tokenizer.encode(text, add_special=False, parse_special=True)) for text in markers]
            self._shown_tokens[markers] = {
                ids[0]: text
                for text, ids in encoded
                if len(ids) == 1 and tokenizer.token_bytes(ids[0]) == text.encode("utf-8")
            }
        return self._shown_tokens[markers]

    def _tool_constraint(self, offered: OfferedTools, prompt: str, shown: Mapping[int, str]) -> ConstraintSpec | None:
        """What holds an answer to the tools of its request; None where it may be anything."""
        if not offered.tools:
            return None
        control_ids = self._tokenizer.control_token_ids | self._tokenizer.end_of_generation_ids
        token_ids = {text: token_id for token_id, text in shown.items() if token_id in control_ids}
        grammar = self.template.tool_grammar(offered.tools, offered.choice, prompt, token_ids)
        if grammar is None or grammar.after:  # a trigger in the middle of reasoning would end it
            return None
        return ConstraintSpec.lark(
            grammar.source, triggers=grammar.triggers, includes_trigger=bool(grammar.triggers), field="tools"
        )


def encode_prompt(tokenizer: Tokenizer, text: str, *, parse_special: bool) -> list[int]:
    """A text as a prompt, with the special tokens that the model expects around it. BOS comes once."""
    return _without_second_bos(tokenizer.encode(text, parse_special=parse_special), tokenizer)


def _after_reasoning(constraint: ConstraintSpec, parser: AnswerParser) -> ConstraintSpec:
    """The constraint, from the end of the reasoning on where the prompt has begun it."""
    triggers = parser.answer_triggers
    if constraint.triggers or not triggers:
        return constraint
    return dataclasses.replace(constraint, triggers=triggers, is_required=True, leading_whitespace=True)


def _without_second_bos(token_ids: list[int], tokenizer: Tokenizer) -> list[int]:
    bos = tokenizer.bos_token_id
    return token_ids[1:] if bos is not None and token_ids[:2] == [bos, bos] else token_ids
