"""Jinja's filters and tests as chat templates see them: the same results, but each checks its cost first.

Left out are `random`, `urlize` and `xmlattr`: no chat template uses them. `tojson` is that of transformers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, Protocol, cast

from jinja2.environment import Environment
from jinja2.filters import FILTERS as DEFAULT_FILTERS
from jinja2.filters import make_attrgetter
from jinja2.runtime import Context
from jinja2.tests import TESTS as DEFAULT_TESTS
from jinja2.utils import pass_context, pass_environment

from quipu.chat.limits import LimitExceededError, Meter
from quipu.chat.operations import check_percent, operate, printed_chars

_MAX_SLOW_CHARS = 64 << 10  # for filters that walk a text in Python
_MAX_WIDTH = 1000
_MAX_DIGITS = 300

Filter = Callable[..., Any]
Check = Callable[[Meter, Any, tuple[Any, ...], Mapping[str, Any]], Any]


class HasMeter(Protocol):
    """What filters need of the environment they run in."""

    meter: Meter


def _meter(context: Context) -> Meter:
    return cast(HasMeter, context.environment).meter


def _guard(name: str, check: Check | None, passes: Literal["context", "eval_ctx", "environment"] | None) -> Filter:
    """Jinja's own filter `name` behind `check`, which may replace the value that is filtered."""
    base: Filter = DEFAULT_FILTERS[name]

    @pass_context
    def filtered(context: Context, value: Any, /, *args: Any, **kwargs: Any) -> Any:
        meter = _meter(context)
        meter.tick()
        for argument in (*args, *kwargs.values()):
            meter.bound(argument)  # which may be hashed, as the name of a filter is
        if check is not None:
            value = check(meter, value, args, kwargs)
        if passes is None:
            result = base(value, *args, **kwargs)
        else:
            first = context if passes == "context" else getattr(context, passes)
            result = base(first, value, *args, **kwargs)
        return meter.follow(result) if isinstance(result, Iterator) else meter.admit(result)

    return filtered


def _text(meter: Meter, value: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    for argument in (*args, *kwargs.values()):
        if isinstance(argument, str) and isinstance(value, str) and len(argument) * len(value) > 1 << 28:
            raise LimitExceededError("searched for a very long text in a very long one")
    return meter.text(value)


def _slow_text(meter: Meter, value: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    arguments = (value, *args, *kwargs.values())
    if sum(printed_chars(meter, argument) for argument in arguments) > _MAX_SLOW_CHARS:
        raise LimitExceededError(f"used a slow filter on a text of more than {_MAX_SLOW_CHARS} characters")
    return value


def _replace(meter: Meter, value: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    arguments = {**dict(zip(("old", "new"), args, strict=False)), **kwargs}
    text = meter.text(value)
    old, new = (meter.text(arguments.get(name, "")) for name in ("old", "new"))
    meter.require_chars(len(text) + text.count(old) * len(new))
    return text


def _width(meter: Meter, value: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    text = meter.text(value)
    width = args[0] if args else kwargs.get("width", 0)
    num_chars = len(width) if isinstance(width, str) else width if isinstance(width, int) else 0
    if num_chars > _MAX_WIDTH:
        raise LimitExceededError(f"padded a text to more than {_MAX_WIDTH} characters")
    meter.require_chars(len(text) + (text.count("\n") + 1) * max(num_chars, 80))
    return text


def _number(meter: Meter, value: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    if not isinstance(value, int | float):
        raise TypeError("only a number can be rounded")  # Jinja would multiply a text by 10 ** digits
    for argument in (*args, *kwargs.values()):
        if isinstance(argument, int) and abs(argument) > _MAX_DIGITS:
            raise LimitExceededError(f"rounded to more than {_MAX_DIGITS} digits")
    return value


def _items(meter: Meter, value: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    for argument in (*args, *kwargs.values()):
        if isinstance(argument, int):
            meter.require_items(argument)
    return meter.collect(value)


def _compared_items(meter: Meter, value: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    items = meter.collect(value)
    meter.bound(items)
    return items


def _bound(meter: Meter, value: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    return meter.bound(value)


@pass_context
def _format(context: Context, value: Any, /, *args: Any, **kwargs: Any) -> Any:
    meter = _meter(context)
    text = meter.text(value)
    check_percent(meter, text, kwargs or args)
    return meter.admit(DEFAULT_FILTERS["format"](text, *args, **kwargs))


@pass_context
def _join(context: Context, value: Any, d: Any = "", attribute: str | int | None = None) -> Any:
    meter = _meter(context)
    items = meter.collect(value)
    if attribute is not None:
        items = [*map(make_attrgetter(context.environment, attribute), items)]
    separator = meter.text(d)
    pieces = [meter.text(item) for item in items]
    meter.require_chars(sum(map(len, pieces)) + len(separator) * len(pieces))
    return meter.admit(DEFAULT_FILTERS["join"](context.eval_ctx, pieces, separator))


@pass_context
def _list(context: Context, value: Any) -> Any:
    return _meter(context).collect(value)


@pass_context
def _sum(context: Context, iterable: Any, attribute: str | int | None = None, start: Any = 0) -> Any:
    meter = _meter(context)
    items = meter.collect(iterable)
    if attribute is not None:
        items = [*map(make_attrgetter(context.environment, attribute), items)]
    if isinstance(start, str):
        raise TypeError("sum() cannot add texts; use the join filter")
    total = start
    for item in items:
        total = operate(meter, "+", total, item)
    return total


@pass_context
def _tojson(
    context: Context,
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: Any = None,
    sort_keys: bool = False,
) -> str:
    """JSON without HTML escapes, and with the arguments that transformers gives it."""
    meter = _meter(context)
    extent = meter.measure(value)
    indent_chars = len(indent) if isinstance(indent, str) else indent or 0
    separator_chars = sum(map(len, separators)) if separators else 4
    if max(indent_chars, separator_chars) > _MAX_WIDTH:
        raise LimitExceededError(f"indented JSON by more than {_MAX_WIDTH} characters")
    # a character becomes two, or a dozen where it is escaped
    num_chars = (12 if ensure_ascii else 2) * extent.num_chars
    num_chars += extent.num_nodes * (8 + separator_chars + indent_chars * extent.depth)
    meter.require_chars(num_chars)
    text = json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
    meter.admit(text)
    return text


FILTERS: Mapping[str, Filter] = {
    **{name: _guard(name, None, None) for name in ("abs", "count", "d", "default", "float", "int", "items", "length")},
    **{name: _guard(name, None, "environment") for name in ("attr", "first", "last")},
    **{name: _guard(name, _text, None) for name in ("capitalize", "e", "escape", "forceescape", "lower", "safe")},
    **{name: _guard(name, _text, None) for name in ("string", "trim", "upper")},
    **{name: _guard(name, _slow_text, None) for name in ("filesizeformat", "pprint", "striptags", "title")},
    **{name: _guard(name, _slow_text, None) for name in ("urlencode", "wordcount")},
    **{name: _guard(name, _width, None) for name in ("center", "indent")},
    **{name: _guard(name, _items, None) for name in ("batch", "slice")},
    **{name: _guard(name, _compared_items, "environment") for name in ("groupby", "max", "min", "sort", "unique")},
    **{name: _guard(name, None, "context") for name in ("map", "reject", "rejectattr", "select", "selectattr")},
    "dictsort": _guard("dictsort", _bound, None),
    "format": _format,
    "join": _join,
    "list": _list,
    "replace": _guard("replace", _replace, "eval_ctx"),
    "reverse": _guard("reverse", None, None),
    "round": _guard("round", _number, None),
    "sum": _sum,
    "tojson": _tojson,
    "truncate": _guard("truncate", _text, "environment"),
    "wordwrap": _guard("wordwrap", _slow_text, "environment"),
}


def _compare(name: str) -> Filter:
    """Jinja's own test `name` of one value against others, which may be nested."""
    base = cast(Filter, DEFAULT_TESTS[name])

    @pass_environment
    def tested(environment: HasMeter, value: Any, *args: Any) -> bool:
        meter = environment.meter
        meter.tick()
        meter.bound([value, *args])
        return bool(base(value, *args))

    return tested


@pass_environment
def _is_odd(environment: HasMeter, value: Any) -> bool:
    return bool(operate(environment.meter, "%", value, 2) == 1)


@pass_environment
def _is_even(environment: HasMeter, value: Any) -> bool:
    return bool(operate(environment.meter, "%", value, 2) == 0)


@pass_environment
def _is_divisible(environment: HasMeter, value: Any, num: Any) -> bool:
    return bool(operate(environment.meter, "%", value, num) == 0)


@pass_environment
def _is_filter(environment: Environment, value: Any) -> bool:
    return isinstance(value, str) and value in environment.filters


@pass_environment
def _is_test(environment: Environment, value: Any) -> bool:
    return isinstance(value, str) and value in environment.tests


_COMPARISONS = ("==", "!=", ">", ">=", "<", "<=", "eq", "ne", "gt", "ge", "lt", "le", "in", "lower", "upper")

TESTS: Mapping[str, Filter] = {
    **cast(Mapping[str, Filter], DEFAULT_TESTS),
    **{name: _compare(name) for name in (*_COMPARISONS, "equalto", "greaterthan", "lessthan")},
    "odd": _is_odd,
    "even": _is_even,
    "divisibleby": _is_divisible,
    "filter": _is_filter,
    "test": _is_test,
}
