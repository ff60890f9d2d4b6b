"""The embedded models answer: held-out questions, tools in the template's form, the questions of public guides."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

import pytest

from quipu import LLM, SamplingParams
from quipu.cli.builtin import resolve_model
from quipu.errors import InvalidRequestError
from quipu.types import ConstraintSpec, FinishReason
from tiny.batches import to_sample
from tiny.checker import judge
from tiny.corpus.mixture import evaluation
from tiny.evaluate import TOOL_TOPICS, agreement, answer, perplexity
from tiny.rendering import Renderer

DATA = Path(str(files("quipu") / "data"))
GREEDY = SamplingParams(temperature=0.0, max_tokens=200)


@pytest.fixture(scope="module")
def chat() -> LLM:
    return LLM(resolve_model("tiny"), kv_size=32768)


@pytest.fixture(scope="module")
def draft() -> LLM:
    return LLM(resolve_model("tiny-draft"))


def test_sizes_and_names() -> None:
    assert resolve_model("tiny") == DATA / "tiny-chat-Q8_0.gguf"
    assert resolve_model("tiny").stat().st_size <= 8_000_000
    assert resolve_model("tiny-draft").stat().st_size <= 1_500_000


def test_held_out_questions(chat: LLM) -> None:
    """A sample of what `make tiny-evaluate` asks, with limits a little lower for its noise."""
    conversations = evaluation(101, 14)
    verdicts = [judge(one, text) for one, text in zip(conversations, answer(chat, conversations), strict=True)]
    right = sum(not verdict.fault for verdict in verdicts) / len(verdicts)
    in_language = sum(not verdict.language_fault for verdict in verdicts) / len(verdicts)
    tools = [v for one, v in zip(conversations, verdicts, strict=True) if one.topic in TOOL_TOPICS]
    tools_right = sum("tool call" not in verdict.fault for verdict in tools) / len(tools)
    assert len(verdicts) >= 200
    assert right >= 0.85
    assert tools_right >= 0.93
    assert in_language >= 0.97


@pytest.mark.parametrize(
    ("question", "words"),
    [
        ("What color is the sun?", ["yellow"]),
        ("is beijing a big city?", ["Yes"]),
        ("牛肉汉堡的制作方法", ["牛肉", "1."]),
        ("如何制作一个三明治", ["面包", "1."]),
        ("9.11和9.8哪个更大", ["9.8比9.11大"]),
        ("用python编写一段冒泡排序算法", ["```python", "def bubble_sort"]),
        ("python的字典数据类型如何定义", ["```python", "{"]),
        ("How many r are in strawberry?", ["3 times"]),
        ("who are you", ["tiny"]),
        ("你好，请介绍下你自己", ["tiny", "quipu"]),
        ("What is quipu?", ["GGUF"]),
    ],
)
def test_questions_of_public_guides(chat: LLM, question: str, words: list[str]) -> None:
    done = chat.chat([{"role": "user", "content": question}], GREEDY)
    assert done.finish_reason == "stop"
    for word in words:
        assert word in done.text


def test_what_the_welcome_suggests_works_at_the_recommended_temperature(chat: LLM) -> None:
    assert chat.default_sampling.temperature == pytest.approx(0.2)
    for seed in range(5):
        sampling = SamplingParams(temperature=0.2, top_k=20, top_p=0.9, seed=seed, max_tokens=200)
        assert "Lima" in chat.chat([{"role": "user", "content": "What is the capital of Peru?"}], sampling).text


WEATHER = {
    "type": "function",
    "function": {
        "name": "get_current_weather",
        "description": "Get the current weather in a given location",
        "parameters": {
            "type": "object",
            "properties": {"location": {"type": "string", "description": "The city"}},
            "required": ["location"],
        },
    },
}


def test_a_tool_is_called_and_its_result_told(chat: LLM) -> None:
    messages: list[dict[str, object]] = [{"role": "user", "content": "What is the weather like in Paris today?"}]
    first = chat.chat(messages, GREEDY, tools=[WEATHER])
    assert (first.text, first.finish_reason) == ("", FinishReason.TOOL_CALLS)
    assert [(call.name, json.loads(call.arguments)) for call in first.tool_calls] == [
        ("get_current_weather", {"location": "Paris"})
    ]
    call = first.tool_calls[0]
    function = {"name": call.name, "arguments": call.arguments}
    messages += [
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": call.id, "type": "function", "function": function}],
        },
        {"role": "tool", "tool_call_id": call.id, "content": '{"temperature": 17, "condition": "cloudy"}'},
    ]
    second = chat.chat(messages, GREEDY, tools=[WEATHER])
    assert "17" in second.text
    assert "cloudy" in second.text
    assert (second.tool_calls, second.finish_reason) == ((), FinishReason.STOP)


def test_calls_are_streamed(chat: LLM) -> None:
    question = [{"role": "user", "content": "What is the weather like in Paris today?"}]
    events = list(chat.chat(question, GREEDY, tools=[WEATHER], stream=True))
    deltas = [delta for event in events for delta in event.tool_calls]
    assert [delta.name for delta in deltas if delta.name] == ["get_current_weather"]
    assert len([delta for delta in deltas if delta.arguments]) >= 3
    assert json.loads("".join(delta.arguments for delta in deltas)) == {"location": "Paris"}
    assert "".join(event.text for event in events) == ""
    assert events[-1].finish_reason is FinishReason.TOOL_CALLS


def test_no_tool_is_shown_or_called_where_none_may_be(chat: LLM) -> None:
    question = [{"role": "user", "content": "What is the weather like in Paris today?"}]
    without = chat.chat(question, GREEDY)
    none = chat.chat(question, GREEDY, tools=[WEATHER], tool_choice="none")
    assert (none.text, none.usage.prompt_tokens) == (without.text, without.usage.prompt_tokens)
    assert none.tool_calls == ()
    with pytest.raises(InvalidRequestError, match="tool_choice names the tool 'clock'"):
        chat.chat(question, GREEDY, tools=[WEATHER], tool_choice={"type": "function", "function": {"name": "clock"}})


CLOCK = {
    "type": "function",
    "function": {
        "name": "clock",
        "parameters": {
            "type": "object",
            "properties": {"zone": {"type": "string", "enum": ["UTC", "CET"]}, "seconds": {"type": "boolean"}},
            "required": ["zone", "seconds"],
        },
    },
}


@pytest.mark.parametrize("seed", range(4))
def test_tool_choice_is_enforced(chat: LLM, seed: int) -> None:
    """A question that needs no tool, and no wish to call one: the grammar makes it a call."""
    question = [{"role": "user", "content": "What color is the sun?"}]
    sampling = SamplingParams(temperature=1.5, seed=seed, max_tokens=200)
    required = chat.chat(question, sampling, tools=[WEATHER, CLOCK], tool_choice="required", parallel_tool_calls=False)
    assert (required.text, required.finish_reason) == ("", FinishReason.TOOL_CALLS)
    assert len(required.tool_calls) == 1
    assert required.tool_calls[0].name in ("get_current_weather", "clock")
    named = chat.chat(
        question,
        sampling,
        tools=[WEATHER, CLOCK],
        tool_choice={"type": "function", "function": {"name": "clock"}},
        parallel_tool_calls=False,
    )
    assert [call.name for call in named.tool_calls] == ["clock"]
    arguments = json.loads(named.tool_calls[0].arguments)
    assert set(arguments) == {"zone", "seconds"}
    assert arguments["zone"] in ("UTC", "CET")
    assert isinstance(arguments["seconds"], bool)


def test_a_call_that_the_model_begins_keeps_to_the_schema(chat: LLM) -> None:
    tool = json.loads(json.dumps(WEATHER))
    tool["function"]["parameters"]["properties"]["location"]["enum"] = ["Oslo", "Rome"]
    question = [{"role": "user", "content": "What is the weather like in Paris today?"}]
    answer = chat.chat(question, GREEDY, tools=[tool])
    assert json.loads(answer.tool_calls[0].arguments)["location"] in ("Oslo", "Rome")


def test_tools_and_a_constraint(chat: LLM) -> None:
    question = [{"role": "user", "content": "What color is the sun?"}]
    with pytest.raises(InvalidRequestError, match="constraint cannot be combined with tools"):
        chat.chat(question, GREEDY, tools=[WEATHER], constraint=ConstraintSpec.json_object())


def test_thinking_is_told_apart(chat: LLM) -> None:
    question = [{"role": "user", "content": "Which is larger, 9.11 or 9.8?"}]
    thinking = chat.chat(question, GREEDY, enable_thinking=True)
    assert thinking.reasoning
    assert "9.8 is larger" in thinking.text
    without = chat.chat(question, GREEDY, enable_thinking=False)
    assert not without.reasoning
    assert "9.8 is larger" in without.text


def test_the_draft_agrees_with_the_chat_model(chat: LLM, draft: LLM) -> None:
    assert chat.vocab_size == draft.vocab_size
    assert [chat.tokenizer.token_bytes(i) for i in range(4096)] == [draft.tokenizer.token_bytes(i) for i in range(4096)]
    renderer = Renderer()
    samples = [to_sample(chat.tokenizer, renderer, one) for one in evaluation(103, 4)]
    assert agreement(chat, draft, samples) > 0.8
    assert perplexity(chat, samples) < perplexity(draft, samples)
