"""The one place where chat templates are compiled and rendered.

A rendering equals that of transformers' `render_jinja_template` byte for byte, with three differences: lists and
dicts may be changed (`append`, `update`, ...), which is safe on copies; what a template may reach and spend is limited;
and whatever goes wrong is a TemplateError.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from types import CodeType, TracebackType
from typing import Any

from jinja2.environment import Template
from jinja2.exceptions import SecurityError, TemplateSyntaxError
from jinja2.exceptions import TemplateError as JinjaTemplateError
from jinja2.meta import find_undeclared_variables

from quipu.chat.limits import LimitExceededError, Meter, RenderLimits
from quipu.chat.sandbox import ChatEnvironment, RefusalError
from quipu.errors import InvalidRequestError, TemplateError

_FILENAME = "<chat template>"
_MAX_REASON_CHARS = 400
_ADVICE = "choose another with --chat-template NAME"
_REASONING_KEYS = ("reasoning_content", "thinking", "reasoning")

# What Jinja, Python's compiler and the operations of a template raise. `Exception` itself would hide our own mistakes.
_TEMPLATE_FAULTS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    JinjaTemplateError,
    LimitExceededError,
    LookupError,
    MemoryError,
    NameError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
)


class CompiledTemplate:
    """A chat template, compiled once. Rendering it changes nothing here, so threads may share it.

    Args:
        source: Jinja text.
        limits: what compiling it, and each rendering, may use.

    Raises:
        TemplateError: it is not valid Jinja, too long, or takes too long to compile.
    """

    def __init__(self, source: str, limits: RenderLimits | None = None) -> None:
        self.source = source
        self._limits = limits or RenderLimits()
        if len(source) > self._limits.template_chars:
            raise TemplateError(
                f"the chat template has {len(source)} characters, more than the {self._limits.template_chars} "
                f"that are accepted; {_ADVICE}"
            )
        environment = ChatEnvironment(Meter(self._limits))
        try:
            self._code: CodeType = environment.compile(source, filename=_FILENAME)
        except _TEMPLATE_FAULTS as error:
            raise _invalid(error) from error

    def variables(self) -> frozenset[str]:
        """The names that the template reads and does not set on every path."""
        environment = ChatEnvironment(Meter(self._limits))
        try:
            return frozenset(find_undeclared_variables(environment.parse(self.source)))
        except _TEMPLATE_FAULTS as error:
            raise _invalid(error) from error

    def render(self, variables: Mapping[str, Any], *, now: datetime | None = None) -> str:
        """The text that the template makes of `variables`, which are copied first.

        Args:
            variables: what the template sees: JSON-like values, no objects with methods of their own.
            now: the time that `strftime_now` formats; None: the clock's.

        Raises:
            TemplateError: the template refused its input, failed, or was stopped.
            InvalidRequestError: a variable is not JSON-like.
        """
        copier = _Copier()
        copies = {name: copier.copy(value, name) for name, value in variables.items()}
        if isinstance(copies.get("messages"), list):
            copies["messages"] = [_name_reasoning(message) for message in copies["messages"]]
        meter = Meter(self._limits, copier.num_chars)
        environment = ChatEnvironment(meter, now)
        template = Template.from_code(environment, self._code, environment.globals)
        try:
            return meter.join(template.root_render_func(template.new_context(copies)))
        except _TEMPLATE_FAULTS as error:
            raise _failed(error, _line_of(error.__traceback__, template)) from error


def render_template(
    template: str,
    messages: Sequence[Mapping[str, Any]],
    *,
    add_generation_prompt: bool,
    bos_token: str,
    eos_token: str,
    tools: Sequence[Mapping[str, Any]] | None = None,
    documents: Sequence[Mapping[str, Any]] | None = None,
    now: datetime | None = None,
    limits: RenderLimits | None = None,
    **variables: Any,
) -> str:
    """Render a chat template as transformers does, in a sandbox, over copies of all arguments.

    The text is exactly what the template says: no message is checked, changed or repaired. `ChatTemplate` does that.

    Args:
        template: Jinja text.
        messages: the conversation, each message with `role`, `content` and whatever else the template reads.
        add_generation_prompt: end with the words that make the model answer.
        bos_token: text of the token that begins a prompt.
        eos_token: text of the token that ends an answer.
        tools: JSON schemas of functions the model may call.
        documents: texts for the model to use, with `title` and `text`.
        now: the time for templates that state the date; None: the clock's.
        limits: what compiling and rendering may use.
        variables: further variables, such as `enable_thinking`.

    Raises:
        TemplateError: the template is invalid, refused the messages, failed, or was stopped.
        InvalidRequestError: a variable is not JSON-like.
    """
    return CompiledTemplate(template, limits).render(
        {
            "messages": messages,
            "tools": tools,
            "documents": documents,
            "add_generation_prompt": add_generation_prompt,
            "bos_token": bos_token,
            "eos_token": eos_token,
            **variables,
        },
        now=now,
    )


class _Copier:
    """Deep copies made of plain built-in types, so that a template meets no other methods."""

    def __init__(self) -> None:
        self.num_chars = 0

    def copy(self, value: Any, field: str) -> Any:
        """A copy of `value`. Raises InvalidRequestError naming `field`."""
        try:
            return self._copy(value)
        except TypeError as error:
            raise InvalidRequestError(
                f"{field} holds a value of type {error}, which a chat template cannot read; pass text, numbers, "
                "true, false, null, lists and objects",
                field=field,
            ) from None
        except RecursionError:
            raise InvalidRequestError(f"{field} is nested too deeply or contains itself", field=field) from None

    def _copy(self, value: Any) -> Any:
        if isinstance(value, str):
            self.num_chars += len(value)
            return str.__str__(value)  # a subclass may bring methods
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, int):
            return int.__int__(value)
        if isinstance(value, float):
            return float.__float__(value)
        if isinstance(value, Mapping):
            return {self._copy(key): self._copy(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self._copy(item) for item in value]
        if isinstance(value, tuple):
            return tuple(self._copy(item) for item in value)
        raise TypeError(type(value).__name__)


def _name_reasoning(message: Any) -> Any:
    """The message with its reasoning under the names that templates read, as transformers 5 does it."""
    if not isinstance(message, dict):
        return message
    reasoning = next((message[key] for key in _REASONING_KEYS if message.get(key) is not None), None)
    if reasoning is None:
        return message
    return {"thinking": reasoning, **message, "reasoning_content": reasoning}


def _line_of(traceback: TracebackType | None, template: Template) -> int | None:
    """The line of the template that was running when an exception was raised."""
    line = None
    while traceback is not None:
        if traceback.tb_frame.f_code.co_filename == _FILENAME:
            line = template.get_corresponding_lineno(traceback.tb_lineno)
        traceback = traceback.tb_next
    return line


def _reason(error: BaseException) -> str:
    """What an exception says, on one line and without its full stop."""
    if isinstance(error, KeyError):
        return (
            f"there is no {error.args[0]!r}"
            if error.args and isinstance(error.args[0], str)
            else "there is no such key"
        )
    text = error.message or "" if isinstance(error, TemplateSyntaxError) else str(error)
    text = re.sub(r"\s+", " ", text[: 4 * _MAX_REASON_CHARS]).strip().rstrip(".")
    if len(text) > _MAX_REASON_CHARS:
        text = text[:_MAX_REASON_CHARS] + "..."
    return text or type(error).__name__


def _invalid(error: BaseException) -> TemplateError:
    """The error for a template that cannot be compiled."""
    if isinstance(error, TemplateSyntaxError):
        return TemplateError(f"the chat template is invalid at line {error.lineno}: {_reason(error)}; {_ADVICE}")
    if isinstance(error, LimitExceededError):
        return TemplateError(f"the chat template was refused because it {_reason(error)}; {_ADVICE}")
    if isinstance(error, RecursionError | MemoryError | SyntaxError):
        return TemplateError(f"the chat template is nested too deeply to compile; {_ADVICE}")
    if isinstance(error, ValueError):  # Python converts no more digits than sys.get_int_max_str_digits()
        return TemplateError(f"the chat template is invalid: it holds a number that is too long; {_ADVICE}")
    return TemplateError(f"the chat template is invalid: {_reason(error)}; {_ADVICE}")


def _failed(error: BaseException, line: int | None) -> TemplateError:
    """The error for a rendering that did not end well."""
    place = f" at line {line}" if line is not None else ""
    if isinstance(error, RefusalError):
        return TemplateError(
            f"the chat template refused the messages{place}: {_reason(error)}; change them or {_ADVICE}"
        )
    if isinstance(error, LimitExceededError):
        return TemplateError(f"the chat template was stopped{place} because it {_reason(error)}; {_ADVICE}")
    if isinstance(error, RecursionError):
        return TemplateError(f"the chat template was stopped{place} because it calls itself too deeply; {_ADVICE}")
    if isinstance(error, MemoryError):
        return TemplateError(f"the chat template was stopped{place} because memory ran out; {_ADVICE}")
    if isinstance(error, SecurityError):
        return TemplateError(
            f"the chat template was stopped{place} for what templates may not do: {_reason(error)}; {_ADVICE}"
        )
    return TemplateError(f"the chat template failed{place}: {_reason(error)}; change the messages or {_ADVICE}")
