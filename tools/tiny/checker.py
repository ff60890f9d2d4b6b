"""Judges an answer: is it right, is it in the language of the question, are its tool calls in the template's form?"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import Any, NamedTuple

from tiny.corpus.example import Check, Conversation
from tiny.corpus.grammar import Language

_CALL = re.compile(r"<tool_call>\n(\{.*?\})\n</tool_call>", re.DOTALL)
_THOUGHT = re.compile(r"^\s*(?:<think>\n)?(.*?)</think>\s*", re.DOTALL)
_CODE = re.compile(r"```(?:python|json)?\n(.*?)```", re.DOTALL)
_CHINESE = re.compile(r"[\u4e00-\u9fff]")
_LETTER = re.compile(r"[A-Za-z]")
# Code, JSON, quoted words, formulas and commands read the same in every language.
_NEUTRAL = re.compile(r"```.*?```|\{.*\}|“[^”]*”|\"[^\"]*\"|\bquipu [\w. -]+|[\d\s=+×÷*/().:-]+", re.DOTALL)
_RUN_S = 10


class Verdict(NamedTuple):
    """What is wrong with an answer; empty texts where nothing is."""

    fault: str
    language_fault: str


def judge(conversation: Conversation, answer: str) -> Verdict:
    """Judge the raw text of an answer, marks of thinking and tool calls included."""
    content, fault = answer.strip(), ""
    if _asks_to_think(conversation):
        match = _THOUGHT.match(content)
        if match is None or not match[1].strip():
            return Verdict("did not think", "")
        content = content[match.end() :]
    elif conversation.topic != "thinking" and "<think>" in content:
        fault = "thought without being asked"
    return Verdict(fault or find_fault(conversation.check, content), language_fault(conversation.language, content))


def _asks_to_think(conversation: Conversation) -> bool:
    return "reasoning_content" in conversation.messages[-1]


def parse_calls(content: str) -> list[tuple[str, dict[str, Any]]] | None:
    """The tool calls of an answer, or None where it has text or marks that are not of the template's form."""
    calls: list[tuple[str, dict[str, Any]]] = []
    for match in _CALL.finditer(content):
        try:
            call = json.loads(match[1])
        except ValueError:
            return None
        if not isinstance(call, dict) or list(call) != ["name", "arguments"] or not isinstance(call["arguments"], dict):
            return None
        calls.append((call["name"], call["arguments"]))
    rest = _CALL.sub("", content).strip()
    return None if rest and (calls or "tool_call>" in rest) else calls


def find_fault(check: Check, content: str) -> str:
    """What is wrong with the content of an answer, or ""."""
    calls = parse_calls(content)
    if calls is None:
        return "malformed tool call"
    if calls != list(check.calls):
        return f"tool calls {calls} instead of {list(check.calls)}"
    if check.json_value is not None:
        return _json_fault(check.json_value, content)
    if check.python_test:
        fault = _python_fault(check.python_test, content)
        if fault:
            return fault
    plain = content.casefold()
    for group in check.all_of:
        if not any(text.casefold() in plain for text in group):
            return f"lacks {' or '.join(map(repr, group))}"
    for text in check.none_of:
        if text.casefold() in plain:
            return f"says {text!r}"
    words = len(content.split()) + len(_CHINESE.findall(content))
    return f"only {words} words" if words < check.min_words else ""


def _json_fault(wanted: Any, content: str) -> str:
    match = _CODE.search(content)
    try:
        value = json.loads(match[1] if match else content)
    except ValueError:
        return "not JSON"
    return "" if value == wanted else f"{value} instead of {wanted}"


def _python_fault(test: str, content: str) -> str:
    match = _CODE.search(content)
    if match is None:
        return "no code"
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-c", f"{match[1]}\n{test}"], capture_output=True, timeout=_RUN_S, check=False
        )
    except subprocess.TimeoutExpired:
        return "the code does not end"
    return "" if done.returncode == 0 else f"the code fails: {done.stderr.decode(errors='replace').strip()[-80:]}"


def language_fault(language: Language, content: str) -> str:
    """Whether the answer is in another language than the question, or ""."""
    prose = _NEUTRAL.sub(" ", _CALL.sub(" ", content))
    chinese, latin = len(_CHINESE.findall(prose)), len(_LETTER.findall(prose))
    if language == "en" and chinese > latin:
        return "answers in Chinese"
    if language == "zh" and latin > 3 * chinese and latin > 12:
        return "answers in English"
    return ""
