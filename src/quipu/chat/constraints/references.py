"""`$ref` inside one schema: JSON pointers (RFC 6901) and anchors. Nothing outside the document is ever fetched."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn
from urllib.parse import unquote


def child_path(path: str, *steps: str | int) -> str:
    """The JSON pointer of a part below `path`."""
    return path + "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in steps)


class References:
    """What the references of one schema point to.

    Args:
        document: the whole schema.
        fail: raises an error from a path and a problem.
    """

    def __init__(self, document: Any, fail: Callable[[str, str], NoReturn]) -> None:
        self._document = document
        self._fail = fail
        self._anchors: dict[str, str] | None = None  # name -> JSON pointer, found on first use
        own = document.get("$id", document.get("id")) if isinstance(document, dict) else None
        self._own_address = own.rstrip("#") if isinstance(own, str) else ""

    def resolve(self, reference: Any, path: str) -> str:
        """The JSON pointer of the schema that `reference`, at `path`, means. It leads to a schema."""
        if not isinstance(reference, str):
            self._fail(path, '"$ref" is a string')
        address, _, fragment = reference.partition("#")
        if address and address != self._own_address:
            self._fail(path, f'"$ref" {reference[:80]!r} leads out of the schema; put what it means into $defs')
        fragment = unquote(fragment)
        if fragment and not fragment.startswith("/"):
            target = self._anchor(fragment, reference, path)
        else:
            target = "#" + fragment
        if not isinstance(self._walk(target), dict | bool):
            self._fail(path, f'"$ref" {reference[:80]!r} leads to nothing that is a schema')
        return target

    def at(self, pointer: str) -> Any:
        """What stands at a pointer that `resolve` returned."""
        return self._walk(pointer)

    def _walk(self, pointer: str) -> Any:
        value = self._document
        for step in pointer.removeprefix("#").split("/")[1:]:
            step = step.replace("~1", "/").replace("~0", "~")
            if isinstance(value, dict) and step in value:
                value = value[step]
            elif isinstance(value, list) and step.isascii() and step.isdigit() and int(step[:9]) < len(value):
                value = value[int(step[:9])]
            else:
                return None
        return value

    def _anchor(self, name: str, reference: str, path: str) -> str:
        if self._anchors is None:
            self._anchors = {}
            self._collect()
        if name not in self._anchors:
            self._fail(path, f'"$ref" {reference[:80]!r} names an anchor that is not there, or there twice')
        return self._anchors[name]

    def _collect(self) -> None:
        assert self._anchors is not None
        twice = set()
        pending = [("#", self._document)]
        while pending:
            path, value = pending.pop()
            if isinstance(value, dict):
                pending += [(child_path(path, key), item) for key, item in value.items()]
                identity = value.get("$id")
                old = identity[1:] if isinstance(identity, str) and identity.startswith("#") else None
                for name in (value.get("$anchor"), old):
                    if isinstance(name, str) and name in self._anchors:
                        twice.add(name)
                    if isinstance(name, str):
                        self._anchors[name] = path
            elif isinstance(value, list):
                pending += [(child_path(path, index), item) for index, item in enumerate(value)]
        for name in twice:
            del self._anchors[name]
