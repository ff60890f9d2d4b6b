"""JSON text of a schema as a value: bounded, without duplicate keys, with every failure told in one sentence."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from quipu.errors import InvalidRequestError


def parse_json(text: str, field: str) -> Any:
    """The value of `text`.

    Raises:
        InvalidRequestError: it is not JSON, nests too deeply, or repeats a key within an object.
    """
    try:
        return json.loads(text, object_pairs_hook=_object, parse_constant=_refuse_constant)
    except RecursionError:
        raise InvalidRequestError(f"{field} is nested too deeply; make it flatter", field=field) from None
    except ValueError as error:
        raise InvalidRequestError(f"{field} is not valid JSON: {error}", field=field) from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {json.dumps(twice)} occurs twice in one object")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON value")
