"""Splitting answers into reasoning and content, however the text is cut."""

from __future__ import annotations

import pytest
from chat_samples import read_template, user
from hypothesis import given
from hypothesis import strategies as st

from quipu.chat import ChatTemplate, ReasoningDelta, ReasoningParser
from quipu.chat.reasoning import TAGS

THINK = "{{ '<think>' }} {{ '</think>' }}"
HARMONY = "<|channel|>analysis<|message|>"


def split(text: str, template: str = THINK, prompt: str = "", *, sizes: tuple[int, ...] = ()) -> ReasoningDelta:
    """What the parser makes of `text`, given in pieces of these sizes and then the rest."""
    parser = ReasoningParser.for_template(template, prompt)
    deltas = []
    for size in sizes:
        deltas.append(parser.append(text[:size]))
        text = text[size:]
    deltas += [parser.append(text), parser.flush()]
    return ReasoningDelta("".join(d.reasoning for d in deltas), "".join(d.content for d in deltas))


def split_by_letters(text: str, template: str = THINK, prompt: str = "") -> ReasoningDelta:
    return split(text, template, prompt, sizes=(1,) * len(text))


@pytest.mark.parametrize(
    ("text", "reasoning", "content"),
    [
        ("<think>why</think>answer", "why", "answer"),
        ("<think>\nwhy\n\nso\n</think>\n\nanswer\n", "why\n\nso", "answer\n"),
        ("\n <think>why</think>answer", "why", "answer"),
        ("<think>\n\n</think>\n\nanswer", "", "answer"),
        ("<think></think>answer", "", "answer"),
        ("plain answer", "", "plain answer"),
        ("  plain answer ", "", "  plain answer "),
        ("", "", ""),
        ("\n", "", "\n"),
        ("<think>never closed\n", "never closed\n", ""),
        ("<think>never closed</thi", "never closed</thi", ""),
        ("<thin ice", "", "<thin ice"),
        ("<thin", "", "<thin"),
        ("Write <think> like this</think>.", "", "Write <think> like this</think>."),
        ("<think>a < b </ c</think>d", "a < b </ c", "d"),
        ("<think>one</think>\n<think>two</think>\nanswer", "onetwo", "answer"),
        ("<think>why</think>answer with <think>tags</think>", "why", "answer with <think>tags</think>"),
        ("no opening</think>answer", "", "no opening</think>answer"),
    ],
)
def test_think_tags(text: str, reasoning: str, content: str) -> None:
    assert split(text) == (reasoning, content)
    assert split_by_letters(text) == (reasoning, content)


@pytest.mark.parametrize(
    ("prompt", "text", "reasoning", "content"),
    [
        ("<|im_start|>assistant\n<think>\n", "why\n</think>\n\nanswer", "why", "answer"),
        ("<｜Assistant｜><think>", "why</think>answer", "why", "answer"),
        ("<｜Assistant｜><think>\n", "<think>\nwhy</think>answer", "why", "answer"),
        ("<｜Assistant｜><think>\n", "</think>answer", "", "answer"),
        ("assistant\n<think>\n\n</think>\n\n", "answer", "", "answer"),
        ("user\nWhat does <think> do?\nassistant\n", "It opens.", "", "It opens."),
    ],
)
def test_prompts_that_open_the_tag(prompt: str, text: str, reasoning: str, content: str) -> None:
    assert split(text, prompt=prompt) == (reasoning, content)
    assert split_by_letters(text, prompt=prompt) == (reasoning, content)


@pytest.mark.parametrize("tags", TAGS, ids=lambda tags: tags.opening)
def test_all_families(tags: object) -> None:
    opening, closing = TAGS[TAGS.index(tags)].opening, TAGS[TAGS.index(tags)].closing  # type: ignore[arg-type]
    template = f"{{{{ '{opening}' + reasoning + '{closing}' }}}}"
    if opening == "<|think|>":
        template += "<|begin|>assistant<|content|>"
    text = f"{opening}\nwhy\n{closing}\nanswer"
    assert split(text, template) == ("why", "answer")
    assert split_by_letters(text, template) == ("why", "answer")
    assert {opening, closing} <= set(ReasoningParser.for_template(template).markers)


@pytest.mark.parametrize("opening", ["<think>", "<thinking>", "[THINK]", "◁think▷", "<seed:think>"])
def test_common_tags_count_where_the_template_says_nothing(opening: str) -> None:
    closing = next(tags.closing for tags in TAGS if tags.opening == opening)
    assert split(f"{opening}why{closing}answer", "{{ messages }}") == ("why", "answer")
    assert split(f"answer {opening}why{closing}", "{{ messages }}") == ("", f"answer {opening}why{closing}")


@pytest.mark.parametrize(
    ("template", "text", "reasoning", "content"),
    [
        (
            "<|START_THINKING|><|END_THINKING|>",
            "<|START_THINKING|>why<|END_THINKING|><|START_RESPONSE|>answer<|END_RESPONSE|>",
            "why",
            "answer",
        ),
        (
            "<|START_THINKING|><|END_THINKING|>",
            "<|START_THINKING|>why<|END_THINKING|><|START_ACTION|>[]<|END_ACTION|>",
            "why",
            "<|START_ACTION|>[]<|END_ACTION|>",
        ),
        ("<think></think><response></response>", "<think>why</think>\n<response>\nanswer</response>", "why", "answer"),
        ("<think></think><response></response>", "Use <response>x</response>.", "", "Use <response>x</response>."),
        ("<|channel>thought <channel|>", "a<|channel>thought\nwhy\n<channel|>b", "why", "ab"),
        (
            "<|think|><|end|><|content|>",
            "<|think|>why<|end|><|begin|>assistant<|content|>answer",
            "why",
            "answer",
        ),
    ],
)
def test_special_tokens(template: str, text: str, reasoning: str, content: str) -> None:
    assert split(text, template) == (reasoning, content)
    assert split_by_letters(text, template) == (reasoning, content)


CALL = '<|channel|>commentary to=functions.f <|constrain|>json<|message|>{"a": 1}<|call|>'
OTHER_CALL = " to=functions.f<|channel|>commentary json<|message|>{}<|call|>"


@pytest.mark.parametrize(
    ("prompt", "text", "reasoning", "content"),
    [
        (
            "<|start|>assistant",
            "<|channel|>analysis<|message|>why<|end|><|start|>assistant<|channel|>final<|message|>answer<|return|>",
            "why",
            "answer",
        ),
        ("<|start|>assistant", "<|channel|>final<|message|>answer", "", "answer"),
        (
            "<|start|>assistant",
            f"<|channel|>analysis<|message|>why<|end|><|start|>assistant{CALL}",
            "why",
            f"<|start|>assistant{CALL}",
        ),
        ("<|start|>assistant", CALL, "", CALL),
        ("<|start|>assistant", OTHER_CALL, "", OTHER_CALL),
        ("<|start|>assistant", "<|channel|>commentary<|message|>Let me look.<|end|>", "", "Let me look."),
        ("<|start|>assistant<|channel|>final<|message|>The", " answer<|return|>", "", " answer"),
        ("<|start|>assistant<|channel|>analysis<|message|>", "why<|end|>", "why", ""),
        ("<|start|>assistant<|channel|>", "final<|message|>answer", "", "answer"),
        ("<|start|>assistant", "plain answer", "", "plain answer"),
        ("<|start|>assistant", "<|channel|>analysis<|message|>cut off <|e", "cut off <|e", ""),
        ("<|start|>assistant", "<|channel|>anal", "", ""),
        ("", "<|start|>assistant<|channel|>final<|message|>a<|end|>", "", "a"),
        ("<|start|>assistant", "<|channel|>analysis<|message|>why<|channel|>final<|message|>answer", "why", "answer"),
        ("<|start|>assistant", "<|channel|>" + "x" * 600, "", "<|channel|>" + "x" * 600),
    ],
)
def test_harmony(prompt: str, text: str, reasoning: str, content: str) -> None:
    assert split(text, HARMONY, prompt) == (reasoning, content)
    assert split_by_letters(text, HARMONY, prompt) == (reasoning, content)


def test_what_may_be_a_tag_is_held_back_and_nothing_else() -> None:
    parser = ReasoningParser.for_template(THINK)
    assert parser.append("<th") == ("", "")
    assert parser.append("ink>why") == ("why", "")
    assert parser.append(" not\n") == (" not", "")
    assert parser.append("</") == ("", "")
    assert parser.append("b>") == ("\n</b>", "")
    assert parser.append("</think> ") == ("", "")
    assert parser.append("a <") == ("", "a <")
    assert parser.flush() == ("", "")


def test_a_message_that_is_continued_inside_reasoning() -> None:
    parser = ReasoningParser.for_template(THINK, "assistant\n<think>half a thou", continued="<think>half a thou")
    assert parser.append("ght</think>answer") == ("ght", "answer")


@pytest.mark.parametrize(
    ("stem", "variables", "text", "expected"),
    [
        ("Qwen-Qwen3-0.6B", {}, "<think>\nwhy\n</think>\n\nanswer", ("why", "answer")),
        ("Qwen-Qwen3-0.6B", {"enable_thinking": False}, "answer", ("", "answer")),
        ("deepseek-ai-DeepSeek-R1-Distill-Llama-8B", {}, "why\n</think>\n\nanswer", ("why", "answer")),
        (
            "openai-gpt-oss-120b",
            {},
            "<|channel|>analysis<|message|>why<|end|><|start|>assistant<|channel|>final<|message|>answer",
            ("why", "answer"),
        ),
        ("google-gemma-4-31B-it-interleaved", {}, "<|channel>thought\nwhy\n<channel|>answer", ("why", "answer")),
        ("meta-llama-Llama-3.2-3B-Instruct", {}, "answer", ("", "answer")),
    ],
)
def test_real_templates(stem: str, variables: dict[str, object], text: str, expected: tuple[str, str]) -> None:
    template = ChatTemplate(read_template(stem), bos_token="<s>", eos_token="</s>")
    prompt = template.render([user("Q")], **variables).text
    parser = template.reasoning_parser(prompt)
    first, last = parser.append(text), parser.flush()
    assert (first.reasoning + last.reasoning, first.content + last.content) == expected


_TAGS = """
<think> </think> < <th </ think> a why <response> </response> [THINK] [/THINK] <|end|> <|channel|> analysis final
<|message|> <|start|> assistant <|call|> <|e <|
"""
_PIECES = st.sampled_from([" ", "\n", " to=f", *_TAGS.split()])
_TEMPLATES = st.sampled_from([THINK, HARMONY, "x", "<think></think><response></response>", "[THINK][/THINK]"])
_PROMPTS = st.sampled_from(["", "<think>\n", "<|start|>assistant", "<|start|>assistant<|channel|>analysis<|message|>"])


@given(st.lists(_PIECES, max_size=12).map("".join), _TEMPLATES, _PROMPTS, st.lists(st.integers(1, 9), max_size=20))
def test_how_the_text_is_cut_makes_no_difference(text: str, template: str, prompt: str, sizes: list[int]) -> None:
    assert split(text, template, prompt, sizes=tuple(sizes)) == split(text, template, prompt)


@given(st.text(alphabet="<>/thinkabc \n", max_size=60), st.text(alphabet="<>/thinkabc \n", max_size=60))
def test_nothing_is_lost(reasoning: str, content: str) -> None:
    """Apart from white space and tags, what goes in comes out, in its place."""
    if "</think>" in reasoning or "<think>" in reasoning + content:
        return
    out = split(f"<think>{reasoning}</think>{content}")
    assert out.reasoning == reasoning.strip()
    assert out.content == content.lstrip()
    assert split(content) == ("", content)
