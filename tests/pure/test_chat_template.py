"""Templates of files, built-in ones, and the repairs of what they cannot take."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest
from chat_samples import TOOLS, assistant, call, read_template, result, system, tool_history, user

from quipu.chat import ChatTemplate, RenderedPrompt, render_template
from quipu.errors import InvalidRequestError, TemplateError, UsageError

SIMPLE = (
    "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
NOW = datetime(2025, 3, 9, 14, 5, 6)


def template(stem: str) -> ChatTemplate:
    return ChatTemplate(read_template(stem), bos_token="<s>", eos_token="</s>")


# --- where a template comes from ---


def test_the_template_of_the_file() -> None:
    chosen = ChatTemplate.from_metadata({"tokenizer.chat_template": SIMPLE}, bos_token="<s>")
    assert (chosen.name, chosen.source, chosen.warnings) == ("default", SIMPLE, ())
    assert chosen.render([user("Hi")]) == RenderedPrompt("[user] Hi\n[assistant]")


def test_chatml_with_a_warning_where_there_is_none() -> None:
    chosen = ChatTemplate.from_metadata({})
    rendered = chosen.render([user("Hi")])
    assert chosen.name == "chatml"
    assert rendered.text == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert len(rendered.warnings) == 1
    assert "no chat template, so chatml is used" in rendered.warnings[0]


@pytest.mark.parametrize("override", ["llama3", "gemma", "mistral-v7-tekken"])
def test_a_built_in_name_wins_over_the_file(override: str) -> None:
    chosen = ChatTemplate.from_metadata({"tokenizer.chat_template": SIMPLE}, override=override)
    assert chosen.name == override
    assert chosen.warnings == ()


def test_text_wins_over_the_file() -> None:
    chosen = ChatTemplate.from_metadata({"tokenizer.chat_template": SIMPLE}, override="{{ messages[0].content }}!")
    assert (chosen.name, chosen.render([user("Hi")]).text) == ("custom", "Hi!")


def test_an_unknown_name() -> None:
    with pytest.raises(
        UsageError, match=r"^there is no chat template 'chatmi'; did you mean chatml\b.*\? known are alpaca, "
    ):
        ChatTemplate.from_metadata({}, override="chatmi")


VARIANTS = {
    "tokenizer.chat_template": SIMPLE,
    "tokenizer.chat_template.tool_use": "{{ tools|tojson }}" + SIMPLE,
    "tokenizer.chat_template.rag": "{{ documents|tojson }}" + SIMPLE,
    "tokenizer.chat_templates": ["tool_use", "rag"],
}


def test_the_variant_for_tools_is_taken_when_tools_are_given() -> None:
    chosen = ChatTemplate.from_metadata(VARIANTS)
    assert chosen.render([user("Hi")]).text.startswith("[user]")
    rendered = chosen.render([user("Hi")], tools=TOOLS)
    assert rendered.text.startswith('[{"type": "function"')
    assert rendered.warnings == ()


def test_variants_by_name() -> None:
    chosen = ChatTemplate.from_metadata(VARIANTS, override="rag")
    assert chosen.name == "rag"
    assert chosen.render([user("Hi")], documents=[{"text": "d"}]).text.startswith('[{"text": "d"}][user]')


def test_variants_without_a_default() -> None:
    chosen = ChatTemplate.from_metadata({"tokenizer.chat_template.rag": SIMPLE})
    assert chosen.name == "rag"
    assert "no default chat template" in chosen.render([user("Hi")]).warnings[0]


@pytest.mark.parametrize("value", [3, b"x", ["x"]])
def test_damaged_metadata(value: object) -> None:
    with pytest.raises(TemplateError, match="'default' of the file is not a text"):
        ChatTemplate.from_metadata({"tokenizer.chat_template": value})


def test_tokens_of_the_vocabulary() -> None:
    metadata: dict[str, Any] = {
        "tokenizer.chat_template": "{{ bos_token }}{{ messages[0].content }}{{ eos_token }}",
        "tokenizer.ggml.tokens": ["<a>", "<b>"],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 7,
    }
    rendered = ChatTemplate.from_gguf(metadata).render([user("Hi")])
    assert rendered == RenderedPrompt("<b>Hi", (), starts_with_bos=True)
    assert ChatTemplate.from_gguf(metadata, "chatml").name == "chatml"


# --- capabilities ---


@pytest.mark.parametrize(
    ("stem", "able"),
    [
        ("google-gemma-2-2b-it", set()),
        ("microsoft-Phi-3.5-mini-instruct", {"system", "later_system"}),
        ("Qwen-Qwen3-0.6B", {"system", "later_system", "tools", "tool_calls", "tool_results"}),
        ("mistralai-Mistral-Nemo-Instruct-2407", {"system", "tools", "tool_calls", "tool_results"}),
        ("deepseek-ai-DeepSeek-R1-Distill-Llama-8B", {"system", "later_system", "tool_calls", "tool_results"}),
        ("fireworks-ai-llama-3-firefunction-v2", {"system", "later_system", "tools", "tool_calls", "tool_results"}),
    ],
)
def test_capabilities(stem: str, able: set[str]) -> None:
    found = template(stem).capabilities
    names = ("system", "later_system", "tools", "tool_calls", "tool_results")
    assert {name for name in names if getattr(found, f"supports_{name}")} == able


def test_missing_variables() -> None:
    assert template("fireworks-ai-llama-3-firefunction-v2").capabilities.missing_variables == {"functions", "datetime"}
    assert template("NousResearch-Hermes-2-Pro-Llama-3-8B-tool_use").capabilities.missing_variables == {"tools"}
    assert template("Qwen-Qwen3-0.6B").capabilities.missing_variables == frozenset()


# --- repairs ---


def test_a_refused_system_message_goes_before_the_first_user_message() -> None:
    rendered = template("google-gemma-2-2b-it").render([system("Be brief."), user("Hi"), assistant("Yo"), user("Bye")])
    assert rendered.text == (
        "<s><start_of_turn>user\nBe brief.\n\nHi<end_of_turn>\n<start_of_turn>model\nYo<end_of_turn>\n"
        "<start_of_turn>user\nBye<end_of_turn>\n<start_of_turn>model\n"
    )
    assert rendered.warnings == (
        "the chat template has no system message, so it was put before the first user message",
    )
    assert rendered.starts_with_bos


def test_a_dropped_system_message_is_kept() -> None:
    dropping = ChatTemplate("{% for m in messages if m.role != 'system' %}[{{ m.role }}] {{ m.content }}{% endfor %}")
    rendered = dropping.render([system("S"), user("Q")])
    assert rendered.text == "[user] S\n\nQ"
    assert len(rendered.warnings) == 1


def test_a_system_message_without_a_user_message_becomes_one() -> None:
    dropping = ChatTemplate("{% for m in messages if m.role != 'system' %}[{{ m.role }}] {{ m.content }}{% endfor %}")
    assert dropping.render([system("S")]).text == "[user] S"
    assert dropping.render([system("S"), assistant("A")]).text == "[user] S[assistant] A"


def test_a_later_system_message_is_folded_where_only_the_first_is_shown() -> None:
    rendered = template("mistralai-Mistral-Nemo-Instruct-2407").render(
        [system("First."), user("Q"), assistant("A"), system("Later."), user("R")]
    )
    assert rendered.text == "<s>[INST]Q[/INST]A</s>[INST]First.\n\nLater.\n\nR[/INST]"
    assert "takes no system message after the start" in rendered.warnings[0]


def test_a_supported_system_message_is_left_alone() -> None:
    assert template("Qwen-Qwen3-0.6B").render([system("S"), user("Q")]).warnings == ()


def test_variables_are_supplied() -> None:
    rendered = template("fireworks-ai-llama-3-firefunction-v2").render([user("Q")], tools=TOOLS[:1], now=NOW)
    assert "Today is 2025-03-09 14:05:06." in rendered.text
    assert '        "type": "function"' in rendered.text
    assert rendered.warnings == ()
    own = template("fireworks-ai-llama-3-firefunction-v2").render([user("Q")], functions="F!", datetime="D!")
    assert "F!\nToday is D!." in own.text


def test_tools_are_supplied() -> None:
    text = template("NousResearch-Hermes-2-Pro-Llama-3-8B-tool_use").render([user("Q")]).text
    assert text.endswith("<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\n")


def test_without_repairs_it_fails() -> None:
    for stem in ("google-gemma-2-2b-it", "fireworks-ai-llama-3-firefunction-v2"):
        with pytest.raises(TemplateError):
            render_template(
                read_template(stem), [system("S"), user("Q")], add_generation_prompt=True, bos_token="", eos_token=""
            )


def test_developer_becomes_system() -> None:
    rendered = template("Qwen-Qwen3-0.6B").render([{"role": "developer", "content": "S"}, user("Q")])
    assert rendered.text.startswith("<|im_start|>system\nS<|im_end|>")
    text = template("openai-gpt-oss-120b").render([{"role": "developer", "content": "S"}, user("Q")], now=NOW).text
    assert "<|start|>developer<|message|># Instructions\n\nS\n\n<|end|>" in text


def test_parts_become_text_and_text_becomes_parts() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert ChatTemplate(SIMPLE).render([user(parts)]).text == "[user] a\nb\n[assistant]"
    typed = ChatTemplate("{% for m in messages %}{% for p in m.content %}<{{ p.text }}>{% endfor %}{% endfor %}")
    assert typed.render([user(parts)]).text == "<a><b>"
    assert typed.render([user("a")]).text == "<a>"


ARGUMENTS = '{"city": "Zürich", "days": 2}'


@pytest.mark.parametrize("content", [None, ""])
@pytest.mark.parametrize("text_arguments", [True, False])
@pytest.mark.parametrize(
    ("stem", "shown"),
    [
        ("Qwen-Qwen3-0.6B", f'<tool_call>\n{{"name": "get_weather", "arguments": {ARGUMENTS}}}\n</tool_call>'),
        ("deepseek-ai-DeepSeek-R1-Distill-Llama-8B", f"get_weather\n```json\n{ARGUMENTS}\n```"),
        ("meta-llama-Llama-3.2-3B-Instruct", f'{{"name": "get_weather", "parameters": {ARGUMENTS}}}'),
        (
            "mistralai-Mistral-Nemo-Instruct-2407",
            f'[TOOL_CALLS][{{"name": "get_weather", "arguments": {ARGUMENTS}, "id": "call12345"}}]',
        ),
        ("Kimi-K2-Instruct", f"functions.get_weather:0<|tool_call_argument_begin|>{ARGUMENTS}"),
        ("openai-gpt-oss-120b", f"functions.get_weather<|channel|>commentary json<|message|>{ARGUMENTS}<|call|>"),
    ],
)
def test_tool_calls_reach_the_prompt_however_they_are_written(
    stem: str, shown: str, content: Any, text_arguments: bool
) -> None:
    rendered = template(stem).render(tool_history(content, text_arguments=text_arguments), tools=TOOLS, now=NOW)
    assert shown in rendered.text
    assert "12 °C" in rendered.text
    assert "None" not in rendered.text.split("How is the weather?")[1]


def test_what_cannot_be_shown_is_said() -> None:
    messages = [user("Q"), assistant(None, tool_calls=[call({})]), result("12"), user("R")]
    warnings = " ".join(
        template("microsoft-Phi-3.5-mini-instruct").render(messages, tools=TOOLS, documents=[{}]).warnings
    )
    for word in ("tools to", "tool calls", "results of tools", "documents"):
        assert f"does not show {'the ' if word.startswith('results') else ''}{word}" in warnings


def test_variables_without_effect_are_said() -> None:
    rendered = template("meta-llama-Llama-3.2-3B-Instruct").render([user("Q")], now=NOW, enable_thinking=False)
    assert rendered.warnings == ("the chat template does not use enable_thinking, so it had no effect",)
    assert template("Qwen-Qwen3-0.6B").render([user("Q")], enable_thinking=False).warnings == ()


def test_enable_thinking_by_another_name() -> None:
    other = ChatTemplate("{{ messages[0].content }}{% if thinking %}<think>{% endif %}")
    assert other.render([user("Q")], enable_thinking=True) == RenderedPrompt("Q<think>")
    assert other.render([user("Q")], enable_thinking=False) == RenderedPrompt("Q")


# --- the end of the prompt ---


def test_continuing_the_last_message() -> None:
    messages = [user("Q"), assistant("Once upon ")]
    rendered = template("Qwen-Qwen3-0.6B").render(messages, continue_final_message=True)
    assert rendered.text.endswith("<|im_start|>assistant\n<think>\n\n</think>\n\nOnce upon ")
    trimmed = template("google-gemma-2-2b-it").render(messages, continue_final_message=True)
    assert trimmed.text.endswith("<start_of_turn>model\nOnce upon")
    parts = [user("Q"), assistant([{"type": "text", "text": "Once"}])]
    assert ChatTemplate(SIMPLE).render(parts, continue_final_message=True).text == "[user] Q\n[assistant] Once"


def test_what_cannot_be_continued() -> None:
    with pytest.raises(
        InvalidRequestError, match=r"messages\[0\].role must be 'assistant' for the message to be continued"
    ):
        ChatTemplate(SIMPLE).render([user("Q")], continue_final_message=True)
    with pytest.raises(TemplateError, match="does not show the last message as it is"):
        ChatTemplate("x{{ messages[0].content }}").render([user("Q"), assistant("A")], continue_final_message=True)


def test_without_a_generation_prompt() -> None:
    assert ChatTemplate(SIMPLE).render([user("Q")], add_generation_prompt=False).text == "[user] Q\n"


def test_malformed_requests_are_named() -> None:
    with pytest.raises(InvalidRequestError, match=r"^messages\[0\].role must be one of"):
        ChatTemplate(SIMPLE).render([{"role": "usr", "content": "x"}])
    with pytest.raises(InvalidRequestError, match=r"^tools\[0\] must be an object"):
        ChatTemplate(SIMPLE).render([user("x")], tools=["x"])  # type: ignore[list-item]


def test_roles_that_the_template_names_are_accepted() -> None:
    source = "{% for m in messages %}{% if m.role == 'critic' %}{{ m.content }}{% endif %}{% endfor %}"
    assert ChatTemplate(source).render([{"role": "critic", "content": "x"}]).text == "x"


def test_rendering_changes_nothing() -> None:
    messages = [system("S"), *tool_history("")]
    before = repr(messages)
    chat = template("google-gemma-2-2b-it")
    for _ in range(2):
        with pytest.raises(TemplateError):  # the roles do not alternate
            chat.render(messages)
    assert repr(messages) == before
