"""Every template that supports tools: offer, call, result, next turn, streamed and not, against a model that recites.

What the model says is taken from the template's own rendering of an earlier call. `FORMAT_OF` says which format the
authors document for each.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from chat_samples import TEMPLATES, read_template, template_paths, user
from reciting_model import recite
from tool_templates import FIRST, FORMAT_OF, RESULT, SECOND, TOOLS, call, calls_text, paths, template

from quipu.chat import Answer, ChatTemplate, read_tool_choice, read_tools
from quipu.chat.tools import CallIds
from quipu.types import ChatEvent, Completion, FinishReason, ToolCall

# Templates that show tools, but not the calls of earlier answers: what their cards say a call is.
SAYS_ONLY = {
    "LFM2-8B-A1B": ("pythonic", "<|tool_call_start|>[{call}]<|tool_call_end|>"),
    "LFM2.5-Instruct": ("pythonic", "<|tool_call_start|>[{call}]<|tool_call_end|>"),
    "ibm-granite-granite-3.3-2B-Instruct": ("granite", "<|tool_call|>[{json}]"),
}


def answer_to(chosen: ChatTemplate, prompt: str, text: str, num_chars: int) -> list[ChatEvent]:
    """The chat events of a model that says `text`."""
    parser = chosen.answer_parser(prompt, tools=read_tools(TOOLS))
    answer = Answer(parser, ())
    if prompt.rstrip().endswith("<think>"):
        text = f"</think>\n{text}"
    return [answer.translate(event) for event in recite(text, num_chars=num_chars)]


def values(calls: tuple[ToolCall, ...]) -> list[tuple[str, Any]]:
    return [(one.name, json.loads(one.arguments)) for one in calls]


@pytest.mark.parametrize("path", paths(), ids=lambda path: path.stem)
def test_round_trip(path: Path) -> None:
    chosen = template(path)
    name, is_parallel = FORMAT_OF[path.stem]
    assert chosen.tool_format.name == name
    assert chosen.capabilities.supports_parallel_calls == is_parallel
    expected = [FIRST, SECOND] if is_parallel else [FIRST]
    if path.stem == "ByteDance-Seed-OSS":  # its template prints objects as Python does
        assert "{'lang': 'de'" in calls_text(chosen, expected)[1]
    prompt, text = calls_text(chosen, expected)
    if chosen.supports_tools:
        assert "get_weather" in prompt
        assert "web_search" in prompt
    # the answer, streamed by the letter and at once
    speaks = name not in ("llama", "functionary-v3.2", "harmony")  # which have no room for text before a call
    events = answer_to(chosen, prompt, "Well.\n" * speaks + text, 1)
    completion = Completion.of(events)
    assert completion.finish_reason is FinishReason.TOOL_CALLS
    assert values(completion.tool_calls) == expected
    assert completion.text == "Well." * speaks
    pieces = [delta.arguments for event in events for delta in event.tool_calls if delta.arguments]
    assert len(pieces) > 10 * len(expected)  # they came while they were written
    assert values(Completion.of(answer_to(chosen, prompt, text, 4096)).tool_calls) == expected
    # the next turn: calls as the caller got them, as JSON text, and their results
    messages = [user("QUESTION"), assistant_of(completion)]
    messages += [{"role": "tool", "tool_call_id": one.id, "content": RESULT} for one in completion.tool_calls]
    rendered = chosen.render(messages, tools=TOOLS)
    assert rendered.text.count(RESULT) == len(expected)
    assert without_ids(text.strip()) in without_ids(rendered.text)
    assert not [warning for warning in rendered.warnings if "tools to" not in warning]
    after = Completion.of(answer_to(chosen, rendered.text, "all\nFine." if name == "functionary-v3.2" else "Fine.", 1))
    assert (after.text, after.tool_calls, after.finish_reason) == ("Fine.", (), FinishReason.STOP)


def without_ids(text: str) -> str:
    """Ids are the engine's where the model writes them too late, and some templates show them in the history only."""
    return re.sub(r',? "id": "\w+"', "", text)


def assistant_of(completion: Completion) -> dict[str, Any]:
    """The message that a client of OpenAI sends back."""
    calls = [
        {"id": one.id, "type": "function", "function": {"name": one.name, "arguments": one.arguments}}
        for one in completion.tool_calls
    ]
    return {"role": "assistant", "content": None, "tool_calls": calls}


@pytest.mark.parametrize("path", [path for path in template_paths() if path.stem in SAYS_ONLY], ids=lambda p: p.stem)
def test_templates_that_show_no_calls(path: Path) -> None:
    chosen = template(path)
    name, form = SAYS_ONLY[path.stem]
    assert chosen.tool_format.name == name
    text = form.format(
        call='get_weather(city="Rome", days=2)',
        json='{"name": "get_weather", "arguments": {"city": "Rome", "days": 2}}',
    )
    completion = Completion.of(answer_to(chosen, chosen.render([user("Q")], tools=TOOLS).text, text, 1))
    assert values(completion.tool_calls) == [("get_weather", {"city": "Rome", "days": 2})]


def test_all_templates_are_known() -> None:
    """A new template must be put into a table here, or support no tools."""
    for path in template_paths():
        able = template(path).capabilities
        assert (path.stem in FORMAT_OF) == able.supports_tool_calls
        assert (path.stem in FORMAT_OF or path.stem in SAYS_ONLY) == (able.supports_tools or able.supports_tool_calls)


def test_reasoning_comes_before_calls() -> None:
    chosen = template(TEMPLATES / "Qwen-Qwen3-0.6B.jinja")
    text = (
        '<think>\nI call\n</think>\n\n<tool_call>\n{"name": "get_weather", "arguments": {"city": "Rome"}}\n</tool_call>'
    )
    completion = Completion.of(answer_to(chosen, chosen.render([user("Q")], tools=TOOLS).text, text, 3))
    assert (completion.reasoning, completion.text) == ("I call", "")
    assert values(completion.tool_calls) == [("get_weather", {"city": "Rome"})]


def test_a_call_within_reasoning_is_none() -> None:
    chosen = template(TEMPLATES / "Qwen-Qwen3-0.6B.jinja")
    text = '<think>\n<tool_call>\n{"name": "get_weather", "arguments": {}}\n</tool_call>\n</think>\n\nNo.'
    completion = Completion.of(answer_to(chosen, "", text, 1))
    assert (completion.text, completion.tool_calls) == ("No.", ())
    assert completion.finish_reason is FinishReason.STOP


def test_tokens_for_calls_end_reasoning() -> None:
    """Kimi and DeepSeek now and then call without closing their reasoning. Their marks mean nothing else."""
    chosen = template(TEMPLATES / "deepseek-ai-DeepSeek-R1-Distill-Llama-8B.jinja")
    text = (
        "<think>\nI call\n<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n```json\n"
        '{"city": "Rome"}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>'
    )
    for num_chars in (1, 4096):
        completion = Completion.of(answer_to(chosen, "", text, num_chars))
        assert completion.reasoning == "I call"
        assert values(completion.tool_calls) == [("get_weather", {"city": "Rome"})]


def test_gpt_oss_thinks_talks_and_calls() -> None:
    chosen = template(TEMPLATES / "openai-gpt-oss-120b.jinja")
    text = (
        "<|channel|>analysis<|message|>I need it.<|end|><|start|>assistant<|channel|>commentary<|message|>Wait.<|end|>"
        "<|start|>assistant<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>"
        '{"city":"Rome"}<|call|>'
    )
    for num_chars in (1, 7, 4096):
        completion = Completion.of(answer_to(chosen, "...<|start|>assistant", text, num_chars))
        assert (completion.reasoning, completion.text) == ("I need it.", "Wait.")
        assert values(completion.tool_calls) == [("get_weather", {"city": "Rome"})]


def test_an_answer_that_is_cut_keeps_its_finish_reason() -> None:
    chosen = template(TEMPLATES / "Qwen-Qwen3-0.6B.jinja")
    text = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Rome"}}\n</tool_call>\nAnd more text'
    answer = Answer(chosen.answer_parser("", tools=read_tools(TOOLS)), ())
    completion = Completion.of([answer.translate(event) for event in recite(text, max_tokens=len(text) - 3)])
    assert completion.finish_reason is FinishReason.LENGTH
    assert completion.text == "And more t"
    assert len(completion.tool_calls) == 1


def test_without_tools_nothing_is_a_call() -> None:
    chosen = template(TEMPLATES / "Qwen-Qwen3-0.6B.jinja")
    text = '<tool_call>\n{"name": "get_weather", "arguments": {}}\n</tool_call>'
    for parser in (
        chosen.answer_parser(""),
        chosen.answer_parser("", tools=read_tools(TOOLS), choice=read_tool_choice("none", read_tools(TOOLS))),
    ):
        assert (parser.append(text).content + parser.flush().content, parser.calls_tools) == (text, False)
        assert "<tool_call>" not in parser.markers


# --- history ---


def history(*ids: str | None) -> list[dict[str, Any]]:
    """An answer with two calls and their results, with these ids."""
    calls = [call("get_weather", {"city": f"City{i}"}, "") for i in range(2)]
    results: list[dict[str, Any]] = [{"role": "tool", "content": f"RESULT{i}"} for i in range(2)]
    for one, result, call_id in zip(calls, results, ids, strict=True):
        del one["id"]
        if call_id is not None:
            one["id"] = result["tool_call_id"] = call_id
    return [user("Q"), {"role": "assistant", "content": "Two.", "tool_calls": calls}, *results]


@pytest.mark.parametrize("ids", [("call_abcdef", "call_ghijkl"), (None, None), ("a1B2c3D4e", "f5G6h7I8j")])
def test_mistral_gets_ids_of_nine_letters_and_digits(ids: tuple[str | None, ...]) -> None:
    chosen = template(TEMPLATES / "mistralai-Mistral-Nemo-Instruct-2407.jinja")
    assert chosen.capabilities.call_ids is CallIds.NINE
    text = chosen.render(history(*ids), tools=TOOLS).text
    shown = [part.partition('"')[0] for part in text.split('"id": "')[1:]]
    results = [part.partition('"')[0] for part in text.split('"call_id": "')[1:]]
    assert shown == results
    assert len(set(shown)) == 2
    assert all(len(one) == 9 and one.isalnum() for one in shown)
    if ids[0] == "a1B2c3D4e":
        assert tuple(shown) == ids


def test_results_are_matched_by_id() -> None:
    """Results in another order than the calls, for a template that shows one call at a time."""
    chosen = template(TEMPLATES / "openai-gpt-oss-120b.jinja")
    messages = history("one", "two")
    messages[2:] = messages[:1:-1]
    text = chosen.render(messages, tools=TOOLS).text
    places = [text.index(word) for word in ("City0", "RESULT0", "City1", "RESULT1")]
    assert places == sorted(places)
    assert text.count("Two.") == 1


def test_kimi_shows_results_under_the_number_of_the_call() -> None:
    path = next((path for path in template_paths() if path.stem == "moonshotai-Kimi-K2"), None)
    if path is None:
        pytest.skip("the larger set of templates is not there")
    text = template(path).render(history("x", "y"), tools=TOOLS).text
    assert "## Return of functions.get_weather:0" in text
    assert "## Return of functions.get_weather:1" in text


def test_the_name_of_the_tool_is_put_beside_its_result() -> None:
    text = template(TEMPLATES / "Kimi-K2-Instruct.jinja").render(history("x", "y"), tools=TOOLS).text
    assert text.count("<|im_system|>get_weather<|im_middle|>") == 2


def test_new_ids_take_the_form_of_the_template() -> None:
    nine, plain, numbered = (kind.generator() for kind in (CallIds.NINE, CallIds.ANY, CallIds.NUMBERED))
    assert len(nine("x")) == 9
    assert nine("x").isalnum()
    assert plain("x").startswith("call_")
    assert plain("x") != plain("x")
    assert [numbered("x"), numbered("y")] == ["functions.x:0", "functions.y:1"]


def test_the_tool_variant_of_a_file_counts() -> None:
    variants = {
        "tokenizer.chat_template": "{% for m in messages %}{{ m.content }}{% endfor %}",
        "tokenizer.chat_template.tool_use": read_template("NousResearch-Hermes-2-Pro-Llama-3-8B-tool_use"),
    }
    chosen = ChatTemplate.from_metadata(variants)
    assert (chosen.tool_format.name, chosen.supports_tools) == ("hermes", True)
