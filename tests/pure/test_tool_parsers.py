"""Tool calls are found in every documented form, however the text is cut; what is none stays text."""

from __future__ import annotations

import json
from itertools import count
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tool_samples import OFFERED, SAMPLES, Sample, format_named

from quipu.chat.tools import FORMATS, ToolFormat, ToolParser
from quipu.chat.tools.reader import Reader
from quipu.chat.tools.values import Dialect, read_value, transcode
from quipu.types import ToolCall, ToolCallDelta

FAMILIES = [tool_format.name for tool_format in FORMATS]


def parse(
    tool_format: ToolFormat, text: str, prompt: str = "", sizes: tuple[int, ...] = ()
) -> tuple[str, tuple[ToolCall, ...], list[ToolCallDelta]]:
    """What the parser makes of `text`, given in pieces of these sizes and then the rest: text, calls, all deltas."""
    numbers = count()
    parser = ToolParser(tool_format, OFFERED, lambda name: f"id{next(numbers)}", prompt)
    deltas = []
    for size in sizes:
        deltas.append(parser.append(text[:size]))
        text = text[size:]
    deltas += [parser.append(text), parser.flush()]
    calls = [call for delta in deltas for call in delta.tool_calls]
    whole = ToolCall.fold(calls)
    assert parser.num_calls == len(whole)
    return "".join(delta.content for delta in deltas), whole, calls


def values(calls: tuple[ToolCall, ...]) -> tuple[tuple[str, Any], ...]:
    return tuple((call.name, json.loads(call.arguments)) for call in calls)


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.family)
def test_documented_calls(sample: Sample) -> None:
    tool_format = format_named(sample.family)
    content, calls, _ = parse(tool_format, sample.text, sample.prompt)
    assert (content, values(calls)) == (sample.content, sample.calls)
    assert tuple(call.id for call in calls) == (sample.ids or tuple(f"id{i}" for i in range(len(calls))))
    by_letters = parse(tool_format, sample.text, sample.prompt, (1,) * len(sample.text))
    assert by_letters[:2] == (content, calls)


def test_every_family_has_a_sample() -> None:
    assert {sample.family for sample in SAMPLES} == set(FAMILIES)


@settings(deadline=None)
@given(st.sampled_from(SAMPLES), st.lists(st.integers(1, 40), max_size=30), st.text("ab<[{ \n", max_size=8))
def test_the_cut_makes_no_difference(sample: Sample, sizes: list[int], tail: str) -> None:
    tool_format = format_named(sample.family)
    text = sample.text + tail
    assert parse(tool_format, text, sample.prompt, tuple(sizes))[:2] == parse(tool_format, text, sample.prompt)[:2]


# Pieces of which the formats are made, in orders that they are not made for.
_PIECES = sorted(
    {
        *(opening for tool_format in FORMATS for opening in (*tool_format.openings, *tool_format.markers)),
        *'{}[]",:\\ \n',
        '"name"',
        '"get_weather"',
        '"arguments"',
        '{"name": "add", "arguments": {"a": 1}}',
        "get_weather",
        "<parameter=",
        ">",
        "</parameter>",
        "</function>",
        "\\u12",
        "\\ud83d",
        "é",
        "😀",
        "null",
        "1.5e3",
    }
)
garbage = st.lists(st.sampled_from(_PIECES) | st.text(max_size=4), max_size=25).map("".join)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(FORMATS), garbage, st.lists(st.integers(1, 12), max_size=40), st.sampled_from(["", ">>>"]))
def test_garbage(tool_format: ToolFormat, text: str, sizes: list[int], prompt: str) -> None:
    content, calls, deltas = parse(tool_format, text, prompt, tuple(sizes))
    assert (content, calls) == parse(tool_format, text, prompt)[:2]
    for call in calls:
        assert isinstance(json.loads(call.arguments), dict)
    if not calls and not (tool_format.name == "functionary-v3.2" and "all\n" in text):
        assert content == text  # not even white space is lost
    indices = [delta.index for delta in deltas]
    assert indices == sorted(indices)
    named = [delta for delta in deltas if delta.name]
    assert [delta.index for delta in named] == sorted(set(indices))
    assert all(delta.id for delta in named)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from([sample for sample in SAMPLES if sample.calls]), st.integers(0, 400))
def test_truncated_calls_are_text(sample: Sample, length: int) -> None:
    text = sample.text[:length]
    content, calls, _ = parse(format_named(sample.family), text, sample.prompt)
    if text.startswith("<|python_tag|>") and [name for name, _ in values(calls)] == ["python"]:
        return  # the beginning of a call reads as code
    assert values(calls) == sample.calls[: len(calls)]
    if not calls and not text.startswith("all\n"):
        assert content == text
    if length >= len(sample.text):
        assert len(calls) == len(sample.calls)


def test_a_broken_call_is_withdrawn() -> None:
    text = '<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": }}\n</tool_call> So: 3.'
    content, calls, deltas = parse(format_named("hermes"), text)
    assert (content, calls) == (text, ())
    assert deltas == [
        ToolCallDelta(0, "id0", "add", '{"a": 1, "b": '),
        ToolCallDelta(0, is_withdrawn=True),
    ]


def test_a_call_after_a_broken_one() -> None:
    broken, good = '<tool_call>{"name": 3}</tool_call>', '<tool_call>{"name": "ping", "arguments": {}}</tool_call>'
    content, calls, _ = parse(format_named("hermes"), f"{broken} {good}")
    assert content == broken
    assert calls == (ToolCall("id0", "ping", "{}"),)


def test_arguments_arrive_while_they_are_written() -> None:
    parser = ToolParser(format_named("hermes"), OFFERED, lambda name: "id")
    parser.append('<tool_call>{"name": "get_weather", "arguments": {"city": "Ro')
    assert parser.append("m").tool_calls == (ToolCallDelta(0, arguments="m"),)
    assert parser.append('e"').tool_calls == (ToolCallDelta(0, arguments='e"'),)
    assert parser.append("}").tool_calls == (ToolCallDelta(0, arguments="}"),)
    coder = ToolParser(format_named("qwen3-coder"), OFFERED, lambda name: "id")
    coder.append("<tool_call><function=get_weather><parameter=city>\nRo")
    assert coder.append('m"e').tool_calls == (ToolCallDelta(0, arguments='m\\"e'),)


def test_white_space_of_arguments_is_kept() -> None:
    """So that a call that comes back in the history is the tokens that the model wrote."""
    arguments = '{"city":"Rome",\n  "days" : 2}'
    _, calls, _ = parse(format_named("hermes"), f'<tool_call>{{"name": "x", "arguments": {arguments}}}</tool_call>')
    assert calls[0].arguments == arguments


@pytest.mark.parametrize(
    ("family", "text"),
    [
        ("llama", '{"name": "Bob", "age": 3}'),
        ("llama", '{"name": "get_weather", "age": 3}'),
        ("llama", '{"city": "Rome"}'),
        ("generic", '```json\n{"name": "Bob"}\n```'),
        ("functionary-v3.2", ">>> print(1)\n1"),
        ("cohere-action", 'Action:\n```json\n[{"tool_name": "directly-answer", "parameters": {}}]\n```'),
        ("firefunction", "Use functools.partial or functools[0]."),
        ("hermes", "The tag <tool_call> opens a call."),
        ("harmony", "<|start|>assistant<|channel|>commentary to=python<|message|>print(1)<|call|>"),
        ("mistral", "[TOOL_CALLS] are written so: [TOOL_CALLS]name[ARGS]arguments"),
        ("hermes", '<tool_call>{"name": "add", "arguments": [1]}</tool_call>'),
        ("hermes", '<tool_call>{"name": "", "arguments": {}}</tool_call>'),
        (
            "glm",
            "<tool_call>add<arg_key>a</arg_key><arg_value>1</arg_value><arg_key>a</arg_key><arg_value>2</arg_value>",
        ),
    ],
)
def test_what_is_no_call(family: str, text: str) -> None:
    assert parse(format_named(family), text)[:2] == (text, ())


def test_openings_do_not_hide_one_another() -> None:
    """The reader takes an opening once it is whole, so none may go on where another ends."""
    for tool_format in FORMATS:
        for opening in tool_format.openings:
            assert not any(other != opening and other.startswith(opening) for other in tool_format.openings)


def test_a_repeated_id_is_replaced() -> None:
    call = "[TOOL_CALLS]ping[CALL_ID]aaaaaaaaa[ARGS]{}"
    _, calls, _ = parse(format_named("mistral"), call + call)
    assert [one.id for one in calls] == ["aaaaaaaaa", "id0"]


# --- values ---

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


@settings(deadline=None)
@given(json_values, st.booleans(), st.sampled_from([None, 0, 2]))
@example("\u2028\x7f\x00", True, None)
def test_json_stays_as_it_is(value: Any, ensure_ascii: bool, indent: int | None) -> None:
    text = json.dumps(value, ensure_ascii=ensure_ascii, indent=indent)
    assert transcode(text) == text


@settings(deadline=None)
@given(json_values, st.lists(st.integers(1, 9), max_size=20))
def test_values_in_pieces(value: Any, sizes: list[int]) -> None:
    text = json.dumps(value) + " "
    reader, pieces = Reader(), list[str]()
    run = read_value(reader, pieces.append)
    place = 0
    for size in (*sizes, len(text)):
        reader.feed(text[place : place + size])
        place += size
        if next(run, "done") == "done":
            break
    assert json.loads("".join(pieces)) == value


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{'a': 'it\\'s \"x\"',}", '{"a": "it\'s \\"x\\""}'),
        ('"a\nb\tc"', '"a\\nb\\tc"'),
        ("[True, False, None, ]", "[true, false, null ]"),
        (r'"\d+\."', r'"\\d+\\."'),
        (r'"\ud83d\ude00"', r'"\ud83d\ude00"'),
        (r'"\ud83d"', r'"\ufffd"'),
        (r'"\ude00 \ud83d\ud83d\ude00"', r'"\ufffd \ufffd\ud83d\ude00"'),
        ("-1.5E+3", "-1.5E+3"),
        ("{ }", "{ }"),
    ],
)
def test_what_models_get_wrong(text: str, expected: str) -> None:
    assert transcode(text) == expected
    json.loads(expected)


@pytest.mark.parametrize(
    "text",
    [
        "", "{", '{"a"}', '{"a":}', "{a: 1}", "[1 2]", "[,]", "01", "1.", "NaN", "Infinity", "nul", '"', '"\\',
        '"\\u12"', '"\\uzzzz"', "1 2", "{}}", "[" * 101 + "]" * 101, "1" * 401, "{'a' 1}", "{1: 2}", "--1", "'\n",
    ],
)  # fmt: skip
def test_what_is_no_value(text: str) -> None:
    assert transcode(text) is None


def test_gemmas_values() -> None:
    dialect = Dialect(quotes=('"',), raw_quotes=('<|"|>',), has_bare_keys=True)
    assert transcode('{a:<|"|>x\\n"<|"|>,b_2:[1,{c:null}]}', dialect) == '{"a":"x\\\\n\\"","b_2":[1,{"c":null}]}'


def test_a_long_answer_costs_linear_time() -> None:
    """A million characters that look like the beginning of calls, one character at a time."""
    parser = ToolParser(format_named("hermes"), OFFERED, lambda name: "id")
    text = "<tool_call> {" * 20_000
    content = "".join(parser.append(char).content for char in text) + parser.flush().content
    assert content == text
