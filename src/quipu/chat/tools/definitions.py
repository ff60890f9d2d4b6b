"""The tools of a request, and what a request says about their use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from quipu.errors import InvalidRequestError

_MAX_REFERENCES = 16


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the model may call.

    Attributes:
        name: what the model calls it.
        parameters: JSON schema of its arguments.
        is_strict: a grammar must enforce all that the schema says, or be refused; else what it can.
    """

    name: str
    parameters: Mapping[str, Any] = field(default_factory=lambda: {"type": "object", "properties": {}})
    is_strict: bool = False

    def types_of(self, parameter: str) -> frozenset[str]:
        """The JSON types that a parameter may have; none where the schema does not say."""
        properties = self.parameters.get("properties")
        schema = properties.get(parameter) if isinstance(properties, Mapping) else None
        return _types(schema, self.parameters, _MAX_REFERENCES)


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """Whether tools are called, and which.

    Attributes:
        mode: "none": no tool is shown or called; "auto": the model decides; "required": it calls one or more.
        name: of the only tool that may be called; "" leaves it to the model.
        is_parallel: one answer may call several tools.
    """

    mode: Literal["none", "auto", "required"] = "auto"
    name: str = ""
    is_parallel: bool = True


def read_tools(tools: Sequence[Mapping[str, Any]] | None) -> tuple[Tool, ...]:
    """The functions among checked tool definitions (`check_tools`).

    Raises:
        InvalidRequestError: two have the same name, or parameters are not a JSON schema of an object.
    """
    found: dict[str, Tool] = {}
    for i, tool in enumerate(tools or ()):
        if tool.get("type", "function") != "function":
            continue
        function = tool.get("function", tool)
        field_name = f"tools[{i}].function"
        name, parameters = function["name"], function.get("parameters")
        if name in found:
            raise _error(f"{field_name}.name", f"{name!r} is the name of an earlier tool; give each its own")
        if parameters is not None and not isinstance(parameters, Mapping):
            raise _error(f"{field_name}.parameters", "must be a JSON schema, which is an object")
        if parameters and parameters.get("type", "object") != "object":
            raise _error(f"{field_name}.parameters.type", f"must be 'object', not {parameters['type']!r}")
        is_strict = function.get("strict") is True
        found[name] = Tool(name, parameters, is_strict) if parameters else Tool(name, is_strict=is_strict)
    return tuple(found.values())


def read_tool_choice(choice: Any, tools: Sequence[Tool], is_parallel: bool = True) -> ToolChoice:
    """What `tool_choice` of a request asks for.

    Args:
        choice: None (auto, where there are tools), "none", "auto", "required" (or "any"), the name of a tool as
            `{"type": "function", "function": {"name": NAME}}`, or `{"type": "function", "name": NAME}`.
        tools: those of the request.
        is_parallel: one answer may call several.

    Raises:
        InvalidRequestError: the choice is none of these, names a tool that is not there, or there are no tools.
    """
    if choice is None:
        choice = "auto" if tools else "none"
    if choice == "any":
        choice = "required"
    if choice in ("none", "auto"):
        return ToolChoice(choice if tools else "none", is_parallel=is_parallel)
    if choice == "required":
        if not tools:
            raise _error("tool_choice", "is 'required', but the request brings no tools")
        return ToolChoice("required", is_parallel=is_parallel)
    name = _named(choice)
    if name is None:
        raise _error("tool_choice", "must be 'none', 'auto', 'required', or an object that names a function")
    if name not in {tool.name for tool in tools}:
        known = ", ".join(tool.name for tool in tools) or "none"
        raise _error("tool_choice", f"names the tool {name!r}, which is not in tools (there: {known})")
    return ToolChoice("required", name, is_parallel)


def _named(choice: Any) -> str | None:
    if not isinstance(choice, Mapping) or choice.get("type", "function") != "function":
        return None
    function = choice.get("function", choice)
    name = function.get("name") if isinstance(function, Mapping) else None
    return name if isinstance(name, str) and name else None


def _types(schema: Any, root: Mapping[str, Any], num_references: int) -> frozenset[str]:
    """The JSON types that a schema allows, as far as it says in `type`, `enum`, `const`, `anyOf` and local `$ref`."""
    if not isinstance(schema, Mapping):
        return frozenset()
    kind = schema.get("type")
    if isinstance(kind, str):
        return frozenset((kind.lower(),))
    if isinstance(kind, list | tuple):
        return frozenset(item.lower() for item in kind if isinstance(item, str))
    if "const" in schema:
        return frozenset((_type_of(schema["const"]),))
    if isinstance(schema.get("enum"), list | tuple):
        return frozenset(_type_of(value) for value in schema["enum"])
    if num_references == 0:
        return frozenset()
    for keyword in ("anyOf", "oneOf"):
        if isinstance(schema.get(keyword), list | tuple):
            each = [_types(option, root, num_references - 1) for option in schema[keyword][:_MAX_REFERENCES]]
            return frozenset().union(*each) if all(each) else frozenset()
    reference = schema.get("$ref")
    if isinstance(reference, str) and reference.startswith("#/"):
        return _types(resolve(reference, root), root, num_references - 1)
    return frozenset()


def resolve(reference: str, root: Mapping[str, Any]) -> Any:
    """What a local `$ref` such as `#/$defs/city` points to (RFC 6901); None where that is nothing."""
    value: Any = root
    for part in reference.removeprefix("#/").split("/"):
        key = part.replace("~1", "/").replace("~0", "~")
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _type_of(value: Any) -> str:
    names = ((bool, "boolean"), (str, "string"), (int, "integer"), (float, "number"), (Mapping, "object"))
    if value is None:
        return "null"
    return next((name for kind, name in names if isinstance(value, kind)), "array")


def _error(field_name: str, problem: str) -> InvalidRequestError:
    return InvalidRequestError(f"{field_name} {problem}", field=field_name)
