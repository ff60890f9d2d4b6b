"""A JSON schema in the one spelling that the library enforces in full; anything else is refused by path.

The library ignores keywords that it does not know, and a schema may switch its checks off. So nothing reaches it
unseen: the schema is walked from the root, along references, and written anew from the keywords whose enforcement is
tested. Older spellings (draft 4 to 2019-09) become those of draft 2020-12, annotations are left out, and every schema
that is referred to moves to `$defs`, so that each part can be compiled on its own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from quipu.chat.constraints.limits import ConstraintLimits
from quipu.chat.constraints.references import References, child_path
from quipu.chat.constraints.schema_keywords import (
    ANNOTATIONS,
    FORMAT_PATTERNS,
    FORMATS,
    IDLE_ALONE,
    IDLE_FORMATS,
    REFERENCE_KEYWORDS,
    REFUSED,
    TYPES,
    WRITABLE_CONTROLS,
)
from quipu.errors import InvalidRequestError

Schema = dict[str, Any] | bool
DEFINITION = "#/$defs/"
"""How the reference to a definition of a normal schema begins."""

# Above it a double cannot tell whole numbers apart, and the library holds bounds as doubles.
_LARGEST_BOUND = 2**53
_REPETITION = re.compile(r"(?<!\\)\{(\d*),?(\d*)\}")


@dataclass(frozen=True, slots=True)
class NormalSchema:
    """A schema that the library enforces in full.

    Attributes:
        root: the schema, without the ones that it refers to.
        definitions: those, by name; a reference is `{"$ref": "#/$defs/NAME"}`.
        paths: where a part came from: id of the dict -> JSON pointer into the schema that was given.
    """

    root: Schema
    definitions: Mapping[str, Schema]
    paths: Mapping[int, str]

    def document(self, part: Schema | None = None) -> Schema:
        """The whole, or one part of it, as a schema that stands alone."""
        schema = self.root if part is None else part
        if isinstance(schema, bool) or not self.definitions:
            return schema
        return {**schema, "$defs": self.definitions}


def parts_of(schema: Schema) -> list[Schema]:
    """The schemas directly inside a normal one; what a reference points to is not inside."""
    if isinstance(schema, bool):
        return []
    parts: list[Schema] = [schema[name] for name in ("additionalProperties", "items") if name in schema]
    for name in ("allOf", "anyOf", "oneOf", "prefixItems"):
        parts += schema.get(name, ())
    for name in ("properties", "patternProperties"):
        parts += schema.get(name, {}).values()
    return parts


def normalize_schema(schema: Any, limits: ConstraintLimits, field: str) -> NormalSchema:
    """The schema in the spelling that is enforced.

    Args:
        schema: a value that was JSON.
        limits: bounds on its size.
        field: what errors call it.

    Raises:
        InvalidRequestError: a keyword cannot be enforced, has a wrong value, or a limit is exceeded; the message has
            the JSON pointer and the keyword.
    """
    return _Normalizer(schema, limits, field).run()


class _Normalizer:
    """One walk over one schema."""

    def __init__(self, document: Any, limits: ConstraintLimits, field: str) -> None:
        self._document = document
        self._limits = limits
        self._field = field
        self._references = References(document, self._fail)
        self._names: dict[str, str] = {}  # JSON pointer of a schema that is referred to -> name in $defs
        self._pending: list[str] = []
        self._paths: dict[int, str] = {}
        self._num_schemas = 0
        self._num_values = 0
        self._depth = 0  # of the schema whose keywords are read
        self._keywords: dict[str, Callable[[Any, str, Mapping[str, Any]], dict[str, Any]]] = {
            "$ref": self._ref,
            "additionalItems": self._additional_items,
            "additionalProperties": self._one("additionalProperties"),
            "allOf": self._several("allOf"),
            "anyOf": self._several("anyOf"),
            "const": self._const,
            "enum": self._enum,
            "exclusiveMaximum": self._exclusive("exclusiveMaximum", "maximum"),
            "exclusiveMinimum": self._exclusive("exclusiveMinimum", "minimum"),
            "format": self._format,
            "items": self._items,
            "maxItems": self._count("maxItems"),
            "maxLength": self._count("maxLength"),
            "maxProperties": self._count("maxProperties"),
            "maximum": self._bound("maximum", "exclusiveMaximum"),
            "minItems": self._count("minItems"),
            "minLength": self._count("minLength"),
            "minProperties": self._min_properties,
            "minimum": self._bound("minimum", "exclusiveMinimum"),
            "multipleOf": self._multiple_of,
            "nullable": self._nullable,
            "oneOf": self._several("oneOf"),
            "pattern": self._pattern,
            "patternProperties": self._pattern_properties,
            "prefixItems": self._prefix_items,
            "properties": self._properties,
            "required": self._required,
            "type": self._type,
            "uniqueItems": self._unique_items,
        }

    def run(self) -> NormalSchema:
        root = self._schema(self._document, "#", 0)
        definitions: dict[str, Schema] = {}
        while self._pending:
            path = self._pending.pop()
            definitions[self._names[path]] = self._schema(self._references.at(path), path, 0)
        return NormalSchema(root, definitions, self._paths)

    def _fail(self, path: str, problem: str) -> NoReturn:
        raise InvalidRequestError(f"{self._field}: at {path}: {problem}", field=self._field)

    def _schema(self, schema: Any, path: str, depth: int) -> Schema:
        if isinstance(schema, bool):
            return schema
        if not isinstance(schema, dict):
            self._fail(path, f"a schema is an object, true or false, not {_shown(schema)}")
        self._num_schemas += 1
        if self._num_schemas > self._limits.subschemas:
            self._fail(path, f"there are more than {self._limits.subschemas} schemas in it; make it smaller")
        if depth > self._limits.nesting:
            self._fail(path, f"schemas are nested more than {self._limits.nesting} deep; make it flatter")
        normal: dict[str, Any] = {}
        self._paths[id(normal)] = path
        for keyword, value in schema.items():
            self._depth = depth
            for name, entry in self._keyword(keyword, value, path, schema).items():
                if name == "allOf" and name in normal:
                    normal[name] = [*normal[name], *entry]
                else:
                    normal[name] = entry
        return normal

    def _keyword(self, keyword: str, value: Any, path: str, schema: Mapping[str, Any]) -> dict[str, Any]:
        read = self._keywords.get(keyword)
        if read is not None:
            return read(value, path, schema)
        if keyword in ANNOTATIONS or keyword.startswith("x-"):
            return {}
        if keyword in REFERENCE_KEYWORDS:
            if keyword in ("$id", "id") and path != "#" and not str(value).startswith("#"):
                self._fail(path, f'"{keyword}" below the root changes what references mean; use $defs and $ref instead')
            return {}
        if keyword in IDLE_ALONE and IDLE_ALONE[keyword] not in schema:
            return {}
        if keyword in REFUSED or keyword in IDLE_ALONE:
            self._fail(path, f'the keyword "{keyword}" cannot be enforced; remove it')
        self._fail(path, f'the keyword "{keyword}" is unknown; remove it, or name it "x-{keyword}" if it is a note')

    # --- keywords that apply schemas ---------------------------------------------------------------------------------

    def _below(self, schema: Any, path: str, *steps: str | int) -> Schema:
        depth = self._depth
        normal = self._schema(schema, child_path(path, *steps), depth + 1)
        self._depth = depth
        return normal

    def _ref(self, value: Any, path: str, schema: Mapping[str, Any]) -> dict[str, Any]:
        target = self._references.resolve(value, path)
        if target not in self._names:
            self._names[target] = str(len(self._names))
            self._pending.append(target)
        return {"$ref": DEFINITION + self._names[target]}

    def _one(self, keyword: str) -> Callable[[Any, str, Mapping[str, Any]], dict[str, Any]]:
        def read(value: Any, path: str, schema: Mapping[str, Any]) -> dict[str, Any]:
            return {keyword: self._below(value, path, keyword)}

        return read

    def _several(self, keyword: str) -> Callable[[Any, str, Mapping[str, Any]], dict[str, Any]]:
        def read(value: Any, path: str, schema: Mapping[str, Any]) -> dict[str, Any]:
            if not isinstance(value, list) or not value:
                self._fail(path, f'"{keyword}" is a list of one or more schemas, not {_shown(value)}')
            return {keyword: [self._below(item, path, keyword, index) for index, item in enumerate(value)]}

        return read

    def _named(self, keyword: str, value: Any, path: str) -> dict[str, Schema]:
        if not isinstance(value, dict):
            self._fail(path, f'"{keyword}" is an object of schemas, not {_shown(value)}')
        if len(value) > self._limits.properties:
            self._fail(path, f'"{keyword}" has at most {self._limits.properties} entries, not {len(value)}')
        return {name: self._below(item, path, keyword, name) for name, item in value.items()}

    def _properties(self, value: Any, path: str, schema: Mapping[str, Any]) -> dict[str, Any]:
        properties = self._named("properties", value, path)
        for name in properties:
            self._check_writable(name, path, "properties")
        return {"properties": properties}

    def _pattern_properties(self, value: Any, path: str, schema: Mapping[str, Any]) -> dict[str, Any]:
        patterns = self._named("patternProperties", value, path)
        for pattern in patterns:
            self._check_pattern(pattern, path, "patternProperties")
        return {"patternProperties": patterns}

    def _items(self, value: Any, path: str, schema: Mapping[str, Any]) -> dict[str, Any]:
        if not isinstance(value, list):
            return {"items": self._below(value, path, "items")}
        if "prefixItems" in schema:
            self._fail(path, '"items" is one schema where there is "prefixItems"')
        return {"prefixItems": [self._below(item, path, "items", index) for index, item in enumerate(value)]}

    def _prefix_items(self, value: Any, path: str, schema: Mapping[str, Any]) -> dict[str, Any]:
        if not isinstance(value, list) or not value:
            self._fail(path, f'"prefixItems" is a list of one or more schemas, not {_shown(value)}')
        return {"prefixItems": [self._below(item, path, "prefixItems", index) for index, item in enumerate(value)]}

    def _additional_items(self, value: Any, path: str, schema: Mapping[str, Any]) -> dict[str, Any]:
        if not isinstance(schema.get("items"), list):
            return {}  # without effect, by every draft
        return {"items": self._below(value, path, "additionalItems")}

    # --- keywords that compare ---------------------------------------------------------------------------------------

    def _type(self, value: Any, path: str, schema: Mapping[str, Any]) -> dict[str, Any]:
        names = value if isinstance(value, list) else [value]
        if not names or not all(isinstance(name, str) and name in TYPES for name in names):
            self._fail(path, f'"type" is one or more of {", ".join(TYPES)}, not {_shown(value)}')
        return {"type": value}

    def _const(self, value: Any, path: str, schema: Mapping[str, Any]) -> dict[str, Any]:
        self._check_value(value, path, "const", 0)
        return {"const": value}

    def _enum(self, value: Any, path: str, schema: Mapping[str, Any]) -> dict[str, Any]:
        if not isinstance(value, list) or not value:
            self._fail(path, f'"enum" is a list of one or more values, not {_shown(value)}')
        self._check_value(value, path, "enum", 0)
        return {"enum": value}

    def _required(self, value: Any, path: str, schema: Mapping[str, Any]) -> dict[str, Any]:
        if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
            self._fail(path, f'"required" is a list of names, not {_shown(value)}')
        for name in value:
            self._check_writable(name, path, "required")
        return {"required": value}

    def _count(self, keyword: str) -> Callable[[Any, str, Mapping[str, Any]], dict[str, Any]]:
        def read(value: Any, path: str, schema: Mapping[str, Any]) -> dict[str, Any]:
            return {keyword: self._checked_count(keyword, value, path)}

        return read

    def _checked_count(self, keyword: str, value: Any, path: str) -> int:
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            self._fail(path, f'"{keyword}" is a whole number from 0 on, not {_shown(value)}')
        if value > self._limits.repetitions:
            self._fail(path, f'"{keyword}" is at most {self._limits.repetitions}, not {value}')
        return int(value)

    def _min_properties(self, value: Any, path: str, schema: Mapping[str, Any]) -> dict[str, Any]:
        count = self._checked_count("minProperties", value, path)
        required = schema.get("required")
        if isinstance(required, list) and len({str(name) for name in required}) >= count:
            return {}
        if count > 1:
            self._fail(
                path, '"minProperties" above 1 cannot be enforced, because a key may be repeated; use "required"'
            )
        return {"minProperties": count}

    def _bound(self, keyword: str, exclusive: str) -> Callable[[Any, str, Mapping[str, Any]], dict[str, Any]]:
        def read(value: Any, path: str, schema: Mapping[str, Any]) -> dict[str, Any]:
            self._check_number(keyword, value, path)
            return {} if schema.get(exclusive) is True else {keyword: value}

        return read

    def _exclusive(self, keyword: str, inclusive: str) -> Callable[[Any, str, Mapping[str, Any]], dict[str, Any]]:
        def read(value: Any, path: str, schema: Mapping[str, Any]) -> dict[str, Any]:
            if value is False or (value is True and inclusive not in schema):
                return {}
            bound = schema[inclusive] if value is True else value  # draft 4 has a flag beside the bound
            self._check_number(keyword, bound, path)
            return {keyword: bound}

        return read

    def _check_number(self, keyword: str, value: Any, path: str) -> None:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not abs(value) <= _LARGEST_BOUND:
            self._fail(path, f'"{keyword}" is a number up to 2**53 in size, not {_shown(value)}')

    def _multiple_of(self, value: Any, path: str, schema: Mapping[str, Any]) -> dict[str, Any]:
        self._check_number("multipleOf", value, path)
        if value <= 0:
            self._fail(path, f'"multipleOf" is above 0, not {_shown(value)}')
        return {"multipleOf": value}

    def _nullable(self, value: Any, path: str, schema: Mapping[str, Any]) -> dict[str, Any]:
        if value is not False:
            self._fail(path, '"nullable" is not part of JSON Schema; write "type": [..., "null"]')
        return {}

    def _unique_items(self, value: Any, path: str, schema: Mapping[str, Any]) -> dict[str, Any]:
        most = schema.get("maxItems")
        if value is not False and not (isinstance(most, int) and most <= 1):
            self._fail(path, 'the keyword "uniqueItems" cannot be enforced; remove it')
        return {}

    # --- text --------------------------------------------------------------------------------------------------------

    def _pattern(self, value: Any, path: str, schema: Mapping[str, Any]) -> dict[str, Any]:
        self._check_pattern(value, path, "pattern")
        return {"pattern": value}

    def _format(self, value: Any, path: str, schema: Mapping[str, Any]) -> dict[str, Any]:
        if isinstance(value, str) and value in IDLE_FORMATS:
            return {}
        if isinstance(value, str) and value in FORMAT_PATTERNS:
            return {"allOf": [{"pattern": FORMAT_PATTERNS[value]}]}
        if not isinstance(value, str) or value not in FORMATS:
            known = ", ".join(sorted(FORMATS | FORMAT_PATTERNS.keys()))
            self._fail(path, f'"format" {_shown(value)} cannot be enforced; {known} can')
        return {"format": value}

    def _check_pattern(self, pattern: Any, path: str, keyword: str) -> None:
        if not isinstance(pattern, str):
            self._fail(path, f'"{keyword}" is a regular expression, not {_shown(pattern)}')
        problem = pattern_problem(pattern, self._limits)
        if problem:
            self._fail(path, f'"{keyword}": {problem}')

    def _check_writable(self, text: str, path: str, keyword: str) -> None:
        for character in text:
            is_control = character < " " or character == "\x7f"
            if (is_control and character not in WRITABLE_CONTROLS) or "\ud800" <= character <= "\udfff":
                self._fail(path, f'"{keyword}" has the character U+{ord(character):04X}, which cannot be written')

    def _check_value(self, value: Any, path: str, keyword: str, depth: int) -> None:
        """Whether a constant can be written by the grammar: strings, and what is inside lists and objects."""
        self._num_values += 1
        if self._num_values > self._limits.enum_values:
            self._fail(path, f'"{keyword}": there are more than {self._limits.enum_values} values in all; use fewer')
        if depth > self._limits.nesting:
            self._fail(path, f'"{keyword}": values are nested more than {self._limits.nesting} deep')
        if isinstance(value, str):
            self._check_writable(value, path, keyword)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            self._check_number(keyword, value, path)
        elif isinstance(value, list):
            for item in value:
                self._check_value(item, path, keyword, depth + 1)
        elif isinstance(value, dict):
            for name, item in value.items():
                self._check_writable(name, path, keyword)
                self._check_value(item, path, keyword, depth + 1)


def pattern_problem(pattern: str, limits: ConstraintLimits) -> str:
    """What is wrong with the size of a regular expression; "" if nothing is."""
    for match in _REPETITION.finditer(pattern):
        if any(int(count[:20]) > limits.repetitions for count in match.groups() if count):
            return f"a repetition of more than {limits.repetitions} times; use a smaller one"
    depth = deepest = 0
    for character in re.sub(r"\\.", "", pattern, flags=re.DOTALL):
        depth += (character == "(") - (character == ")")
        deepest = max(deepest, depth)
    if deepest > limits.nesting:
        return f"groups are nested more than {limits.nesting} deep; make it flatter"
    return ""


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
