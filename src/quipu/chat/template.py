"""The chat template of a model: where it comes from, and from messages to the text of a prompt."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from typing import Any

from quipu.chat.answer import AnswerParser
from quipu.chat.builtin import BUILTIN_TEMPLATES, builtin_template
from quipu.chat.capabilities import TemplateCapabilities, supplied
from quipu.chat.history import complete, split_calls
from quipu.chat.limits import RenderLimits
from quipu.chat.messages import Message, check_messages, check_tools, map_arguments, text_of
from quipu.chat.reasoning import ReasoningParser
from quipu.chat.render import CompiledTemplate
from quipu.chat.tools import Reasoning, Tool, ToolChoice, ToolFormat, ToolGrammar, ToolParser, write_tool_grammar
from quipu.errors import InvalidRequestError, TemplateError, UsageError

_KEY = "tokenizer.chat_template"
_FALLBACK = "chatml"
_FALLBACK_WARNING = (
    f"the file has no chat template, so {_FALLBACK} is used, which may not be what the model was taught; "
    "choose with --chat-template NAME"
)
_CONTINUE = "\ue0c0quipu continues here\ue0c1 "  # ends in a space, to see whether the template trims


@dataclass(frozen=True, slots=True)
class RenderedPrompt:
    """A conversation as the text of a prompt.

    Attributes:
        text: to be encoded with special tokens parsed.
        warnings: what was repaired or left out.
        starts_with_bos: the text begins with BOS already, so that encoding it must not add another.
    """

    text: str
    warnings: tuple[str, ...] = ()
    starts_with_bos: bool = False


class ChatTemplate:
    """Turns messages into prompts as a model was taught to read them. Threads may share it.

    Args:
        source: Jinja text.
        name: what to call it: "default", a variant, a built-in name, or "custom".
        bos_token: text of the token that begins a prompt, "" where there is none.
        eos_token: text of the token that ends an answer.
        tool_source: Jinja text to use instead when tools are given.
        warnings: what users should know each time it is used.
        limits: what compiling it, and each rendering, may use.

    Raises:
        TemplateError: `source` is not valid Jinja, too long, or takes too long to compile.
    """

    def __init__(
        self,
        source: str,
        *,
        name: str = "custom",
        bos_token: str = "",
        eos_token: str = "",
        tool_source: str | None = None,
        warnings: tuple[str, ...] = (),
        limits: RenderLimits | None = None,
    ) -> None:
        self.name = name
        self.source = source
        self.warnings = warnings
        self._tokens = {"bos_token": bos_token, "eos_token": eos_token}
        self._template = CompiledTemplate(source, limits)
        self._tool_source = tool_source
        self._limits = limits

    @classmethod
    def from_metadata(
        cls,
        metadata: Mapping[str, object],
        *,
        override: str | None = None,
        bos_token: str = "",
        eos_token: str = "",
    ) -> ChatTemplate:
        """The template of a model file, or another in its place.

        Args:
            metadata: of the file. `tokenizer.chat_template` is the template; `tokenizer.chat_template.NAME` are
                variants, of which `tool_use` is taken when tools are given.
            override: a variant of the file, a built-in name, or Jinja text; None: the file's own.
            bos_token: text of the token that begins a prompt.
            eos_token: text of the token that ends an answer.

        Raises:
            UsageError: there is no template named `override`.
            TemplateError: the template is invalid.
        """
        variants = {
            key.removeprefix(_KEY).removeprefix(".") or "default": value
            for key, value in metadata.items()
            if key == _KEY or key.startswith(f"{_KEY}.")
        }
        for name, value in variants.items():
            if not isinstance(value, str):
                raise TemplateError(f"the chat template {name!r} of the file is not a text; its metadata is damaged")
        sources: dict[str, str] = {name: value for name, value in variants.items() if isinstance(value, str) and value}
        tool_source: str | None = None
        warnings: tuple[str, ...] = ()
        if override:
            name, source = _find(override, sources)
        elif "default" in sources:
            name, source, tool_source = "default", sources["default"], sources.get("tool_use")
        elif sources:
            name, source = next(iter(sources.items()))
            warnings = (f"the file has no default chat template, so its template {name!r} is used",)
        else:
            name, source, warnings = _FALLBACK, builtin_template(_FALLBACK), (_FALLBACK_WARNING,)
        return cls(
            source, name=name, bos_token=bos_token, eos_token=eos_token, tool_source=tool_source, warnings=warnings
        )

    @classmethod
    def from_gguf(cls, metadata: Mapping[str, Any], override_name: str | None = None) -> ChatTemplate:
        """`from_metadata` with the BOS and EOS tokens that the file's vocabulary names."""
        return cls.from_metadata(
            metadata,
            override=override_name,
            bos_token=_token_text(metadata, "bos"),
            eos_token=_token_text(metadata, "eos"),
        )

    @cached_property
    def capabilities(self) -> TemplateCapabilities:
        """What the template can show."""
        return TemplateCapabilities(self._template, **self._tokens)

    @cached_property
    def _tool_template(self) -> ChatTemplate | None:
        """The variant for conversations with tools, where the default does not show them."""
        if self._tool_source is None or self.capabilities.supports_tools:
            return None
        return ChatTemplate(
            self._tool_source,
            name="tool_use",
            bos_token=self._tokens["bos_token"],
            eos_token=self._tokens["eos_token"],
            warnings=self.warnings,
            limits=self._limits,
        )

    @property
    def tool_format(self) -> ToolFormat:
        """How the model writes tool calls."""
        return (self._tool_template or self).capabilities.tool_format

    @property
    def supports_tools(self) -> bool:
        """Definitions of tools reach the prompt."""
        return (self._tool_template or self).capabilities.supports_tools

    def answer_parser(
        self, prompt: str = "", continued: str = "", *, tools: Sequence[Tool] = (), choice: ToolChoice | None = None
    ) -> AnswerParser:
        """What splits the answer to a rendered prompt, or the rest of a message, into reasoning, text and tool calls.

        Args:
            prompt: as rendered.
            continued: the text of the message that the model is to continue, if any.
            tools: those that were offered.
            choice: what may be called; None: any tool.
        """
        if not tools or (choice is not None and choice.mode == "none"):
            reasoning = self.reasoning_parser(prompt, continued)
            return AnswerParser(reasoning, None, reasoning.markers)
        tool_format = self.tool_format
        interrupts = tool_format.openings if tool_format.ends_reasoning else ()
        reasoning = self._reasoning_parser(prompt, continued, interrupts)
        new_id = (self._tool_template or self).capabilities.call_ids.generator()
        parser = ToolParser(tool_format, tools, new_id, prompt)
        return AnswerParser(reasoning, parser, tuple(dict.fromkeys(reasoning.markers + tool_format.markers)))

    def tool_grammar(
        self, tools: Sequence[Tool], choice: ToolChoice, prompt: str = "", token_ids: Mapping[str, int] | None = None
    ) -> ToolGrammar | None:
        """The grammar that holds the answer to the tools of the request; None where it may be anything.

        Args:
            tools: those of the request.
            choice: which of them may or must be called.
            prompt: as rendered.
            token_ids: the control tokens among the markers of `answer_parser`, by their text.
        """
        able = (self._tool_template or self).capabilities
        if able.supports_tool_calls and not able.supports_parallel_calls:
            choice = replace(choice, is_parallel=False)
        parser = self.reasoning_parser(prompt)
        tags = parser.next_tags
        reasoning = None if tags is None else Reasoning(tags.opening, tags.closing, parser.is_reasoning)
        return write_tool_grammar(
            self.tool_format, tools, choice, token_ids=token_ids, prompt=prompt, reasoning=reasoning
        )

    def reasoning_parser(self, prompt: str = "", continued: str = "") -> ReasoningParser:
        """What splits the answer to a rendered prompt, or the rest of a message, into reasoning and content."""
        return self._reasoning_parser(prompt, continued, ())

    def _reasoning_parser(self, prompt: str, continued: str, interrupts: Sequence[str]) -> ReasoningParser:
        source = self.source + (self._tool_source or "")
        return ReasoningParser.for_template(source, prompt, continued, interrupts)

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        documents: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        now: datetime | None = None,
        **variables: Any,
    ) -> RenderedPrompt:
        """The prompt for a conversation.

        What the template cannot take is repaired where the meaning stays the same, with a warning where it may not:

        * a system message that it refuses or drops goes before the user message that follows it, with a warning;
        * variables that it cannot do without (`functions`, `datetime`, `tools=[]`) are supplied;
        * lists of text parts become texts or texts become lists; arguments of tool calls become JSON or objects;
        * ids of tool calls take the form that the template demands, and several calls of one answer become several
          answers where it shows only one;
        * `developer` becomes `system` where the template does not know it.

        Args:
            messages: the conversation, the oldest first.
            tools: JSON schemas of functions the model may call.
            documents: texts for the model to use, with `title` and `text`.
            add_generation_prompt: end with the words that make the model answer.
            continue_final_message: leave the last message open, for the model to continue; it must be an assistant's.
            now: the time for templates that state the date; None: the clock's.
            variables: further variables, such as `enable_thinking`.

        Raises:
            InvalidRequestError: a message or tool is malformed; the error names the field.
            TemplateError: the template refused the messages, failed, or was stopped.
        """
        chosen = self if not tools or self._tool_template is None else self._tool_template
        checked = check_messages(messages, chosen._names)
        fitted, repairs = chosen._fit(checked)
        if continue_final_message:
            fitted = _mark_end(fitted)
        checked_tools = check_tools(tools)
        if checked_tools and chosen.capabilities.needs_complete_tools:
            checked_tools = complete(checked_tools)
        text = chosen._template.render(
            {
                "messages": fitted,
                "tools": checked_tools,
                "documents": documents,
                "add_generation_prompt": add_generation_prompt and not continue_final_message,
                **self._tokens,
                **supplied(chosen.capabilities.missing_variables, checked_tools, now),
                **chosen._synonyms(variables),
            },
            now=now,
        )
        if continue_final_message:
            text = _cut_at_mark(text)
        bos_token = self._tokens["bos_token"]
        warnings = (*self.warnings, *chosen._unread(checked, tools, documents, variables), *repairs)
        return RenderedPrompt(text, warnings, bool(bos_token) and text.startswith(bos_token))

    def _names(self, role: str) -> bool:
        """Whether the template spells out a role."""
        return f"'{role}'" in self.source or f'"{role}"' in self.source

    def _unread(
        self, messages: list[Message], tools: object, documents: object, variables: Mapping[str, Any]
    ) -> list[str]:
        """Warnings about what was given but will not reach the prompt."""
        able = self.capabilities
        warnings = [
            f"the chat template does not use {name}, so it had no effect"
            for name in variables
            if name not in able.variables and not (name == "enable_thinking" and "thinking" in able.variables)
        ]
        if documents and "documents" not in able.variables:
            warnings.append("the chat template does not show documents to the model, so they were left out")
        if tools and not able.supports_tools:
            warnings.append("the chat template does not show tools to the model, so they were left out")
        if any(message.get("tool_calls") for message in messages) and not able.supports_tool_calls:
            warnings.append("the chat template does not show tool calls to the model, so they were left out")
        if any(message["role"] == "tool" for message in messages) and not able.supports_tool_results:
            warnings.append("the chat template does not show the results of tools to the model, so they were left out")
        return warnings

    def _synonyms(self, variables: Mapping[str, Any]) -> dict[str, Any]:
        """The caller's variables; `enable_thinking` also as `thinking`, where the template calls it so."""
        names = dict(variables)
        if (
            "enable_thinking" in names
            and "thinking" not in names
            and "enable_thinking" not in self.capabilities.variables
        ):
            names["thinking"] = names["enable_thinking"]
        return names

    def _fit(self, messages: list[Message]) -> tuple[list[Message], list[str]]:
        """The messages in the form that the template takes, and warnings about it."""
        able = self.capabilities
        warnings = []
        if any(message["role"] == "developer" for message in messages) and not self._names("developer"):
            messages = [{**m, "role": "system"} if m["role"] == "developer" else m for m in messages]
        num_leading = next((i for i, m in enumerate(messages) if m["role"] != "system"), len(messages))
        if num_leading and not able.supports_system:
            messages = _fold_system(messages, 0)
            warnings.append("the chat template has no system message, so it was put before the first user message")
        elif any(m["role"] == "system" for m in messages[num_leading:]) and not able.supports_later_system:
            messages = _fold_system(messages, num_leading)
            warnings.append(
                "the chat template takes no system message after the start, so it was put before the next user message"
            )
        if any(isinstance(m.get("content"), list) for m in messages) and not able.accepts_parts:
            messages = [
                {**m, "content": text_of(m["content"])} if isinstance(m.get("content"), list) else m for m in messages
            ]
        elif not able.accepts_text and able.accepts_parts:
            messages = [
                {**m, "content": [{"type": "text", "text": m["content"]}]} if isinstance(m.get("content"), str) else m
                for m in messages
            ]
        return self._fit_calls(messages), warnings

    def _fit_calls(self, messages: list[Message]) -> list[Message]:
        """The messages with tool calls, and answers without text, written as the template wants them."""
        able = self.capabilities
        if any(message.get("tool_calls") for message in messages) and able.supports_tool_calls:
            if not able.accepts_text_arguments:
                messages = map_arguments(messages, to_object=True)
            elif not able.accepts_object_arguments:
                messages = map_arguments(messages, to_object=False)
            messages = able.call_ids.fit(messages)
            if not able.supports_parallel_calls:
                messages = split_calls(messages)
            return [able.fit_empty_content(message) for message in messages]
        return [{**m, "content": ""} if m.get("content") is None else m for m in messages]


def _find(override: str, sources: Mapping[str, str]) -> tuple[str, str]:
    """The name and text of the template that a user chose."""
    if "{" in override:
        return "custom", override
    if override in sources:
        return override, sources[override]
    if override in BUILTIN_TEMPLATES:
        return override, builtin_template(override)
    names = sorted({*sources, *BUILTIN_TEMPLATES})
    close = difflib.get_close_matches(override, names, 3)
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    raise UsageError(f"there is no chat template {override!r}; {hint}known are {', '.join(names)}, or give Jinja text")


def _token_text(metadata: Mapping[str, Any], kind: str) -> str:
    """The text of the file's BOS or EOS token, "" where it names none."""
    token_id = metadata.get(f"tokenizer.ggml.{kind}_token_id")
    tokens = metadata.get("tokenizer.ggml.tokens")
    if not isinstance(token_id, int) or tokens is None or not 0 <= token_id < len(tokens):
        return ""
    return str(tokens[token_id])


def _fold_system(messages: list[Message], start: int) -> list[Message]:
    """The messages with each system message from `start` on put before the text of the user message that follows."""
    folded = list(messages[:start])
    pending: list[str] = []
    for message in messages[start:]:
        if message["role"] == "system":
            pending.append(text_of(message.get("content")))
            continue
        if pending and message["role"] == "user":
            prefix = "\n\n".join(pending) + "\n\n"
            content = message["content"]
            content = [{"type": "text", "text": prefix}, *content] if isinstance(content, list) else prefix + content
            message = {**message, "content": content}
            pending = []
        elif pending:
            folded.append({"role": "user", "content": "\n\n".join(pending)})
            pending = []
        folded.append(message)
    if pending:
        folded.append({"role": "user", "content": "\n\n".join(pending)})
    return folded


def _mark_end(messages: list[Message]) -> list[Message]:
    """The messages with a mark after the text of the last, which is to be continued."""
    last = messages[-1]
    content = last.get("content")
    field = f"messages[{len(messages) - 1}]"
    if last["role"] != "assistant":
        raise InvalidRequestError(
            f"{field}.role must be 'assistant' for the message to be continued, not {last['role']!r}", field=field
        )
    if isinstance(content, list) and content:
        content = [*content[:-1], {**content[-1], "text": content[-1]["text"] + _CONTINUE}]
    elif isinstance(content, str):
        content += _CONTINUE
    else:
        raise InvalidRequestError(f"{field}.content must be a text to be continued", field=field)
    return [*messages[:-1], {**last, "content": content}]


def _cut_at_mark(text: str) -> str:
    """The text before the mark; without its trailing spaces where the template trims messages."""
    mark = _CONTINUE.strip()
    place = text.rfind(mark)
    if place < 0:
        raise TemplateError("the chat template does not show the last message as it is, so it cannot be continued")
    if text.startswith(_CONTINUE, place):
        return text[:place]
    return text[:place].rstrip()
