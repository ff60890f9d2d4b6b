"""Rendering a template: what templates of Hugging Face expect, copies, and error sentences."""

from __future__ import annotations

import copy
import re
import subprocess
import sys
from collections import UserDict
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from chat_samples import read_template, template_paths, tool_history, user

import quipu
from quipu.chat import render_template
from quipu.chat.render import CompiledTemplate
from quipu.errors import InvalidRequestError, TemplateError

NOW = datetime(2025, 3, 9, 14, 5, 6)


def render(template: str, messages: Any = None, **others: Any) -> str:
    arguments: dict[str, Any] = {"add_generation_prompt": True, "bos_token": "<s>", "eos_token": "</s>", "now": NOW}
    return render_template(template, messages or [user("Hi")], **{**arguments, **others})


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (
            "{{ bos_token }}{% for m in messages %}{{ m.role }}: {{ m['content'] }}{% endfor %}{{ eos_token }}",
            "<s>user: Hi</s>",
        ),
        ("  {% if true %}\nx\n  {% endif %}\ny", "x\ny"),
        ("{{ {'b': '<é>&\\'', 'a': [1, none, true]}|tojson }}", '{"b": "<é>&\'", "a": [1, null, true]}'),
        ("{{ {'b': 1, 'a': 'é'}|tojson(sort_keys=true, ensure_ascii=true) }}", '{"a": "\\u00e9", "b": 1}'),
        ("{{ {'a': [1]}|tojson(indent=2) }}", '{\n  "a": [\n    1\n  ]\n}'),
        ("{{ [1, 2]|tojson(separators=(',', ':')) }}", "[1,2]"),
        ("{{ strftime_now('%d %b %Y %H:%M') }}", "09 Mar 2025 14:05"),
        ("a{% generation %}{% set x = 1 %}b{{ messages[0].content }}{% endgeneration %}c", "abHic"),
        (
            "{% for i in range(9) %}{% if i == 1 %}{% continue %}{% elif i == 3 %}{% break %}{% endif %}"
            "{{ i }}{% endfor %}",
            "02",
        ),
        ("{{ tools is none }} {{ documents is none }} {{ nothing is defined }}{{ nothing }}", "True True False"),
        (
            "{% set l = [] %}{% set _ = l.append(1) %}{% set _ = l.extend([2]) %}{% set _ = l.insert(0, 0) %}{{ l }}",
            "[0, 1, 2]",
        ),
        (
            "{% set d = {'a': 1} %}{% set _ = d.update({'b': 2}) %}{% set _ = d.update(c=3) %}{{ d }}",
            "{'a': 1, 'b': 2, 'c': 3}",
        ),
        ("{% set l = [1, 2] %}{{ l.pop() }}{{ l }}", "2[1]"),
        ("{% set ns = namespace(x=1) %}{% for i in range(3) %}{% set ns.x = ns.x + i %}{% endfor %}{{ ns.x }}", "4"),
        ("{% macro m(a, b=2) %}{{ a }}{{ b }}{{ caller() }}{% endmacro %}{% call m(1) %}!{% endcall %}", "12!"),
        ("{{ 'a%s-%d' % ('b', 3) }} {{ '{} {x:>3}'.format(1, x='y') }} {{ '%s'|format(5) }}", "ab-3 1   y 5"),
        ("{{ dict(a=1) }}{{ dict([('b', 2)]) }}", "{'a': 1}{'b': 2}"),
        ("{{ 'x y'.split() }}{{ 'a.b'.split('.')[-1] }}{{ ' t '.strip() }}{{ 'abc'[::-1] }}", "['x', 'y']btcba"),
        ("{{ [3, 1, 2]|sort|join(',') }} {{ messages|map(attribute='role')|list }}", "1,2,3 ['user']"),
        ("{% for a, b in {'k': 'v'}.items() %}{{ loop.index }}{{ a }}{{ b }}{{ loop.last }}{% endfor %}", "1kvTrue"),
        ("{{ '\\'' | e }}{{ ('<' | safe) + '<' }}", "&#39;<&lt;"),
    ],
)
def test_language(template: str, expected: str) -> None:
    assert render(template) == expected


def test_arguments_are_copied() -> None:
    messages = [user("Hi"), *tool_history("")]
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    before = copy.deepcopy((messages, tools))
    render(
        "{% set _ = messages.append({}) %}{% set _ = messages[0].update(content='x') %}"
        "{% set _ = messages[2].tool_calls[0].function.arguments.update(city='x') %}"
        "{% set _ = tools[0].function.parameters.update(a=1) %}{% set _ = tools.pop() %}",
        messages,
        tools=tools,
    )
    assert (messages, tools) == before


def test_lists_can_be_changed_as_kimi_does() -> None:
    text = render(read_template("Kimi-K2-Instruct"), tool_history(None))
    assert '<|tool_call_begin|>functions.get_weather:0<|tool_call_argument_begin|>{"city": "Zürich", "days": 2}' in text
    assert "## Return of functions.get_weather:0\n12 °C" in text


def test_reasoning_goes_by_several_names() -> None:
    template = "{{ messages[0].reasoning_content }}|{{ messages[0].thinking }}|{{ messages[0].reasoning }}"
    assert render(template, [{"role": "assistant", "content": "a", "reasoning": "r"}]) == "r|r|r"
    assert render(template, [{"role": "assistant", "content": "a", "thinking": "t"}]) == "t|t|"


def test_mappings_and_subclasses_become_plain() -> None:
    class Name(str):
        def escape_the_sandbox(self) -> str:
            return "out"

    message = UserDict(role="user", content=Name("Hi"))
    assert (
        render("{{ messages[0].content }}{{ messages[0].content.escape_the_sandbox is defined }}", [message])
        == "HiFalse"
    )


@pytest.mark.parametrize("value", [object(), {1, 2}, b"x"])
def test_other_objects_are_refused(value: object) -> None:
    with pytest.raises(
        InvalidRequestError, match=r"messages holds a value of type .*, which a chat template cannot read"
    ):
        render("x", [{"role": "user", "content": value}])


def test_cyclic_arguments_are_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(InvalidRequestError, match="documents is nested too deeply"):
        render("x", documents=loop)


ADVICE = "choose another with --chat-template NAME"


@pytest.mark.parametrize(
    ("template", "sentence"),
    [
        (
            "\n\n{{ raise_exception('Roles must  alternate\n strictly.') }}",
            f"the chat template refused the messages at line 3: Roles must alternate strictly; change them or {ADVICE}",
        ),
        ("a\n{{ x.y }}", f"the chat template failed at line 2: 'x' is undefined; change the messages or {ADVICE}"),
        (
            "{% macro m(a) %}\n{{ a + 1 }}{% endmacro %}\n{{ m('x') }}",
            'the chat template failed at line 2: can only concatenate str (not "int") to str; '
            f"change the messages or {ADVICE}",
        ),
        ("{{ {}.pop('k') }}", f"the chat template failed at line 1: there is no 'k'; change the messages or {ADVICE}"),
        ("{{ 1 / 0 }}", f"the chat template failed at line 1: division by zero; change the messages or {ADVICE}"),
        (
            "{% if x %}\n{{ y",
            "the chat template is invalid at line 2: "
            f"unexpected end of template, expected 'end of print statement'; {ADVICE}",
        ),
        ("{{ x|nothing }}", f"the chat template is invalid at line 1: No filter named 'nothing'; {ADVICE}"),
        (
            "{% extends 'x' %}",
            "the chat template was stopped at line 1 for what templates may not do: "
            f"a chat template may not load another template; {ADVICE}",
        ),
        ("{{ " + "9" * 9000 + " }}", f"the chat template is invalid: it holds a number that is too long; {ADVICE}"),
        ("{{ " + "(" * 900 + " }}", f"the chat template is nested too deeply to compile; {ADVICE}"),
    ],
)
def test_error_sentences(template: str, sentence: str) -> None:
    with pytest.raises(TemplateError) as caught:
        render(template)
    assert str(caught.value) == sentence


def test_long_messages_of_templates_are_cut() -> None:
    with pytest.raises(TemplateError) as caught:
        render("{{ raise_exception('x' * 100000) }}")
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("path", template_paths(), ids=lambda path: path.stem)
def test_every_template_compiles(path: Path) -> None:
    template = CompiledTemplate(path.read_text(encoding="utf-8"))
    assert "messages" in template.variables()


def test_templates_are_rendered_in_one_place() -> None:
    """A second, unguarded place to render templates has been the way into other engines."""
    source = Path(quipu.__file__).parent
    imports = re.compile(r"^\s*(from|import) jinja2", re.MULTILINE)
    paths = list(source.rglob("*.py"))
    users = {path.relative_to(source).as_posix() for path in paths if imports.search(path.read_text("utf-8"))}
    assert users == {f"chat/{name}.py" for name in ("limits", "filters", "operations", "sandbox", "render")}
    makers = {path.name for path in paths if "ChatEnvironment(" in path.read_text("utf-8")}
    assert makers == {"sandbox.py", "render.py"}


def test_compiling_does_not_warn() -> None:
    """Python warns about `1[0:2]`, which would reach users' screens."""
    code = "from quipu.chat.render import CompiledTemplate; CompiledTemplate('{{ 1[0:2] }}{{ none[1:] }}{{ 1() }}')"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
