"""The environment that chat templates run in: Jinja's immutable sandbox, narrowed to lists of what is allowed.

The code that Jinja generates is changed so that everything a template does passes through a `Meter`:
each block and loop turn counts a step; operators, comparisons, slices, `~` and printing check sizes first. Constants
are never folded at compile time, where no meter runs.

One environment serves one rendering, so nothing is shared between renderings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from types import BuiltinMethodType, MethodType
from typing import Any, NoReturn

from jinja2 import nodes
from jinja2.compiler import CodeGenerator, Frame, operators
from jinja2.exceptions import SecurityError
from jinja2.exceptions import TemplateError as JinjaTemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.lexer import Token, TokenStream
from jinja2.parser import Parser
from jinja2.runtime import BlockReference, Context, LoopContext, Macro, Undefined
from jinja2.sandbox import MAX_RANGE, ImmutableSandboxedEnvironment
from jinja2.utils import Cycler, Joiner, Namespace, pass_context
from markupsafe import Markup

from quipu.chat.filters import FILTERS, TESTS
from quipu.chat.limits import LimitExceededError, Meter
from quipu.chat.operations import BoundFormat, call_method, methods_of, operate

_MAX_DATE_FORMAT_CHARS = 1000
_MAX_CALL_DEPTH = 150  # of macros that call macros, recursive loops and blocks

# What may be read on the objects that Jinja itself hands to templates.
_ATTRIBUTES: tuple[tuple[type, frozenset[str]], ...] = (
    (
        LoopContext,
        frozenset(("depth", "depth0", "first", "index", "index0", "last", "length", "revindex", "revindex0")),
    ),
    (LoopContext, frozenset(("changed", "cycle", "nextitem", "previtem"))),
    (Macro, frozenset(("arguments", "caller", "catch_kwargs", "catch_varargs", "name"))),
    (BlockReference, frozenset(("super",))),
    (Cycler, frozenset(("current", "next", "reset"))),
    (tuple, frozenset(("grouper", "list"))),  # of the groups that `groupby` makes
)
_CALLABLE = (Macro, LoopContext, BlockReference, Joiner, Undefined, BoundFormat)


class RefusalError(JinjaTemplateError):
    """The template called `raise_exception`."""


class GenerationTag(Extension):
    """`{% generation %}` marks what the model wrote, for training; here it only groups."""

    tags = {"generation"}  # noqa: RUF012 - Jinja declares it so

    def parse(self, parser: Parser) -> nodes.Node:
        """Read the tag and its body."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body).set_lineno(line)


class MeteredCodeGenerator(CodeGenerator):
    """Generates code that reports to the environment's meter."""

    environment: ChatEnvironment

    def write_commons(self) -> None:
        super().write_commons()
        self.writeline("tick = environment.meter.tick")

    def blockvisit(self, statements: Iterable[nodes.Node], frame: Frame) -> None:
        self.environment.meter.tick()
        self.writeline("tick()")
        super().blockvisit(statements, frame)

    def _visit_bound(self, node: nodes.Node, frame: Frame) -> None:
        """Write an expression whose value will be compared or hashed."""
        if isinstance(node, nodes.Const):
            self.visit(node, frame)
            return
        self.write("environment.meter.bound(")
        self.visit(node, frame)
        self.write(")")

    def visit_Compare(self, node: nodes.Compare, frame: Frame) -> None:
        self.write("(")
        self._visit_bound(node.expr, frame)
        for operand in node.ops:
            self.write(f" {operators[operand.op]} ")
            self._visit_bound(operand.expr, frame)
        self.write(")")

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:
        self.write("environment.concatenate((")
        for part in node.nodes:
            self.visit(part, frame)
            self.write(", ")
        self.write("))")

    def visit_Dict(self, node: nodes.Dict, frame: Frame) -> None:
        self.write("{")
        for item in node.items:
            self._visit_bound(item.key, frame)
            self.write(": ")
            self.visit(item.value, frame)
            self.write(", ")
        self.write("}")

    def visit_Getitem(self, node: nodes.Getitem, frame: Frame) -> None:
        if not isinstance(node.arg, nodes.Slice):
            super().visit_Getitem(node, frame)
            return
        self.write("environment.take(")
        self.visit(node.node, frame)
        self.write(", slice(")
        for bound in (node.arg.start, node.arg.stop, node.arg.step):
            self.visit(bound or nodes.Const(None), frame)
            self.write(", ")
        self.write("))")


class ChatEnvironment(ImmutableSandboxedEnvironment):
    """Where one template is compiled, or rendered once.

    Args:
        meter: what it may use.
        now: what `strftime_now` says; None reads the clock when asked.
    """

    code_generator_class = MeteredCodeGenerator
    intercepted_binops = frozenset(("+", "-", "*", "/", "//", "%", "**"))

    def __init__(self, meter: Meter, now: datetime | None = None) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=(GenerationTag, loopcontrols),
            finalize=_print,
            optimized=False,
            cache_size=0,
        )
        self.meter = meter
        self.concat = meter.join  # type: ignore[method-assign]  # Jinja declares a plain function
        self.filters = dict(FILTERS)
        self.tests = dict(TESTS)
        self.globals = {
            "cycler": Cycler,
            "dict": _TemplateDict(meter),
            "joiner": Joiner,
            "namespace": _TemplateNamespace,
            "raise_exception": _raise_exception,
            "range": _range,
            "strftime_now": _Clock(now).format,
        }
        self._call_depth = 0
        self._functions = frozenset(map(id, self.globals.values()))

    def concatenate(self, values: Iterable[Any]) -> str:
        """The `~` operator."""
        return self.meter.join(self.meter.text(value) for value in values)

    def take(self, value: Any, span: slice) -> Any:
        """The `value[start:stop:step]` of a template."""
        return self.meter.admit(value[span])

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        return operate(self.meter, operator, left, right)

    def call(self, context: Context, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        self.meter.tick()
        if isinstance(obj, BuiltinMethodType | MethodType) and methods_of(obj.__self__):
            kwargs.pop("_loop_vars", None)
            kwargs.pop("_block_vars", None)
            if obj.__name__ not in methods_of(obj.__self__):
                raise SecurityError(f"{obj.__name__!r} may not be called")
            return call_method(self.meter, obj, args, kwargs)
        if isinstance(obj, MethodType):
            self.meter.bound(args)  # `loop.changed` compares them
        if self._call_depth == _MAX_CALL_DEPTH:
            raise LimitExceededError("calls itself too deeply")
        self._call_depth += 1
        try:
            return super().call(context, obj, *args, **kwargs)
        finally:
            self._call_depth -= 1

    def is_safe_callable(self, obj: Any) -> bool:
        if isinstance(obj, MethodType):
            return id(obj) in self._functions or isinstance(obj.__self__, LoopContext | Cycler | _TemplateDict)
        return isinstance(obj, _CALLABLE) or id(obj) in self._functions

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if attr.startswith("_"):
            return False
        if isinstance(obj, Namespace):
            return True
        if attr in methods_of(obj):
            return True
        return any(isinstance(obj, kind) and attr in names for kind, names in _ATTRIBUTES) or (
            isinstance(obj, _TemplateDict) and attr == "fromkeys"
        )

    def getattr(self, obj: Any, attribute: str) -> Any:
        self.meter.tick()
        return super().getattr(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        self.meter.tick()
        return super().getitem(obj, self.meter.bound(argument))

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        if not isinstance(value, MethodType | BuiltinMethodType) or value.__name__ not in ("format", "format_map"):
            return None
        template = value.__self__
        if not isinstance(template, str):
            return None
        if isinstance(template, Markup):
            raise SecurityError("a text marked as safe may not be formatted")
        return BoundFormat(self, self.meter, template, value.__name__ == "format_map")

    def get_template(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise SecurityError("a chat template may not load another template")

    select_template = get_template
    get_or_select_template = get_template

    def _tokenize(
        self, source: str, name: str | None, filename: str | None = None, state: str | None = None
    ) -> TokenStream:
        stream = super()._tokenize(source, name, filename, state)
        return TokenStream(self._count(stream), name, filename)

    def _count(self, stream: Iterable[Token]) -> Iterable[Token]:
        """The same tokens, as long as there are not too many."""
        for number, token in enumerate(stream):
            self.meter.tick()
            if number >= self.meter.limits.template_tokens:
                raise LimitExceededError(f"has more than {self.meter.limits.template_tokens} tokens")
            yield token


@pass_context
def _print(context: Context, value: Any) -> str:
    """What `{{ value }}` prints."""
    environment = context.environment
    assert isinstance(environment, ChatEnvironment)
    return environment.meter.text(value)


@pass_context
def _raise_exception(context: Context, message: Any) -> NoReturn:
    raise RefusalError(_print(context, message))


def _range(*arguments: int) -> range:
    numbers = range(*arguments)
    if len(numbers) > MAX_RANGE:
        raise LimitExceededError(f"counted over a range of more than {MAX_RANGE} numbers")
    return numbers


class _Clock:
    """The `strftime_now` function."""

    def __init__(self, now: datetime | None) -> None:
        self._now = now

    def format(self, format: str) -> str:
        if not isinstance(format, str) or len(format) > _MAX_DATE_FORMAT_CHARS:
            raise TypeError("strftime_now() takes one short text")
        return (self._now or datetime.now()).strftime(format)


class _TemplateDict:
    """The `dict` function; not the class itself, on which a template could look up more."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        more = [arg if isinstance(arg, Mapping) else self._meter.collect(arg) for arg in args]
        self._meter.bound([list(arg) for arg in more])
        made: dict[Any, Any] = self._meter.admit(dict(*more, **kwargs))
        return made

    def fromkeys(self, keys: Iterable[Any], value: Any = None) -> dict[Any, Any]:
        """A dict with the same value for all keys."""
        made: dict[Any, Any] = self._meter.admit(dict.fromkeys(self._meter.bound(self._meter.collect(keys)), value))
        return made


class _TemplateNamespace(Namespace):
    """The `namespace` function. Names that begin with an underscore are refused, as transformers refuses them."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        # `self` is not named, so that a template may: namespace(self=1)
        namespace, *initial = args
        attributes = dict(*initial, **kwargs)
        for name in attributes:
            _require_public(name)
        Namespace.__init__(namespace, attributes)

    def __setitem__(self, name: str, value: Any) -> None:
        _require_public(name)
        super().__setitem__(name, value)


def _require_public(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"a namespace may not have the attribute {name!r}")
