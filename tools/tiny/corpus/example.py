"""What the corpus is made of: turns of one question and answer, and conversations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tiny.corpus.grammar import Language

Message = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Check:
    """What makes an answer right.

    Attributes:
        all_of: of each group at least one text must be in the answer, whatever its case.
        none_of: texts that must not be in the answer.
        json_value: the answer must be this value as JSON, alone or in a code block.
        calls: the tool calls that the answer must be, as (name, arguments); empty: it must be none.
        python_test: statements that must pass after the code in the answer.
        min_words: the fewest words; in Chinese, characters.
    """

    all_of: tuple[tuple[str, ...], ...] = ()
    none_of: tuple[str, ...] = ()
    json_value: Any = None
    calls: tuple[tuple[str, dict[str, Any]], ...] = ()
    python_test: str = ""
    min_words: int = 0


def says(*groups: str | tuple[str, ...], none: Sequence[str] = ()) -> Check:
    """A check for texts in the answer; a tuple offers a choice."""
    return Check(all_of=tuple((group,) if isinstance(group, str) else group for group in groups), none_of=tuple(none))


@dataclass(frozen=True, slots=True)
class Turn:
    """A question that needs no other turn, with its answer.

    Attributes:
        thought: what goes between the think tags when thinking is asked for.
    """

    question: str
    answer: str
    check: Check
    language: Language
    thought: str = ""


@dataclass(frozen=True, slots=True)
class Conversation:
    """A conversation to be trained on, or to be evaluated on its last answer.

    Attributes:
        topic: where it comes from.
        messages: as the chat template takes them; the last is an assistant's.
        check: what makes the last answer right.
        tools: JSON schemas of functions, or none.
        thinking: `enable_thinking` for the template; None: not given.
    """

    topic: str
    messages: list[Message]
    check: Check
    language: Language
    tools: list[dict[str, Any]] = field(default_factory=list)
    thinking: bool | None = None


@dataclass(frozen=True, slots=True)
class Document:
    """A text without a conversation.

    Attributes:
        given: its beginning, which is not learned.
        learned: the rest.
    """

    given: str
    learned: str
