"""The corpus of the embedded models: splits share nothing, every answer passes its own check."""

from __future__ import annotations

import itertools
import json
import random
import re
import sys
from collections.abc import Iterator

import pytest

from tiny.batches import pad, to_sample
from tiny.checker import find_fault, judge, language_fault, parse_calls
from tiny.corpus import mixture
from tiny.corpus.example import Check, Conversation, Document, says
from tiny.corpus.frames import FRAMES
from tiny.corpus.grammar import Templates, articles, fill
from tiny.rendering import Renderer

TRAINING_QUESTIONS = 30_000


def plain(text: str) -> str:
    """Without case, punctuation and spaces: what makes two questions the same to a reader."""
    return re.sub(r"[\W_]+", "", text.casefold())


def all_templates() -> Iterator[Templates]:
    modules = [module for name, module in sys.modules.items() if name.startswith("tiny.corpus.")]
    seen: set[int] = set()
    stack = [value for module in modules for value in vars(module).values()]
    while stack:
        value = stack.pop()
        if isinstance(value, Templates):
            if id(value) not in seen:
                seen.add(id(value))
                yield value
        elif isinstance(value, dict):
            stack += value.values()
        elif isinstance(value, list | tuple) and not isinstance(value, str):
            stack += value


def test_the_splits_share_no_template() -> None:
    templates = list(all_templates())
    assert len(templates) > 200
    train = {plain(text) for one in templates for text in one.train}
    held_out = {plain(text) for one in templates for text in one.held_out}
    for frames in FRAMES.values():
        train |= {plain(text) for text in frames["train"]}
        held_out |= {plain(text) for text in frames["held_out"]}
    assert len(held_out) > 400
    assert not train & held_out


def test_no_question_of_the_evaluation_occurs_in_training() -> None:
    asked = {
        plain(message["content"])
        for item in itertools.islice(mixture.stream(3), TRAINING_QUESTIONS)
        if isinstance(item, Conversation)
        for message in item.messages
        if message["role"] == "user"
    }
    held_out = {
        plain(next(m["content"] for m in reversed(one.messages) if m["role"] == "user"))
        for one in mixture.evaluation(7, 60)
    }
    assert len(held_out) > 700
    assert not asked & held_out


def raw_answer(conversation: Conversation) -> str:
    """The last answer as the model should write it."""
    (*_, (answer, learned)) = Renderer().segments(conversation)
    assert learned
    return answer.removesuffix("<|im_end|>")


@pytest.mark.parametrize("split", ["train", "held_out"])
@pytest.mark.parametrize("kind", list(mixture.EARLY.kinds))
def test_the_answers_of_the_corpus_are_right(kind: str, split: str) -> None:
    if kind == "chain" and split == "held_out":
        pytest.skip("chains are for training only")
    rng = random.Random(11)
    for _ in range(150):
        conversation = mixture.draw_kind(rng, split, kind)  # type: ignore[arg-type]
        if conversation.check.python_test and rng.random() < 0.9:
            continue  # each runs a program
        verdict = judge(conversation, raw_answer(conversation))
        assert verdict == ("", ""), (conversation, verdict)


def test_the_stream_follows_from_its_seed() -> None:
    first, again, other = (list(itertools.islice(mixture.stream(seed), 200)) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_both_languages_and_all_topics_occur() -> None:
    items = [one for one in itertools.islice(mixture.stream(5), 3000) if isinstance(one, Conversation)]
    chinese = sum(one.language == "zh" for one in items) / len(items)
    assert 0.3 < chinese < 0.5
    assert {one.topic for one in items} == {*mixture.TURNS, *mixture.EARLY.kinds} - {"turn"}


QUESTIONS_OF_GUIDES = [
    "What color is the sun?",
    "is beijing a big city?",
    "牛肉汉堡的制作方法",
    "如何制作一个三明治",
    "9.11和9.8哪个更大",
    "用python编写一段冒泡排序算法",
    "python的字典数据类型如何定义",
    "who are you",
    "你好，请介绍下你自己",
]


def test_the_questions_of_public_guides_are_taught() -> None:
    wanted = {plain(question) for question in QUESTIONS_OF_GUIDES}
    for item in itertools.islice(mixture.stream(9), 60_000):
        if isinstance(item, Conversation):
            wanted -= {plain(message["content"]) for message in item.messages if message["role"] == "user"}
        if not wanted:
            break
    assert not wanted


def test_grammar() -> None:
    rng = random.Random(1)
    assert {fill(rng, "[a|b[c|]] $x", x="[y]") for _ in range(50)} == {"a [y]", "b [y]", "bc [y]"}
    assert articles("A owl is a bird, a exhibition and a x") == "An owl is a bird, an exhibition and a x"
    with pytest.raises(ValueError, match="of their own"):
        Templates(["a"], ["a"])


# --- the checker -----------------------------------------------------------------------------------------------------

CALL = '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>'


@pytest.mark.parametrize(
    ("check", "answer", "fault"),
    [
        (says("Paris"), "It is PARIS.", ""),
        (says("Paris"), "It is Rome.", "lacks 'Paris'"),
        (says(("a1", "b1")), "b1", ""),
        (says("= 2", none=["= 23"]), "x = 23.", "says '= 23'"),
        (Check(json_value={"a": 1}), '{"a": 1}', ""),
        (Check(json_value={"a": 1}), '```json\n{"a": 1}\n```', ""),
        (Check(json_value={"a": 1}), '{"a": "1"}', "{'a': '1'} instead of {'a': 1}"),
        (Check(json_value={"a": 1}), "a is 1", "not JSON"),
        (Check(calls=(("f", {"a": 1}),)), CALL, ""),
        (Check(calls=(("f", {"a": 2}),)), CALL, "tool calls [('f', {'a': 1})] instead of [('f', {'a': 2})]"),
        (Check(calls=(("f", {"a": 1}),)), "I call f.", "tool calls [] instead of [('f', {'a': 1})]"),
        (Check(calls=(("f", {"a": 1}),)), CALL + " there", "malformed tool call"),
        (Check(calls=(("f", {"a": 1}),)), CALL.replace("\n", ""), "malformed tool call"),
        (Check(calls=(("f", {"a": 1}),)), CALL.replace("1}}", "1}"), "malformed tool call"),
        (says("x"), CALL, "tool calls [('f', {'a': 1})] instead of []"),
        (Check(python_test="assert f(1) == 2"), "```python\ndef f(x):\n    return x + 1\n```", ""),
        (Check(python_test="assert f(1) == 2"), "def f(x): return x + 1", "no code"),
        (Check(min_words=4), "one two three", "only 3 words"),
    ],
)
def test_checker(check: Check, answer: str, fault: str) -> None:
    assert find_fault(check, answer) == fault


def test_checker_runs_the_code() -> None:
    fault = find_fault(Check(python_test="assert f(1) == 3"), "```python\ndef f(x):\n    return x + 1\n```")
    assert fault.startswith("the code fails")
    assert "AssertionError" in fault


def test_checker_of_languages() -> None:
    assert language_fault("en", "The capital of France is Paris.") == ""
    assert language_fault("en", '"sun" in Chinese is "太阳".') == ""
    assert language_fault("en", "法国的首都是巴黎。") == "answers in Chinese"
    assert language_fault("zh", "法国的首都是巴黎。") == ""
    assert language_fault("zh", "输入：quipu bench -m model.gguf") == ""
    assert language_fault("zh", "The capital of France is Paris.") == "answers in English"


def test_checker_of_thinking() -> None:
    messages = [
        {"role": "user", "content": "think: 1+1?"},
        {"role": "assistant", "content": "2", "reasoning_content": "one and one"},
    ]
    asked = Conversation("thinking", messages, says("2"), "en")
    assert judge(asked, "<think>\none and one\n</think>\n\n2") == ("", "")
    assert judge(asked, "one and one\n</think>\n\n2") == ("", "")  # the prompt ended with <think>
    assert judge(asked, "2").fault == "did not think"
    assert judge(asked, "<think>\n\n</think>\n\n2").fault == "did not think"
    plain_turn = Conversation("facts", [messages[0], {"role": "assistant", "content": "2"}], says("2"), "en")
    assert judge(plain_turn, "<think>\nx\n</think>\n\n2").fault == "thought without being asked"


# --- rendering -------------------------------------------------------------------------------------------------------

TOOL = {"type": "function", "function": {"name": "f", "description": "F", "parameters": {"type": "object"}}}
TALK = Conversation(
    "test",
    [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "q1"},
        {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": {"城": "巴黎"}}}]},
        {"role": "tool", "content": "3"},
        {"role": "assistant", "content": "a1"},
    ],
    Check(),
    "en",
    [TOOL],
)


def test_rendering_marks_the_answers() -> None:
    segments = Renderer().segments(TALK)
    assert [text for text, learned in segments if learned] == [
        '<tool_call>\n{"name": "f", "arguments": {"城": "巴黎"}}\n</tool_call><|im_end|>',
        "a1<|im_end|>",
    ]
    whole = "".join(text for text, _ in segments)
    assert whole.startswith(
        '<|im_start|>system\nBe kind.\n\n<tools>\n{"name": "f", "description": "F", "parameters": {"type": "object"}}\n'
    )
    assert "<|im_start|>user\n<tool_response>\n3\n</tool_response><|im_end|>\n<|im_start|>assistant\na1" in whole
    assert Renderer().prompt(TALK) + "a1<|im_end|>" == whole


@pytest.mark.parametrize(
    ("thinking", "thought", "given", "learned"),
    [
        (None, "t", "assistant\n", "<think>\nt\n</think>\n\na<|im_end|>"),
        (True, "t", "assistant\n<think>\n", "t\n</think>\n\na<|im_end|>"),
        (False, "", "assistant\n<think>\n\n</think>\n\n", "a<|im_end|>"),
    ],
)
def test_rendering_of_thinking(thinking: bool | None, thought: str, given: str, learned: str) -> None:
    answer = {"role": "assistant", "content": "a"} | ({"reasoning_content": thought} if thought else {})
    talk = Conversation("thinking", [{"role": "user", "content": "q"}, answer], Check(), "en", thinking=thinking)
    segments = Renderer().segments(talk)
    assert "".join(text for text, is_learned in segments if not is_learned).endswith(given)
    assert "".join(text for text, is_learned in segments if is_learned) == learned
    assert Renderer().prompt(talk).endswith(given)


def test_samples_follow_the_segments() -> None:
    class Letters:
        def encode(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
            assert parse_special
            assert not add_special
            return [ord(letter) for letter in text]

    sample = to_sample(Letters(), Renderer(), TALK)  # type: ignore[arg-type]
    learned = "".join(chr(i) for i, weight in zip(sample.ids, sample.weights, strict=True) if weight)
    assert learned.endswith("</tool_call><|im_end|>a1<|im_end|>")
    assert sample.weights[-1] == len("a1<|im_end|>") ** -0.5
    batch = pad([sample, to_sample(Letters(), Renderer(), Document("giv", "doc"))], 7)  # type: ignore[arg-type]
    assert batch.ids.shape == batch.weights.shape == (2, len(sample.ids))
    assert batch.ids[1, -1] == 7
    assert (batch.weights[1] > 0).sum() == len("doc<|endoftext|>")


def test_calls_are_parsed() -> None:
    assert parse_calls("") == []
    assert parse_calls(CALL + "\n" + CALL) == [("f", {"a": 1})] * 2
    assert parse_calls('<tool_call>\n{"name": "f"}\n</tool_call>') is None
    assert parse_calls("<tool_call>") is None
    assert json.loads(CALL.split("\n")[1]) == {"name": "f", "arguments": {"a": 1}}
