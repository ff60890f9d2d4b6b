"""Splits what a model writes into reasoning and answer while it is being written.

Models mark their reasoning with a pair of tags (`<think>...</think>` and its kin) or, as gpt-oss does, by sending
messages on channels. Which it is shows in the chat template; where the template says nothing, the common tags count at
the very beginning of an answer.

No text is lost: reasoning and content together are the input without the tags, and without the white space around the
opening tag, before the closing one and after it. How the text is cut into pieces makes no difference.

Tags may be special tokens of the vocabulary, so the text must be decoded with those in `ReasoningParser.markers` shown.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import NamedTuple


class ReasoningDelta(NamedTuple):
    """What a piece of text added."""

    reasoning: str
    content: str


@dataclass(frozen=True, slots=True)
class ReasoningTags:
    """How one family of models marks reasoning.

    Attributes:
        opening: begins the reasoning.
        closing: ends it.
        anywhere: special tokens, which also count after the answer has begun; other tags count only at its start.
        dropped: further special tokens around the answer, which are no part of it.
    """

    opening: str
    closing: str
    anywhere: bool = False
    dropped: tuple[str, ...] = ()


# As the models' authors write them in their templates and model cards.
TAGS: tuple[ReasoningTags, ...] = (
    ReasoningTags("<think>", "</think>"),
    ReasoningTags("<thinking>", "</thinking>"),
    ReasoningTags("<thought>", "</thought>"),
    ReasoningTags("<reasoning>", "</reasoning>"),
    ReasoningTags("<seed:think>", "</seed:think>"),
    ReasoningTags("<mm:think>", "</mm:think>"),
    ReasoningTags("◁think▷", "◁/think▷"),
    ReasoningTags("[THINK]", "[/THINK]", True),
    ReasoningTags("[unused16]", "[unused17]", True),
    ReasoningTags("<|channel>thought", "<channel|>", True),
    ReasoningTags("<|inner_prefix|>", "<|inner_suffix|>", True),
    ReasoningTags("<|START_THINKING|>", "<|END_THINKING|>", True, ("<|START_RESPONSE|>", "<|END_RESPONSE|>")),
    ReasoningTags("<|begin_of_thought|>", "<|end_of_thought|>", True, ("<|begin_of_solution|>", "<|end_of_solution|>")),
    ReasoningTags("<|think|>", "<|end|>", True, ("<|begin|>assistant", "<|content|>")),
)
_COMMON = ("<think>", "<thinking>", "◁think▷", "[THINK]", "<seed:think>")
# Tags that some models put around the answer after their reasoning.
_WRAPPERS = (("<response>", "</response>"), ("<answer>", "</answer>"))


class ReasoningParser(ABC):
    """Takes text as it is generated: `append` any number of times, then `flush` once."""

    @staticmethod
    def for_template(
        template: str, prompt: str = "", continued: str = "", interrupts: Sequence[str] = ()
    ) -> ReasoningParser:
        """The parser for the answer to a prompt.

        Args:
            template: Jinja text of the chat template, which shows how reasoning is marked.
            prompt: the rendered prompt, which may end with an opening tag.
            continued: the text of the message that the model is to continue, if any.
            interrupts: texts that end reasoning although it is not closed, and begin the content.
        """
        if "<|channel|>" in template and "<|message|>" in template:
            return HarmonyParser(prompt)
        named = [tags for tags in TAGS if _is_named(tags, template)]
        families = named or [replace(tags, anywhere=False) for tags in TAGS if tags.opening in _COMMON]
        wrappers = [pair for pair in _WRAPPERS if all(tag in template for tag in pair)]
        return TagParser(families, wrappers, prompt, continued, interrupts, is_guess=not named)

    @property
    @abstractmethod
    def markers(self) -> tuple[str, ...]:
        """Texts that must not be hidden when tokens are decoded, although they may be special tokens."""

    @property
    def next_tags(self) -> ReasoningTags | None:
        """The tags of the reasoning that may come next; None where none is expected, or it is not marked by tags."""
        return None

    @property
    def is_reasoning(self) -> bool:
        """Reasoning has begun and not ended."""
        return False

    @property
    @abstractmethod
    def answer_triggers(self) -> tuple[str, ...]:
        """The texts, one of which comes before the answer; none where the answer may begin at once."""

    @abstractmethod
    def append(self, text: str) -> ReasoningDelta:
        """Take more text; returns what became certain. What may be the beginning of a tag is held back."""

    @abstractmethod
    def flush(self) -> ReasoningDelta:
        """What was held back, once the text has ended."""


class _Mode(Enum):
    BEFORE_CONTENT = auto()  # only white space has been seen since the start or the closing tag
    CONTENT = auto()
    BEFORE_REASONING = auto()  # only white space has been seen since the opening tag
    REASONING = auto()


class TagParser(ReasoningParser):
    """For reasoning between two tags.

    Args:
        families: the tags to look for.
        wrappers: pairs of tags that are removed where they enclose the answer.
        prompt: reasoning has begun where this ends with an opening tag.
        continued: reasoning has begun where this opens a tag and does not close it.
        interrupts: texts that end reasoning although it is not closed, and begin the content.
        is_guess: nothing says that the model uses these tags.
    """

    def __init__(
        self,
        families: Sequence[ReasoningTags],
        wrappers: Sequence[tuple[str, str]] = (),
        prompt: str = "",
        continued: str = "",
        interrupts: Sequence[str] = (),
        is_guess: bool = False,
    ) -> None:
        self._families = tuple(families)
        self._interrupts = tuple(interrupts)
        self._is_guess = is_guess
        self._wrappers = tuple(wrappers)
        self._dropped = tuple(tag for tags in families for tag in tags.dropped)
        self._inside: ReasoningTags | None = None
        self._wrapper_end: str | None = None
        self._buffer = ""
        self._space = ""  # white space that is kept only if content follows directly
        self._drops_space = False
        self._mode = _Mode.BEFORE_CONTENT
        for tags in self._families:
            is_open = continued.rfind(tags.opening) > continued.rfind(tags.closing)
            if is_open or prompt.rstrip().endswith(tags.opening):
                self._open(tags)

    @property
    def markers(self) -> tuple[str, ...]:
        tags = [tag for family in self._families for tag in (family.opening, family.closing, *family.dropped)]
        return (*tags, *(tag for pair in self._wrappers for tag in pair))

    @property
    def next_tags(self) -> ReasoningTags | None:
        if self._inside is not None:
            return self._inside
        return None if self._is_guess else self._families[0]

    @property
    def is_reasoning(self) -> bool:
        return self._inside is not None

    @property
    def answer_triggers(self) -> tuple[str, ...]:
        return () if self._inside is None else (self._inside.closing,)

    def append(self, text: str) -> ReasoningDelta:
        self._buffer += text
        reasoning: list[str] = []
        content: list[str] = []
        while self._buffer and self._step(reasoning, content):
            pass
        return ReasoningDelta("".join(reasoning), "".join(content))

    def flush(self) -> ReasoningDelta:
        rest, self._buffer = self._buffer, ""
        if self._inside is not None:
            return ReasoningDelta(rest, "")
        space, self._space = self._space, ""
        return ReasoningDelta("", space + rest)  # white space alone is an answer, too

    def _step(self, reasoning: list[str], content: list[str]) -> bool:
        """Take something off the buffer. Returns whether there may be more to take."""
        if self._mode is _Mode.BEFORE_CONTENT:
            return self._step_before_content(content)
        if self._mode is _Mode.CONTENT:
            return self._step_content(content)
        assert self._inside is not None
        if self._mode is _Mode.BEFORE_REASONING:
            return self._step_before_reasoning(self._inside)
        return self._step_reasoning(self._inside, reasoning)

    def _step_before_content(self, content: list[str]) -> bool:
        text = self._buffer.lstrip()
        if not self._drops_space:
            self._space += self._buffer[: len(self._buffer) - len(text)]
        self._buffer = text
        openings = {tags.opening: tags for tags in self._families}
        wrappers = dict(self._wrappers)
        tags = (*openings, *wrappers, *self._dropped)
        tag = _leading(text, tags)
        if tag is None:
            if not text or _may_begin(text, tags):
                return False
            content.append(self._space)
            self._space = ""
            self._mode = _Mode.CONTENT
            return True
        self._buffer = text[len(tag) :]
        self._space = ""
        self._drops_space = True
        if tag in openings:
            self._open(openings[tag])
        elif tag in wrappers:
            self._wrapper_end = wrappers[tag]
        return True

    def _step_content(self, content: list[str]) -> bool:
        openings = [tags.opening for tags in self._families if tags.anywhere]
        tags = [*openings, *self._dropped, *([self._wrapper_end] if self._wrapper_end else [])]
        place, tag = _first(self._buffer, tags)
        if tag is None:
            kept = len(self._buffer) - _num_held(self._buffer, tags)
            content.append(self._buffer[:kept])
            self._buffer = self._buffer[kept:]
            return False
        content.append(self._buffer[:place])
        self._buffer = self._buffer[place + len(tag) :]
        if tag in openings:
            self._open(next(family for family in self._families if family.opening == tag))
        elif tag == self._wrapper_end:
            self._wrapper_end = None
        return True

    def _step_before_reasoning(self, inside: ReasoningTags) -> bool:
        text = self._buffer.lstrip()
        self._buffer = text
        tag = _leading(text, (inside.opening, inside.closing))
        if tag == inside.closing:
            self._close(len(tag))
        elif tag is not None:  # the prompt has opened it, and the model does so again
            self._buffer = text[len(tag) :]
        elif not text or _may_begin(text, (inside.opening, inside.closing)):
            return False
        else:
            self._mode = _Mode.REASONING
        return True

    def _step_reasoning(self, inside: ReasoningTags, reasoning: list[str]) -> bool:
        ends = (inside.closing, *self._interrupts)
        place, tag = _first(self._buffer, ends)
        if tag is None:
            kept = len(self._buffer[: len(self._buffer) - _num_held(self._buffer, ends)].rstrip())
            reasoning.append(self._buffer[:kept])
            self._buffer = self._buffer[kept:]
            return False
        reasoning.append(self._buffer[:place].rstrip())
        self._close(place + len(tag) if tag == inside.closing else place)
        return True

    def _open(self, tags: ReasoningTags) -> None:
        self._inside = tags
        self._mode = _Mode.BEFORE_REASONING

    def _close(self, num_chars: int) -> None:
        self._inside = None
        self._mode = _Mode.BEFORE_CONTENT
        self._drops_space = True
        self._buffer = self._buffer[num_chars:]


_START = "<|start|>"
_CHANNEL = "<|channel|>"
_MESSAGE = "<|message|>"
_CONSTRAIN = "<|constrain|>"
_ENDS = ("<|end|>", "<|return|>", "<|call|>")
_HEADER_BEGINS = (_START, _CHANNEL, _MESSAGE, _CONSTRAIN, " to=")
_MAX_HEADER_CHARS = 500
_RECIPIENT = re.compile(r"to=\S")


class HarmonyParser(ReasoningParser):
    """For gpt-oss, whose answers are messages `<|channel|>NAME<|message|>text<|end|>` (the Harmony format).

    Messages on the channel `analysis` are reasoning. A message to a tool stays in the content as it is, with its header
    and end. All others are content.

    Args:
        prompt: ends with the beginning of an assistant's message.
    """

    def __init__(self, prompt: str = "") -> None:
        self._buffer = ""
        self._header = ""  # of the message that is being read; kept until it is known to be one
        self._in_header = True
        self._is_reasoning = False
        self._is_raw = False
        _, start, tail = prompt.rpartition(_START)
        if start and not any(end in tail for end in _ENDS):
            header, found, _ = tail.removeprefix("assistant").partition(_MESSAGE)
            if found:
                self._begin_message(header, [])
            else:
                self._header = header

    @property
    def markers(self) -> tuple[str, ...]:
        return (_START, _CHANNEL, _MESSAGE, _CONSTRAIN, *_ENDS)

    @property
    def answer_triggers(self) -> tuple[str, ...]:
        if not self._in_header and not self._is_reasoning:
            return ()
        kinds = ("", f"{_CONSTRAIN}json", f" {_CONSTRAIN}json")
        return tuple(f"{_CHANNEL}final{kind}{_MESSAGE}" for kind in kinds)

    def append(self, text: str) -> ReasoningDelta:
        self._buffer += text
        reasoning: list[str] = []
        content: list[str] = []
        while self._buffer and (self._step_header(content) if self._in_header else self._step_body(reasoning, content)):
            pass
        return ReasoningDelta("".join(reasoning), "".join(content))

    def flush(self) -> ReasoningDelta:
        rest, self._buffer = self._buffer, ""
        if self._in_header and (self._header or _leading(rest, _HEADER_BEGINS)):
            return ReasoningDelta("", "")  # a header whose message never came
        return ReasoningDelta(rest, "") if self._is_reasoning and not self._in_header else ReasoningDelta("", rest)

    def _step_header(self, content: list[str]) -> bool:
        text = self._buffer
        if not self._header and _leading(text, _HEADER_BEGINS) is None:
            if _may_begin(text, _HEADER_BEGINS):
                return False
            self._begin_message("", content)  # a model that does not keep to the format
            return True
        place, end = _first(text, (_MESSAGE, *_ENDS))
        if end is not None and place <= _MAX_HEADER_CHARS:
            self._buffer = text[place + len(end) :]
            if end == _MESSAGE:
                self._begin_message(self._header + text[:place], content)
            else:
                content.append(self._header + text[:place])
                self._header = ""
            return True
        if len(text) < _MAX_HEADER_CHARS + len(_CONSTRAIN):
            return False
        content.append(self._header + text[:_MAX_HEADER_CHARS])  # no header is that long
        self._buffer = text[_MAX_HEADER_CHARS:]
        self._begin_message("", content)
        return True

    def _begin_message(self, header: str, content: list[str]) -> None:
        self._header = ""
        self._in_header = False
        self._is_raw = _RECIPIENT.search(header) is not None
        self._is_reasoning = not self._is_raw and "analysis" in header.partition(_CHANNEL)[2]
        if self._is_raw:
            content.append(header + _MESSAGE)

    def _step_body(self, reasoning: list[str], content: list[str]) -> bool:
        out = reasoning if self._is_reasoning else content
        tags = (*_ENDS, _START, _CHANNEL)
        place, tag = _first(self._buffer, tags)
        if tag is None:
            kept = len(self._buffer) - _num_held(self._buffer, tags)
            out.append(self._buffer[:kept])
            self._buffer = self._buffer[kept:]
            return False
        out.append(self._buffer[:place])
        if tag in _ENDS:
            self._buffer = self._buffer[place + len(tag) :]
            if self._is_raw:
                out.append(tag)
        else:  # the next message begins without an end of this one
            self._buffer = self._buffer[place:]
        self._in_header = True
        return True


def _is_named(tags: ReasoningTags, template: str) -> bool:
    """Whether a template shows that its model uses these tags. Of special tokens it must name both."""
    found = (tags.opening in template, tags.closing in template)
    return all(found) if tags.opening.startswith("<|") else any(found)


def _leading(text: str, tags: Iterable[str]) -> str | None:
    """The tag that `text` begins with."""
    return next((tag for tag in tags if text.startswith(tag)), None)


def _may_begin(text: str, tags: Iterable[str]) -> bool:
    """Whether `text` could become one of the tags if more followed."""
    return any(tag.startswith(text) for tag in tags)


def _first(text: str, tags: Iterable[str]) -> tuple[int, str] | tuple[int, None]:
    """Where the first of the tags is in `text`, and which it is."""
    found = [(place, tag) for tag in tags if (place := text.find(tag)) >= 0]
    return min(found) if found else (-1, None)


def _num_held(text: str, tags: Iterable[str]) -> int:
    """How many characters at the end of `text` may be the beginning of a tag."""
    longest = max((len(tag) for tag in tags), default=0)
    for num_chars in range(min(longest - 1, len(text)), 0, -1):
        if _may_begin(text[-num_chars:], tags):
            return num_chars
    return 0
