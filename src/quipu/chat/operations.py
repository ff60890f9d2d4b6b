"""Operators, methods and string formatting as templates may use them: each checks its cost before it runs.

Nothing outside the tables here can be called on a text, list or dict. `append`, `update` and their kin are allowed,
because templates work on copies.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jinja2.environment import Environment
from jinja2.sandbox import SandboxedFormatter

from quipu.chat.limits import BYTES_PER_PIECE, LimitExceededError, Meter

_OPERATORS: Mapping[str, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "//": operator.floordiv,
    "%": operator.mod,
    "**": operator.pow,
}
_MAX_COMPARISONS = 1 << 28  # of characters, in searches that take the product of both lengths
_MAX_FIELD_WIDTH = 10_000
_MAX_NUMBER_CHARS = 1300  # a whole number of 4096 bits; "%f" of the largest float takes 316
_CONVERSION = re.compile(r"%(?:\([^()]*\))?[#0\- +]*(\*|\d+)?(?:\.(\*|\d+))?")
_LINE_ENDS = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"  # where str.splitlines splits


def operate(meter: Meter, symbol: str, left: Any, right: Any) -> Any:
    """`left symbol right`, refused when the result would be too large."""
    if symbol == "+":
        _check_sum(meter, left, right)
    elif symbol == "*":
        _check_product(meter, left, right)
    elif symbol == "**" and isinstance(left, int) and isinstance(right, int):
        meter.require_bits(left.bit_length() * max(right, 0))
    elif symbol == "%" and isinstance(left, str):
        check_percent(meter, left, right)
    elif symbol == "-":  # of the keys of dicts, which it hashes
        meter.bound(left)
        meter.bound(right)
    return meter.admit(_OPERATORS[symbol](left, right))


def _check_sum(meter: Meter, left: Any, right: Any) -> None:
    if isinstance(left, str) and isinstance(right, str):
        meter.require_chars(len(left) + len(right))
    elif isinstance(left, list | tuple) and isinstance(right, list | tuple):
        meter.require_items(len(left) + len(right))


def _check_product(meter: Meter, left: Any, right: Any) -> None:
    if isinstance(left, int) and isinstance(right, int):
        meter.require_bits(left.bit_length() + right.bit_length())
        return
    for value, count in ((left, right), (right, left)):
        if isinstance(value, str) and isinstance(count, int):
            meter.require_chars(len(value) * count)
        elif isinstance(value, list | tuple) and isinstance(count, int):
            meter.require_items(len(value) * count)


def check_percent(meter: Meter, template: str, values: Any) -> None:
    """Check `template % values` before it runs."""
    num_chars = len(template)
    num_conversions = 0
    for match in _CONVERSION.finditer(template):
        num_conversions += 1
        if num_conversions % 64 == 0:
            meter.tick()
        num_chars += sum(_width(digits) for digits in match.groups() if digits)
    num_uses = num_conversions if isinstance(values, dict) else 1
    for value in values if isinstance(values, tuple) else (values,):
        num_chars += num_uses * printed_chars(meter, value)
    meter.require_chars(num_chars + num_conversions * _MAX_NUMBER_CHARS)


def printed_chars(meter: Meter, value: Any) -> int:
    """At least how long `str(value)` may be, whole numbers apart."""
    if isinstance(value, str):
        return len(value)
    extent = meter.measure(value)
    return 4 * (extent.num_chars + extent.num_nodes)  # quotes, commas and escapes


def _width(digits: str) -> int:
    if digits == "*" or len(digits) > 9 or int(digits) > _MAX_FIELD_WIDTH:
        raise LimitExceededError(f"formatted a field wider than {_MAX_FIELD_WIDTH} characters")
    return int(digits)


class MeteredFormatter(SandboxedFormatter):
    """`str.format` that looks attributes up through the sandbox and limits widths and the length of the result."""

    def __init__(self, environment: Environment, meter: Meter) -> None:
        super().__init__(environment)
        self._meter = meter
        self._num_chars = 0

    def format_field(self, value: Any, format_spec: str) -> str:
        for digits in re.findall(r"\d+", format_spec):
            _width(digits)
        if not format_spec:
            text = self._meter.text(value)
        else:
            text = self._meter.admit(format(self._meter.bound(value), format_spec))
        self._num_chars += len(text)
        self._meter.require_chars(self._num_chars)
        return text

    def convert_field(self, value: Any, conversion: Any) -> Any:
        if conversion is None:
            return value
        self._meter.require_chars(4 * printed_chars(self._meter, value))
        return self._meter.admit(super().convert_field(value, conversion))


class BoundFormat:
    """`"...".format` or `"...".format_map`, looked up on a text but not yet called."""

    def __init__(self, environment: Environment, meter: Meter, template: str, takes_mapping: bool) -> None:
        self._formatter = MeteredFormatter(environment, meter)
        self._meter = meter
        self._template = template
        self._takes_mapping = takes_mapping

    def __call__(self, *args: Any, **kwargs: Any) -> str:
        if self._takes_mapping:
            if len(args) != 1 or kwargs:
                raise TypeError("format_map() takes exactly one argument")
            result: str = self._formatter.vformat(self._template, (), args[0])
        else:
            result = self._formatter.vformat(self._template, args, kwargs)
        self._meter.admit(result)
        return result


Handler = Callable[[Meter, Any, Any, Sequence[Any], Mapping[str, Any]], Any]


def call_method(meter: Meter, method: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Call a bound method of a built-in type.

    Raises:
        KeyError: the method is not in the tables below.
    """
    receiver = method.__self__
    handler = methods_of(receiver)[method.__name__]
    if handler is None:
        return meter.admit(method(*args, **kwargs))
    return handler(meter, receiver, method, args, kwargs)


def methods_of(value: Any) -> Mapping[str, Handler | None]:
    """The methods that may be called on a value, with how to call each; None: it costs no more than its arguments."""
    if isinstance(value, str):
        return _TEXT_METHODS
    return _METHODS.get(type(value), {})


def _pad(meter: Meter, text: str, method: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    meter.require_chars(max([len(text), *(arg for arg in args if isinstance(arg, int))]))
    return meter.admit(method(*args, **kwargs))


def _expand_tabs(meter: Meter, text: str, method: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    width = max([8, *(value for value in [*args, *kwargs.values()] if isinstance(value, int))])
    meter.require_chars(len(text) + text.count("\t") * width)
    return meter.admit(method(*args, **kwargs))


def replace_text(meter: Meter, text: str, old: str, new: str, count: int = -1) -> str:
    """`text.replace(old, new, count)`, refused when the result would be too long."""
    num_found = text.count(old)
    if count >= 0:
        num_found = min(num_found, count)
    meter.require_chars(len(text) + num_found * (len(new) - len(old)))
    result: str = meter.admit(text.replace(old, new, count))
    return result


def _replace(meter: Meter, text: str, method: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    arguments = [*args, *kwargs.values()]
    if len(arguments) in (2, 3) and isinstance(arguments[0], str) and isinstance(arguments[1], str):
        return replace_text(meter, text, *arguments)
    return method(*args, **kwargs)  # raises the TypeError that Python has for it


def _join(meter: Meter, text: str, method: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    if len(args) != 1 or kwargs:
        return method(*args, **kwargs)
    pieces = meter.collect(args[0])
    meter.require_chars(sum(len(piece) + len(text) for piece in pieces if isinstance(piece, str)))
    return meter.admit(method(pieces))


def _split(meter: Meter, text: str, method: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    separator = args[0] if args else kwargs.get("sep")
    limit = args[1] if len(args) > 1 else kwargs.get("maxsplit", -1)
    num_pieces = text.count(separator) + 1 if isinstance(separator, str) and separator else len(text) // 2 + 1
    if isinstance(limit, int) and limit >= 0:
        num_pieces = min(num_pieces, limit + 1)
    meter.require(num_pieces * BYTES_PER_PIECE + len(text))
    _check_backward_search(text, separator)
    return meter.admit_pieces(method(*args, **kwargs))


def _split_lines(meter: Meter, text: str, method: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    meter.require((sum(map(text.count, _LINE_ENDS)) + 1) * BYTES_PER_PIECE + len(text))
    return meter.admit_pieces(method(*args, **kwargs))


def _search(meter: Meter, text: str, method: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    for arg in args:
        _check_backward_search(text, arg)
    return meter.admit(method(*args, **kwargs))


def _check_backward_search(text: str, needle: Any) -> None:
    """`rfind`, `rsplit`, `strip` and their kin compare each character of one text with each of the other."""
    if isinstance(needle, str) and len(text) * len(needle) > _MAX_COMPARISONS:
        raise LimitExceededError("searched for a very long text in a very long one")


def strip_text(meter: Meter, text: str, characters: str | None) -> str:
    """`text.strip(characters)` within the limits."""
    _check_backward_search(text, characters)
    result: str = meter.admit(text.strip(characters))
    return result


def _partition(meter: Meter, text: str, method: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    for arg in args:
        _check_backward_search(text, arg)
    return tuple(meter.admit_pieces(list(method(*args, **kwargs))))


def _compare(meter: Meter, receiver: Any, method: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    meter.bound(receiver)
    meter.bound(list(args))
    return meter.admit(method(*args, **kwargs))


def _look_up(meter: Meter, receiver: Any, method: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    meter.bound(list(args[:1]))  # the key, which is hashed
    meter.require_items(len(receiver) + 1)
    meter.spend(BYTES_PER_PIECE)
    meter.tick()
    return method(*args, **kwargs)


def _grow(meter: Meter, receiver: Any, method: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    meter.require_items(len(receiver) + 1)
    meter.spend(BYTES_PER_PIECE)
    meter.tick()
    return method(*args, **kwargs)


def _extend(meter: Meter, receiver: Any, method: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    more = [arg if isinstance(arg, dict) else meter.collect(arg) for arg in args]
    num_more = sum(map(len, more)) + len(kwargs)
    meter.require_items(len(receiver) + num_more)
    meter.spend(num_more * BYTES_PER_PIECE)
    if isinstance(receiver, dict):
        meter.bound(more)
    return method(*more, **kwargs)


_TEXT_METHODS: Mapping[str, Handler | None] = {
    **dict.fromkeys(("capitalize", "casefold", "lower", "swapcase", "title", "upper")),
    **dict.fromkeys(("count", "endswith", "find", "index", "startswith", "removeprefix", "removesuffix")),
    **dict.fromkeys(("isalnum", "isalpha", "isascii", "isdecimal", "isdigit", "isidentifier", "islower", "isnumeric")),
    **dict.fromkeys(("isprintable", "isspace", "istitle", "isupper")),
    **dict.fromkeys(("center", "ljust", "rjust", "zfill"), _pad),
    **dict.fromkeys(("lstrip", "rstrip", "strip", "rfind", "rindex"), _search),
    **dict.fromkeys(("partition", "rpartition"), _partition),
    **dict.fromkeys(("split", "rsplit"), _split),
    "expandtabs": _expand_tabs,
    "join": _join,
    "replace": _replace,
    "splitlines": _split_lines,
    "format": None,  # always reached through BoundFormat
    "format_map": None,
}

_METHODS: Mapping[type, Mapping[str, Handler | None]] = {
    list: {
        **dict.fromkeys(("clear", "copy", "pop", "reverse")),
        **dict.fromkeys(("count", "index", "remove"), _compare),
        **dict.fromkeys(("append", "insert"), _grow),
        "extend": _extend,
    },
    tuple: dict.fromkeys(("count", "index"), _compare),
    dict: {
        **dict.fromkeys(("clear", "copy", "items", "keys", "values")),
        **dict.fromkeys(("get", "pop", "setdefault"), _look_up),
        "update": _extend,
    },
    float: {"is_integer": None},
}
