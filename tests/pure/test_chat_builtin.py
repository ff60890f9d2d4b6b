"""Built-in templates against the formats that the models' authors published."""

from __future__ import annotations

import json
from datetime import datetime
from importlib.resources import files
from pathlib import Path

import pytest
from chat_samples import assistant, system, user

from quipu.chat import BUILTIN_TEMPLATES, ChatTemplate

CONVERSATION = [system("S"), user("Q1"), assistant("A1"), user("Q2")]
# Without the BOS that the tokenizer puts first; EOS is </s>. Written out by hand from model cards.
EXPECTED = json.loads((Path(__file__).parent.parent / "data" / "builtin_prompts.json").read_text(encoding="utf-8"))


def builtin(name: str) -> ChatTemplate:
    return ChatTemplate.from_metadata({}, override=name, bos_token="<s>", eos_token="</s>")


@pytest.mark.parametrize("name", sorted({*BUILTIN_TEMPLATES.values()}))
def test_published_formats(name: str) -> None:
    rendered = builtin(name).render(CONVERSATION, now=datetime(2025, 3, 9))
    assert rendered.text == EXPECTED["with_system"][name]
    assert bool(rendered.warnings) == (name in ("gemma", "orion"))  # which have no system message
    assert rendered.starts_with_bos == (name == "gigachat")


@pytest.mark.parametrize("name", sorted(EXPECTED["without_system"]))
def test_conversations_without_a_system_message(name: str) -> None:
    assert builtin(name).render([user("Q")]).text == EXPECTED["without_system"][name]


def test_names_and_files_agree() -> None:
    present = {path.name for path in (files("quipu.chat") / "templates").iterdir()}
    assert present == {f"{name}.jinja" for name in BUILTIN_TEMPLATES.values()}


@pytest.mark.parametrize("name", ["chatml", "llama2", "llama3", "gemma", "mistral", "deepseek", "phi", "qwen3"])
def test_familiar_names(name: str) -> None:
    assert builtin(name).name == name


def test_exaone4_thinks_when_asked() -> None:
    assert builtin("exaone4").render([user("Q")], enable_thinking=True).text.endswith("[|assistant|]\n<think>\n")


def test_deepseek_r1_forgets_old_reasoning() -> None:
    messages = [user("Q"), assistant("<think>hm</think>A"), user("R")]
    assert (
        builtin("deepseek-r1").render(messages).text
        == "<｜User｜>Q<｜Assistant｜>A<｜end▁of▁sentence｜><｜User｜>R<｜Assistant｜><think>\n"
    )
