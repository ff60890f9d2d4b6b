"""JSON schemas: what comes out is valid by an independent validator, and what cannot be enforced is refused by path."""

from __future__ import annotations

import contextlib
import json
import math
import re
from decimal import Decimal
from fractions import Fraction
from typing import Any

import jsonschema
import pytest
from constraint_walks import accepts, new_compiler, random_answer
from hypothesis import given, settings
from hypothesis import strategies as st

from quipu.chat.constraints import ConstraintCompiler, ConstraintLimits
from quipu.errors import EngineError, InvalidRequestError
from quipu.types import ConstraintSpec

COMPILER = new_compiler()
DRAFT_4 = "http://json-schema.org/draft-04/schema#"
DRAFT_7 = "http://json-schema.org/draft-07/schema#"


def _exact(text: str) -> Fraction | float:
    """A number as it is written, or rounded where its exponent would make that long."""
    return float(text) if re.search(r"[eE][+-]?[0-9]{3}", text) else Fraction(Decimal(text))


def is_valid(text: str | bytes, schema: Any) -> bool:
    """Whether the text is JSON that the schema allows, with numbers taken exactly."""
    value = json.loads(text, parse_float=_exact)
    exact = json.loads(json.dumps(schema), parse_float=_exact)
    default = jsonschema.Draft202012Validator
    kind = jsonschema.validators.validator_for(schema, default=default) if isinstance(schema, dict) else default
    return bool(kind(exact, format_checker=kind.FORMAT_CHECKER).is_valid(value))


def refusal(schema: Any, **options: Any) -> str:
    with pytest.raises(InvalidRequestError) as caught:
        COMPILER.compile(ConstraintSpec.json_schema(schema, **options))
    return str(caught.value)


OBJECT = {"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"}}}
ENFORCED: dict[str, Any] = {
    "true": True,
    "types": {"type": ["null", "boolean", "integer"]},
    "number": {"type": "number"},
    "object": {**OBJECT, "required": ["name"]},
    "optional properties": OBJECT,
    "closed object": {**OBJECT, "additionalProperties": False},
    "additional schema": {"type": "object", "additionalProperties": {"type": "boolean"}},
    "additional beside known": {**OBJECT, "additionalProperties": {"type": "null"}},
    "patternProperties": {
        "type": "object",
        "patternProperties": {"^a": {"type": "integer"}, "^b": {"type": "null"}},
        "additionalProperties": False,
    },
    "pattern beside known": {
        "type": "object",
        "properties": {"ab": {"type": "string"}},
        "patternProperties": {"^a": {"minLength": 2}},
        "additionalProperties": {"type": "boolean"},
    },
    "required unknown": {"type": "object", "required": ["x", "y"], "additionalProperties": {"type": "integer"}},
    "minProperties 1": {"type": "object", "minProperties": 1, "additionalProperties": {"type": "null"}},
    "maxProperties": {"type": "object", "maxProperties": 2, "additionalProperties": {"type": "null"}},
    "array": {"type": "array", "items": {"type": "integer"}},
    "minItems and maxItems": {"type": "array", "items": {"enum": [1, 2]}, "minItems": 2, "maxItems": 3},
    "prefixItems": {"type": "array", "prefixItems": [{"type": "null"}, {"const": 1}], "items": False, "minItems": 1},
    "items of draft 7": {"$schema": DRAFT_7, "type": "array", "items": [{"type": "null"}], "additionalItems": False},
    "minLength and maxLength": {"type": "string", "minLength": 2, "maxLength": 4},
    "pattern": {"type": "string", "pattern": "^[ab]+\\d?$"},
    "pattern inside": {"type": "string", "pattern": "a.b", "maxLength": 6},
    "const": {"const": {"a": [1, "b", None, True]}},
    "enum": {"enum": ["red", 'a"b', 7, -3, None, [1], {"a": 1}, "日本", "a\nb"]},
    "enum beside type": {"type": "string", "enum": ["a", "b", 3]},
    "minimum": {"type": "integer", "minimum": -3, "maximum": 12},
    "exclusive": {"type": "integer", "exclusiveMinimum": 0, "exclusiveMaximum": 3},
    "exclusive of draft 4": {
        "$schema": DRAFT_4,
        "type": "integer",
        "minimum": 5,
        "exclusiveMinimum": True,
        "maximum": 7,
    },
    "fractional bounds": {"type": "number", "minimum": 0.25, "exclusiveMaximum": 1.5},
    "negative bounds": {"type": "number", "minimum": -2.5, "maximum": -0.125},
    "multipleOf": {"type": "integer", "multipleOf": 7, "minimum": 0, "maximum": 100},
    "fractional multipleOf": {"type": "number", "multipleOf": 0.25, "minimum": 0, "maximum": 9},
    "anyOf": {"anyOf": [{"type": "null"}, {"type": "string", "maxLength": 2}, {"type": "array", "maxItems": 0}]},
    "oneOf by type": {"oneOf": [{"type": "null"}, {"type": "boolean"}]},
    "oneOf by constant": {
        "oneOf": [
            {
                "type": "object",
                "properties": {"kind": {"const": kind}, kind: {"type": "null"}},
                "required": ["kind", kind],
            }
            for kind in ("a", "b")
        ]
    },
    "allOf": {"allOf": [{"type": "integer"}, {"minimum": 3}, {"maximum": 5}]},
    "allOf of objects": {
        "allOf": [OBJECT, {"type": "object", "properties": {"age": {"minimum": 3}}, "required": ["age"]}]
    },
    "beside anyOf": {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
        "anyOf": [{"required": ["a"]}, {"required": ["b"]}],
    },
    "reference": {"$defs": {"n": {"type": "null"}}, "type": "array", "items": {"$ref": "#/$defs/n"}},
    "reference of draft 7": {"definitions": {"a~b/c": {"type": "null"}}, "$ref": "#/definitions/a~0b~1c"},
    "reference by anchor": {"$defs": {"n": {"$anchor": "here", "type": "null"}}, "$ref": "#here"},
    "reference beside": {"$defs": {"n": {"type": "integer"}}, "$ref": "#/$defs/n", "maximum": 3, "minimum": 1},
    "recursion": {
        "type": "object",
        "properties": {"value": {"type": "integer"}, "next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}},
        "required": ["value"],
        "additionalProperties": False,
    },
    "tree": {
        "$defs": {"tree": {"type": "array", "items": {"$ref": "#/$defs/tree"}, "maxItems": 2}},
        "$ref": "#/$defs/tree",
    },
    "annotations": {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "https://example.org/s",
        "$comment": "c",
        "title": "t",
        "description": "d",
        "default": 1,
        "examples": [1],
        "deprecated": True,
        "readOnly": True,
        "writeOnly": False,
        "contentMediaType": "text/plain",
        "x-note": {"not": {}},
        "type": "integer",
        "properties": {"a": {"title": "properties named like keywords are schemas"}, "not": {"type": "null"}},
    },
    "idle keywords": {"type": "array", "uniqueItems": False, "minContains": 2, "then": {}, "additionalItems": False},
    "uniqueItems of one": {"type": "array", "uniqueItems": True, "maxItems": 1},
}
FORMAT_NAMES = (
    "date",
    "date-time",
    "time",
    "duration",
    "email",
    "hostname",
    "ipv4",
    "ipv6",
    "json-pointer",
    "uri",
    "uuid",
)
ENFORCED |= {f"format {name}": {"type": "string", "format": name} for name in FORMAT_NAMES}


@pytest.mark.parametrize("name", ENFORCED)
def test_whatever_a_model_writes_fits_the_schema(name: str) -> None:
    schema = ENFORCED[name]
    answers = [random_answer(COMPILER, ConstraintSpec.json_schema(schema), seed) for seed in range(25)]
    texts = [answer for answer in answers if answer is not None]
    assert len(texts) > 5, "nearly no walk comes to an end"
    for text in texts:
        assert is_valid(text, schema), text.decode()


REFUSED: list[tuple[Any, str]] = [
    ({"not": {}}, 'at #: the keyword "not"'),
    ({"type": "array", "contains": {}}, 'at #: the keyword "contains"'),
    ({"if": {}, "then": {}, "else": {}}, 'at #: the keyword "if"'),
    ({"properties": {"a": {"items": {"not": {}}}}}, 'at #/properties/a/items: the keyword "not"'),
    ({"allOf": [{}, {"uniqueItems": True}]}, 'at #/allOf/1: the keyword "uniqueItems"'),
    ({"prefixItems": [{"propertyNames": {}}]}, "at #/prefixItems/0"),
    ({"items": [{}, {"dependentRequired": {}}]}, "at #/items/1"),
    ({"patternProperties": {"a/b~": {"dependentSchemas": {}}}}, "at #/patternProperties/a~1b~0"),
    ({"additionalProperties": {"unevaluatedProperties": False}}, "at #/additionalProperties"),
    ({"$defs": {"x": {"unevaluatedItems": False}}, "$ref": "#/$defs/x"}, "at #/$defs/x"),
    ({"$dynamicRef": "#x"}, "$dynamicRef"),
    ({"dependencies": {"a": ["b"]}}, "dependencies"),
    ({"type": "string", "nullable": True}, "nullable"),
    ({"minimun": 3}, 'the keyword "minimun" is unknown'),
    ({"type": "strin"}, '"type" is one or more of'),
    ({"type": []}, '"type" is one or more of'),
    ({"type": "string", "format": "iri"}, "'iri' cannot be enforced"),
    ({"type": "integer", "format": "int64"}, "'int64' cannot be enforced"),
    ({"enum": []}, '"enum" is a list of one or more'),
    ({"anyOf": []}, '"anyOf" is a list of one or more'),
    ({"properties": {str(number): {} for number in range(1001)}}, '"properties" has at most 1000 entries'),
    ({"properties": []}, '"properties" is an object'),
    ({"required": "a"}, '"required" is a list'),
    ({"minLength": -1}, '"minLength" is a whole number'),
    ({"maxItems": 1.5}, '"maxItems" is a whole number'),
    ({"maxLength": 10**9}, '"maxLength" is at most'),
    ({"minimum": "1"}, '"minimum" is a number'),
    ({"maximum": 10**30}, '"maximum" is a number up to'),
    ({"multipleOf": 0}, '"multipleOf" is above 0'),
    ({"pattern": 3}, '"pattern" is a regular expression'),
    ({"pattern": "a{99999}"}, "a repetition of more than"),
    ({"properties": {"x": {"pattern": "(?=a)b"}}}, "at #/properties/x: look-ahead"),
    ({"items": {"pattern": "(a)\\1"}}, "at #/items: back references"),
    ({"properties": {"a\u0001": {}}}, "U+0001"),
    ({"const": ["\u007f"]}, "U+007F"),
    ({"minProperties": 2}, "a key may be repeated"),
    ({"items": {"oneOf": [{"type": "string"}, {"maxLength": 3}]}}, 'at #/items: the schemas of "oneOf" may overlap'),
    ({"type": "object", "properties": {"a": False}, "required": ["a"]}, "unsatisfiable"),
    ({"$ref": "other.json"}, "leads out of the schema"),
    ({"$ref": "#/$defs/x"}, "leads to nothing"),
    ({"$ref": "#nowhere"}, "anchor"),
    ({"$ref": 3}, '"$ref" is a string'),
    ({"$ref": "#"}, "refers to itself for the same value"),
    ({"anyOf": [{"allOf": [{"$ref": "#"}]}, {"type": "null"}]}, "refers to itself for the same value"),
    ({"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}, "no value of finite size"),
    ({"type": "array", "minItems": 1, "items": {"$ref": "#"}}, "no value of finite size"),
    ({"properties": {"a": {"$id": "b", "type": "null"}}}, "$id"),
    (False, "schema is false"),
    ({"properties": {"a": 3}}, "at #/properties/a: a schema is an object"),
]


@pytest.mark.parametrize(("schema", "expected"), REFUSED)
def test_what_cannot_be_enforced_is_refused_by_path(schema: Any, expected: str) -> None:
    message = refusal(schema, field="response_format")
    assert expected in message
    assert message.startswith("response_format")
    assert "\n" not in message


def test_refusal_names_the_field() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        COMPILER.compile(ConstraintSpec.json_schema({"not": {}}, field="tools[0].parameters"))
    assert caught.value.field == "tools[0].parameters"


def test_definitions_that_nothing_refers_to_are_not_looked_at() -> None:
    schema = {"type": "null", "$defs": {"unused": {"not": {}}}}
    assert accepts(COMPILER, ConstraintSpec.json_schema(schema), "null")


def test_a_schema_cannot_switch_the_checks_off() -> None:
    schema = {"x-guidance": {"lenient": True, "coerce_one_of": True}, "type": "integer"}
    spec = ConstraintSpec.json_schema(schema)
    assert accepts(COMPILER, spec, "1")
    assert not accepts(COMPILER, spec, '"a"')
    assert "not" in refusal({**schema, "not": {}})


def test_a_key_cannot_be_written_in_a_second_way() -> None:
    """`\\u0061` is `a` to every parser, and must obey the schema of `a`."""
    spec = ConstraintSpec.json_schema({"type": "object", "properties": {"a": {"type": "integer"}}})
    assert accepts(COMPILER, spec, '{"a":1}')
    assert not accepts(COMPILER, spec, '{"\\u0061":"x"}')
    assert not accepts(COMPILER, spec, '{"a":"x"}')
    assert not accepts(COMPILER, spec, '{"b":"\\ud800"}')


def test_leap_days() -> None:
    spec = ConstraintSpec.json_schema({"type": "string", "format": "date"})
    for text, fits in (("2024-02-29", True), ("2023-02-29", False), ("1900-02-29", False), ("2000-02-29", True)):
        assert accepts(COMPILER, spec, f'"{text}"') is fits
    assert not accepts(COMPILER, spec, '"2024-04-31"')


def test_whitespace() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "array"}}}
    line = ConstraintSpec.json_schema(schema)
    flexible = ConstraintSpec.json_schema(schema, whitespace="flexible")
    compact = ConstraintSpec.json_schema(schema, whitespace="compact")
    cases = {
        '{"a":[1,2]}': (True, True, True),
        '{"a": [1, 2]}': (True, True, False),
        '{"a": [1,2]}': (True, True, False),
        '{\n  "a": [\n    1\n  ]\n}': (False, True, False),
        '{\r\n\t"a" :[]\r\n}': (False, True, False),
        '{"a":  []}': (False, False, False),
        '{\n\n"a":[]}': (False, False, False),
        ' {"a":[]}': (False, False, False),
        '{"a":[]} ': (False, False, False),
    }
    for text, expected in cases.items():
        assert tuple(accepts(COMPILER, spec, text) for spec in (line, flexible, compact)) == expected, text
    assert accepts(COMPILER, ConstraintSpec.json_schema(schema, leading_whitespace=True), '\n\n{"a":[]}')


@pytest.mark.parametrize("whitespace", ["flexible", "compact"])
def test_other_whitespace_makes_valid_answers_too(whitespace: str) -> None:
    for name in ("closed object", "minItems and maxItems", "recursion", "fractional bounds"):
        spec = ConstraintSpec.json_schema(ENFORCED[name], whitespace=whitespace)
        texts = [random_answer(COMPILER, spec, seed) for seed in range(10)]
        assert any(texts)
        assert all(is_valid(text, ENFORCED[name]) for text in texts if text is not None)


def test_json_object() -> None:
    spec = ConstraintSpec.json_object()
    for text in ("{}", '{"a": {"b": [1, 2.5e3, "c", null, true]}}'):
        assert accepts(COMPILER, spec, text)
    for text in ("[]", "1", "", '{"a"}', "{'a': 1}"):
        assert not accepts(COMPILER, spec, text)


@pytest.mark.parametrize(
    "text", ["", "{", "nan", '{"a": NaN}', '{"a": 1, "a": 2}', "[" * 100_000, '{"a": "\\ud800"}x', "{}{}"]
)
def test_text_that_is_no_json(text: str) -> None:
    assert "constraint" in refusal(text)


def test_values_that_are_no_json() -> None:
    for value in ({"const": {1, 2}}, {"const": math.nan}, [], 3, None):
        with pytest.raises(InvalidRequestError):
            ConstraintSpec.json_schema(value)  # type: ignore[arg-type]


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "null"}
    for _ in range(depth):
        schema = {"type": "array", "items": schema}
    return schema


def test_limits() -> None:
    small = new_compiler(limits=ConstraintLimits(source_bytes=400, nesting=5, subschemas=7, enum_values=4, patterns=3))
    for schema, expected in (
        ({"description": "x" * 500}, "bytes"),
        (nested(6), "nested more than 5 deep"),
        ({"anyOf": [{}] * 7}, "more than 7 schemas"),
        ({"enum": [1, 2, 3, 4, 5]}, "more than 4 values"),
        ({"const": [[[[1]]]]}, "more than 4 values"),
        ({"allOf": [{"pattern": "a"}] * 4}, "patterns"),
    ):
        with pytest.raises(InvalidRequestError, match=expected):
            small.compile(ConstraintSpec.json_schema(schema))
    small.compile(ConstraintSpec.json_schema(nested(5)))


@pytest.mark.parametrize(
    "schema",
    [
        {"enum": [f"value {number}" for number in range(4000)]},
        {"type": "object", "properties": {f"p{number}": {"type": "string"} for number in range(1000)}},
        {"anyOf": [{"type": "string", "pattern": f"(a|b)*a(a|b){{{number}}}"} for number in range(60)]},
        {"type": "string", "pattern": "((a{1,100}){1,100}){1,100}b"},
        {"type": "array", "minItems": 9999, "maxItems": 10_000, "items": {"maxLength": 10_000, "type": "string"}},
        {"allOf": [{"pattern": f".*{chr(97 + number)}.*"} for number in range(20)]},
        {"allOf": [{"anyOf": [{"minimum": a, "maximum": a + b} for a in range(8)]} for b in range(8)]},
        {
            "$defs": {str(n): {"allOf": [{"$ref": f"#/$defs/{n + 1}"}] * 2} for n in range(60)} | {"60": {}},
            "$ref": "#/$defs/0",
        },
    ],
)
@pytest.mark.timeout(120)
def test_hostile_schemas_are_compiled_or_refused_within_bounds(schema: Any) -> None:
    with contextlib.suppress(InvalidRequestError, EngineError):
        random_answer(COMPILER, ConstraintSpec.json_schema(schema), seed=1, num_most=60)


# --- schemas at random: refused, or enforced --------------------------------------------------------------------------

_NAMES = st.sampled_from(["a", "b", "ab", "é", "a/b"])
_SCALARS = st.one_of(st.none(), st.booleans(), st.integers(-20, 20), st.sampled_from(["", "a", "ab", 'q"', "日"]))
_BASE = st.one_of(
    st.sampled_from([True, {}, {"type": "null"}, {"type": "boolean"}, {"type": "string"}]),
    st.fixed_dictionaries(
        {"type": st.sampled_from(["integer", "number"])},
        optional={
            "minimum": st.integers(-9, 9),
            "maximum": st.integers(-9, 30),
            "exclusiveMinimum": st.sampled_from([-2.5, 0, 3]),
            "exclusiveMaximum": st.sampled_from([0.5, 10]),
            "multipleOf": st.sampled_from([1, 3, 0.5]),
        },
    ),
    st.fixed_dictionaries(
        {},
        optional={
            "type": st.just("string"),
            "minLength": st.integers(0, 3),
            "maxLength": st.integers(0, 6),
            "pattern": st.sampled_from(["a", "^a", "b$", "^[ab]*$", "^$", "[^a]"]),
            "format": st.sampled_from(["date", "ipv4", "uuid"]),
        },
    ),
    st.builds(lambda values: {"enum": values}, st.lists(_SCALARS, min_size=1, max_size=4)),
    st.builds(lambda value: {"const": value}, _SCALARS),
)


def _containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    objects = st.fixed_dictionaries(
        {"type": st.just("object")},
        optional={
            "properties": st.dictionaries(_NAMES, inner, max_size=3),
            "required": st.lists(_NAMES, max_size=2, unique=True),
            "additionalProperties": inner | st.just(False),
            "patternProperties": st.dictionaries(st.sampled_from(["^a", "b$", "^z"]), inner, max_size=2),
            "minProperties": st.integers(0, 2),
            "maxProperties": st.integers(0, 3),
        },
    )
    arrays = st.fixed_dictionaries(
        {"type": st.just("array")},
        optional={
            "items": inner | st.just(False),
            "prefixItems": st.lists(inner, min_size=1, max_size=2),
            "minItems": st.integers(0, 2),
            "maxItems": st.integers(0, 3),
        },
    )
    several = st.lists(inner, min_size=1, max_size=3)
    combined = st.one_of(
        st.builds(lambda parts: {"anyOf": parts}, several),
        st.builds(lambda parts: {"allOf": parts}, several),
        st.builds(lambda parts: {"oneOf": parts}, several),
        st.builds(lambda part, parts: {**(part if isinstance(part, dict) else {}), "anyOf": parts}, inner, several),
        st.just({"$ref": "#"}),
        st.just({"$ref": "#/$defs/d"}),
    )
    return objects | arrays | combined


_SCHEMAS = st.recursive(_BASE, _containers, max_leaves=6)


@settings(max_examples=250, deadline=None)
@given(_SCHEMAS, _BASE, st.integers(0, 1000))
def test_random_schemas_are_refused_or_enforced(schema: Any, definition: Any, seed: int) -> None:
    whole = {**schema, "$defs": {"d": definition}} if isinstance(schema, dict) else schema
    texts, message = [], ""
    try:
        texts = [random_answer(COMPILER, ConstraintSpec.json_schema(whole), seed + i, num_most=150) for i in range(4)]
    except InvalidRequestError as error:
        message = str(error)
    assert "\n" not in message
    for text in texts:
        if text is not None:
            assert re.sub(rb"\s", b"", text)
            assert is_valid(text, whole), (whole, text.decode())


def test_the_cache_is_bounded() -> None:
    compiler = ConstraintCompiler(COMPILER._tokenizer, COMPILER.vocabulary.size, cache_size=3)
    for number in range(10):
        compiler.compile(ConstraintSpec.json_schema({"const": number}))
    assert len(compiler._compiled) == 3
    first = compiler.compile(ConstraintSpec.json_schema({"const": 9}))
    second = compiler.compile(ConstraintSpec.json_schema({"const": 9}))
    first.accept(compiler.vocabulary.tokenize(b"9"))
    assert first.is_complete
    assert not second.is_complete, "what is kept is never moved"
