"""The grammars compile, take what the families write, and refuse other names and arguments."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from chat_samples import TEMPLATES
from tool_samples import OFFERED, function
from tool_templates import FORMAT_OF, calls_text, paths, template

from quipu.chat import ToolChoice, ToolGrammar, read_tools
from quipu.chat.tools import FORMATS, Reasoning, read_tool_choice, write_tool_grammar
from quipu.errors import InvalidRequestError

llguidance = pytest.importorskip("llguidance")

FORECAST = {
    "type": "function",
    "function": {
        "name": "get_forecast",
        "description": "The forecast.",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "Where."},
                "days": {"type": "integer", "description": "How many."},
                "unit": {"type": "string", "enum": ["C", "F"], "description": "Which."},
            },
            "required": ["city", "days"],
        },
    },
}
NOTE = {
    "type": "function",
    "function": {
        "name": "note",
        "description": "Keeps a note.",
        "parameters": {
            "type": "object",
            "properties": {
                "lines": {"type": "array", "items": {"$ref": "#/$defs/line"}, "description": "What."},
                "text": {"type": "string", "description": "More."},
            },
            "required": [],
            "$defs": {"line": {"type": "object", "properties": {"n": {"type": "number"}, "t": {"type": "string"}}}},
        },
    },
}
TOOLS = [FORECAST, NOTE]
ROME = ("get_forecast", {"city": 'Rome, "it\'s" </b>', "days": 2})
UNIT = ("get_forecast", {"city": "Oslo", "days": 2, "unit": "F"})
LINES = ("note", {"lines": [{"n": 1, "t": "a\nb"}, {"n": -2.5}], "text": "x"})
PLAIN_NOTE = ("note", {"text": "x"})
WRONG: list[tuple[str, dict[str, Any]]] = [
    ("get_forecasts", {"city": "Rome", "days": 2}),
    ("get_forecast", {"city": "Rome", "days": 2, "town": "Rome"}),
    ("get_forecast", {"city": "Rome", "days": True}),
    ("get_forecast", {"city": "Rome"}),
    ("get_forecast", {"city": "Rome", "days": 2, "unit": "K"}),
]

# Their openings hold control tokens beside text, so nothing can trigger a grammar, but one can hold from the start.
MIXED_OPENINGS = ("GigaChat3-10B-A1.8B", "deepseek-ai-DeepSeek-V4")


class Vocabulary:
    """Bytes, some longer pieces, and control tokens, in the form that llguidance asks for."""

    def __init__(self, controls: tuple[str, ...]) -> None:
        pieces = [b"}}", b'"}', b"}]", b'{"', b'": ', b'": "', b"\n}", b'"}}', b"]}", b">\n", b"</", b"}\n</"]
        self.tokens = [*(bytes([byte]) for byte in range(256)), *pieces, b"<end>"]
        self.eos_token_id = len(self.tokens) - 1
        self.bos_token_id = None
        self.controls = {text: len(self.tokens) + i for i, text in enumerate(dict.fromkeys(controls))}
        self.tokens += [text.encode() for text in self.controls]
        self.special_token_ids = [self.eos_token_id, *self.controls.values()]
        self._pieces = {piece: 256 + i for i, piece in enumerate(pieces)}

    def __call__(self, text: str | bytes) -> list[int]:
        return list(text.encode() if isinstance(text, str) else text)

    def encode(self, text: str, *, in_bytes: bool) -> list[int]:
        """The tokens of a text; control tokens by their texts, and longer pieces where they fit."""
        token_ids: list[int] = []
        controls = sorted(self.controls, key=len, reverse=True)
        for part in re.split(f"({'|'.join(map(re.escape, controls))})" if controls else "$", text):
            if part in self.controls:
                token_ids.append(self.controls[part])
                continue
            data = part.encode()
            while data:
                fitting = [] if in_bytes else [piece for piece in self._pieces if data.startswith(piece)]
                piece = max(fitting, key=len, default=data[:1])
                token_ids.append(self._pieces.get(piece, data[0]) if len(piece) > 1 else data[0])
                data = data[len(piece) :]
        return token_ids


def takes(grammar: ToolGrammar, text: str, vocabulary: Vocabulary | None = None, *, in_bytes: bool = True) -> bool:
    """Whether the grammar allows `text` as all of what it holds."""
    vocabulary = vocabulary or Vocabulary(())
    tokenizer = llguidance.LLTokenizer(llguidance.TokenizerWrapper(vocabulary))
    matcher = llguidance.LLMatcher(tokenizer, llguidance.LLMatcher.grammar_from_lark(grammar.source))
    assert not matcher.is_error(), matcher.get_error()
    token_ids = vocabulary.encode(text, in_bytes=in_bytes)
    if matcher.validate_tokens(token_ids) < len(token_ids):
        return False
    matcher.consume_tokens(token_ids)
    return bool(matcher.is_accepting())


@cache
def vocabularies(path: Path) -> tuple[Vocabulary, ...]:
    """Without control tokens, and with all marks as control tokens."""
    markers = template(path).answer_parser("", tools=read_tools(TOOLS)).markers
    return Vocabulary(()), Vocabulary(markers)


def grammar_of(path: Path, vocabulary: Vocabulary, choice: ToolChoice) -> ToolGrammar:
    chosen = template(path)
    prompt, _ = calls_text(chosen, [ROME], TOOLS)
    grammar = chosen.tool_grammar(read_tools(TOOLS), choice, prompt, vocabulary.controls)
    assert grammar is not None
    return grammar


def reasoned(path: Path, text: str) -> str:
    """The call as it may stand at the start of an answer: reasoning that the prompt has begun is closed first."""
    prompt, _ = calls_text(template(path), [ROME], TOOLS)
    return f"</think>\n\n{text}" if prompt.rstrip().endswith("<think>") else text


@pytest.mark.parametrize("path", paths(), ids=lambda path: path.stem)
def test_calls_are_taken_and_others_refused(path: Path) -> None:
    chosen = template(path)
    nested = [] if path.stem == "ByteDance-Seed-OSS" else [LINES]  # whose template writes no JSON in arguments
    for vocabulary in vocabularies(path):
        choice = ToolChoice("auto")
        if vocabulary.controls and path.stem in MIXED_OPENINGS:
            assert chosen.tool_grammar(read_tools(TOOLS), choice, "", vocabulary.controls) is None
            choice = ToolChoice("required")
        grammar = grammar_of(path, vocabulary, choice)
        for call in (ROME, UNIT, PLAIN_NOTE, *nested):
            text = calls_text(chosen, [call], TOOLS)[1]
            assert takes(grammar, text, vocabulary), text
            assert takes(grammar, text, vocabulary, in_bytes=False), text
            if grammar.triggers and not chosen.tool_format.begun_by(calls_text(chosen, [call], TOOLS)[0]):
                assert text.startswith(grammar.triggers)
        for call in WRONG:
            text = calls_text(chosen, [call], TOOLS)[1]
            assert not takes(grammar, text, vocabulary), text


@pytest.mark.parametrize("path", paths(), ids=lambda path: path.stem)
def test_required_and_named(path: Path) -> None:
    chosen = template(path)
    for vocabulary in vocabularies(path):
        required = grammar_of(path, vocabulary, ToolChoice("required"))
        named = grammar_of(path, vocabulary, ToolChoice("required", "note"))
        one = grammar_of(path, vocabulary, ToolChoice("required", is_parallel=False))
        assert required.triggers == named.triggers == ()
        forecast, note = (reasoned(path, calls_text(chosen, [call], TOOLS)[1]) for call in (ROME, PLAIN_NOTE))
        for grammar in (required, one):
            assert takes(grammar, forecast, vocabulary)
            assert takes(grammar, note, vocabulary)
            assert not takes(grammar, reasoned(path, "all\nNo."), vocabulary)
        assert takes(named, note, vocabulary)
        assert not takes(named, forecast, vocabulary)
        is_parallel = FORMAT_OF[path.stem][1]
        if is_parallel:
            both = reasoned(path, calls_text(chosen, [ROME, PLAIN_NOTE], TOOLS)[1])
            assert takes(required, both, vocabulary)
            assert not takes(one, both, vocabulary)


def test_reasoning_may_come_first() -> None:
    chosen = template(TEMPLATES / "Qwen-Qwen3-0.6B.jinja")
    call = calls_text(chosen, [ROME], TOOLS)[1]
    for vocabulary in (Vocabulary(()), Vocabulary(("<think>", "</think>", "<tool_call>", "</tool_call>"))):
        grammar = chosen.tool_grammar(read_tools(TOOLS), ToolChoice("required"), "", vocabulary.controls)
        assert grammar is not None
        assert takes(grammar, call, vocabulary)
        assert takes(grammar, f"<think>\nI <b> call.\n</think>\n\n{call}", vocabulary)
        assert not takes(grammar, f"<think>\nI call.\n{call}", vocabulary)
        opened = chosen.tool_grammar(read_tools(TOOLS), ToolChoice("required"), "...\n<think>\n", vocabulary.controls)
        assert opened is not None
        assert takes(opened, f"I call.\n</think>\n\n{call}", vocabulary)
        assert not takes(opened, call, vocabulary)
        auto = chosen.tool_grammar(read_tools(TOOLS), ToolChoice("auto"), "...\n<think>\n", vocabulary.controls)
        assert auto is not None
        assert (auto.triggers, auto.after) == (("<tool_call>",), "</think>")


def test_gpt_oss_may_think_before_it_must_call() -> None:
    chosen = template(TEMPLATES / "openai-gpt-oss-120b.jinja")
    vocabulary = Vocabulary(chosen.answer_parser("", tools=read_tools(TOOLS)).markers)
    grammar = chosen.tool_grammar(read_tools(TOOLS), ToolChoice("required"), "", vocabulary.controls)
    assert grammar is not None
    thought = "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant"
    call = '<|channel|>commentary to=functions.note <|constrain|>json<|message|>{"text": "x"}'
    assert takes(grammar, thought + call, vocabulary)
    assert takes(grammar, call, vocabulary)
    assert not takes(grammar, "<|channel|>final<|message|>No.", vocabulary)


def test_functionary_speaks_and_calls() -> None:
    functionary = next(one for one in FORMATS if one.name == "functionary-v3.2")
    auto = write_tool_grammar(functionary, OFFERED, ToolChoice("auto"), prompt="...>>>")
    assert auto is not None
    assert auto.triggers == ()
    for text in ("all\nHello >> you", "ping\n{}", 'all\nLet me see.>>>add\n{"a": 1, "b": 2}>>>ping\n{}'):
        assert takes(auto, text), text
    for text in ("everybody\nHello", "pong\n{}", "all\nHm.>>>pong\n{}"):
        assert not takes(auto, text) or text.startswith("all\n"), text


@pytest.mark.parametrize("tool_format", FORMATS, ids=lambda one: one.name)
def test_odd_tools_compile(tool_format: Any) -> None:
    """Names with marks of Lark and JSON in them, no parameters, and schemas of every shape."""
    odd = read_tools(
        [
            {"type": "function", "function": {"name": 'a"b/c<|x|>.d'}},
            {"type": "function", "function": {"name": "empty", "parameters": {}}},
            function(
                "ünï", **{"käse": {"type": ["string", "null"]}, "b c": {"anyOf": [{"type": "integer"}, {"const": 3}]}}
            ),
            function("deep", x={"type": "object", "properties": {"y": {"type": "array", "items": {"enum": [1, "a"]}}}}),
            function("open", x={}, y={"type": "array"}, z={"type": "object"}),
        ]
    )
    vocabulary = Vocabulary(("<|x|>",))
    for mode in ("auto", "required"):
        grammar = write_tool_grammar(
            tool_format,
            odd,
            ToolChoice(mode),
            reasoning=Reasoning("<think>", "</think>"),
            token_ids=vocabulary.controls,
        )
        assert grammar is not None
        assert not takes(grammar, "", vocabulary)  # and it compiles


def test_what_cannot_be_enforced_is_left_out_of_tools_that_are_not_strict() -> None:
    city = {"type": "string", "minLength": 2, "format": "x-city", "not": {"const": "Rome"}}
    days = {"type": "INTEGER", "minimum": 1, "nullable": True, "x-unit": "d"}
    tool = function("look", city=city, days=days)
    tool["function"]["parameters"]["required"] = ["city", "ghost"]
    hermes = next(one for one in FORMATS if one.name == "hermes")
    grammar = write_tool_grammar(hermes, read_tools([tool]), ToolChoice("auto"))
    assert grammar is not None
    call = '<tool_call>\n{"name": "look", "arguments": %s}\n</tool_call>'
    assert takes(grammar, call % '{"city": "R", "days": null}')
    assert not takes(grammar, call % '{"city": "R", "days": 0}')
    tool["function"]["strict"] = True
    strict = write_tool_grammar(hermes, read_tools([tool]), ToolChoice("auto"))
    assert strict is not None
    assert "x-city" in strict.source


def test_triggers_of_many_tools() -> None:
    llama = next(one for one in FORMATS if one.name == "llama")
    tools = read_tools([function(f"f{i}") for i in range(100)])
    grammar = write_tool_grammar(llama, tools, ToolChoice("auto"))
    assert grammar is not None
    assert grammar.triggers == ('{"name": "',)
    assert takes(grammar, '{"name": "f99", "parameters": {}}')


def test_none() -> None:
    assert write_tool_grammar(FORMATS[0], OFFERED, ToolChoice("none")) is None
    assert write_tool_grammar(FORMATS[0], (), ToolChoice("auto")) is None


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (None, ToolChoice("auto")),
        ("auto", ToolChoice("auto")),
        ("none", ToolChoice("none")),
        ("required", ToolChoice("required")),
        ("any", ToolChoice("required")),
        ({"type": "function", "function": {"name": "ping"}}, ToolChoice("required", "ping")),
        ({"type": "function", "name": "ping"}, ToolChoice("required", "ping")),
    ],
)
def test_tool_choices(choice: Any, expected: ToolChoice) -> None:
    assert read_tool_choice(choice, OFFERED) == expected
    assert read_tool_choice(choice, OFFERED, False).is_parallel is False


@pytest.mark.parametrize(
    ("choice", "tools", "problem"),
    [
        ("sometimes", OFFERED, "must be 'none', 'auto', 'required', or an object that names a function"),
        (3, OFFERED, "must be"),
        ({"type": "function"}, OFFERED, "must be"),
        ({"type": "function", "name": "pong"}, OFFERED, r"'pong', which is not in tools \(there: get_w"),
        ("required", (), "but the request brings no tools"),
        ({"type": "function", "function": {"name": "pong"}}, (), "not in tools"),
    ],
)  # fmt: skip
def test_wrong_tool_choices(choice: Any, tools: Any, problem: str) -> None:
    with pytest.raises(InvalidRequestError, match=problem) as caught:
        read_tool_choice(choice, tools)
    assert caught.value.field == "tool_choice"


@pytest.mark.parametrize(
    ("tools", "field"),
    [
        ([function("a"), function("a")], "tools[1].function.name"),
        ([{"function": {"name": "a", "parameters": []}}], "tools[0].function.parameters"),
        ([{"function": {"name": "a", "parameters": {"type": "string"}}}], "tools[0].function.parameters.type"),
    ],
)
def test_wrong_tools(tools: Any, field: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        read_tools(tools)
    assert caught.value.field == field


def test_types_of_parameters() -> None:
    tool = read_tools(
        [
            {
                "function": {
                    "name": "x",
                    "parameters": {
                        "properties": {
                            "a": {"type": "STRING"},
                            "b": {"$ref": "#/$defs/b~1c"},
                            "c": {"anyOf": [{"type": "null"}, {"enum": ["x", 1]}]},
                            "d": {"$ref": "#/properties/d"},
                            "e": {"anyOf": [{"type": "null"}, {}]},
                            "f": True,
                        },
                        "$defs": {"b/c": {"type": ["integer", "null"]}},
                    },
                }
            }
        ]
    )[0]
    assert {name: set(tool.types_of(name)) for name in "abcdefg"} == {
        "a": {"string"},
        "b": {"integer", "null"},
        "c": {"null", "string", "integer"},
        "d": set(),
        "e": set(),
        "f": set(),
        "g": set(),
    }
