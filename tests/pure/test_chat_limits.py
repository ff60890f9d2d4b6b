"""Templates that want too much time or memory are stopped, and ordinary large conversations are not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quipu.chat import RenderLimits, render_template
from quipu.chat.filters import FILTERS, TESTS
from quipu.chat.render import CompiledTemplate
from quipu.errors import QuipuError, TemplateError

# One template per line. Each wants more time or memory than a prompt may cost; many would run for hours.
BOMBS = Path(__file__).parent.parent / "data" / "template_bombs.txt"
IMPATIENT = RenderLimits(time_s=0.2, items=50_000)


def render(template: str, limits: RenderLimits | None = None, messages: Any = None) -> str:
    return render_template(
        template,
        messages or [{"role": "user", "content": "Hi"}],
        add_generation_prompt=True,
        bos_token="",
        eos_token="",
        limits=limits,
    )


RUNNER = """
import json, resource, sys
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
sys.path.insert(0, sys.argv[1])
from test_chat_limits import IMPATIENT, render
from quipu.errors import TemplateError

results = []
for template in json.load(sys.stdin):
    try:
        results.append(render(template, IMPATIENT)[:100])
    except TemplateError as error:
        results.append(str(error))
# Not ru_maxrss, which a process inherits from its parent.
status = dict(line.split(':', 1) for line in open('/proc/self/status'))
peak_bytes = int(status['VmHWM'].split()[0]) * 1024
json.dump([results, peak_bytes], sys.stdout)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits the memory of a process as Linux does")
def test_bombs_are_stopped_in_bounded_memory() -> None:
    templates = BOMBS.read_text(encoding="utf-8").splitlines()
    done = subprocess.run(
        [sys.executable, "-c", RUNNER, os.path.dirname(__file__)],
        input=json.dumps(templates),
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},  # whose stacks would count
    )
    assert done.returncode == 0, done.stderr
    results, peak_bytes = json.loads(done.stdout)
    for template, result in zip(templates, results, strict=True):
        assert result.startswith("the chat template was stopped"), (template, result)
        assert " because it " in result, (template, result)
        assert "memory ran out" not in result, (template, result)
    assert peak_bytes < 512 << 20


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{ 'a' * 10**10 }}", "built a text of more than 16777216 characters"),
        ("{{ [1] * 10**9 }}", "built a list of more than 500000 items"),
        ("{{ 2**5000 }}", "computed a number of more than 4096 bits"),
        ("{% for i in range(10**12) %}{% endfor %}", "counted over a range of more than 100000 numbers"),
        ("{{ '%999999999d' is odd }}", "formatted a field wider than 10000 characters"),
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "calls itself too deeply"),
        ("{% set l = [] %}{% set _ = l.append(l) %}{{ l }}", "used a value that is nested more than 400 deep"),
    ],
)
def test_reasons(template: str, reason: str) -> None:
    with pytest.raises(TemplateError) as caught:
        render(template)
    assert f"was stopped at line 1 because it {reason}; choose another" in str(caught.value)


def test_the_deadline_can_be_set() -> None:
    endless = "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}"
    with pytest.raises(TemplateError, match=r"stopped at line 1 because it ran longer than 0\.05 s"):
        render(endless, RenderLimits(time_s=0.05))


def test_memory_counts_what_is_held() -> None:
    hoard = "{% set l = [] %}{% for i in range(100000) %}{% set _ = l.append('a' * 100000 ~ i) %}{% endfor %}"
    with pytest.raises(TemplateError, match="used more than 256 MiB of memory"):
        render(hoard)


@pytest.mark.parametrize(
    "template",
    ["x" * 300_000, "{{ a }}" * 20_000, "".join(f"{{% set a{i} = 1 %}}" for i in range(6000))],
    ids=["characters", "tokens", "statements"],
)
def test_huge_templates_are_refused(template: str) -> None:
    with pytest.raises(TemplateError, match=r"more than (the )?\d+ (that are accepted|tokens)"):
        CompiledTemplate(template)


def test_compiling_has_a_deadline() -> None:
    slow = "".join(f"{{% set a{i} = 1 %}}" for i in range(2500)) + "{% if x %}" * 50
    slow += "{% if y %}{% endif %}" * 1500 + "{% endif %}" * 50
    with pytest.raises(TemplateError, match=r"refused because it ran longer than 0\.2 s"):
        CompiledTemplate(slow, RenderLimits(time_s=0.2))


def test_limits_grow_with_the_input() -> None:
    """A conversation of 20 million characters, in a template that rebuilds the prompt with each message."""
    messages = [{"role": "user", "content": "x" * 500_000} for _ in range(40)]
    template = (
        "{% set ns = namespace(text='') %}"
        "{% for m in messages %}{% set ns.text = ns.text + m.content|trim %}{% endfor %}"
        "{{ ns.text }}"
    )
    assert len(render(template, messages=messages)) == 20_000_000


def test_long_conversations_are_no_problem() -> None:
    messages = [{"role": "user" if i % 2 == 0 else "assistant", "content": f"message {i}"} for i in range(5000)]
    template = (
        "{% for m in messages %}{% if loop.index0 + 1 == messages|length %}!{% endif %}"
        "{% if m == messages[-1] %}={% endif %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    )
    lines = render(template, messages=messages).splitlines()
    assert lines[0] == "user: message 0"
    assert lines[-1] == "!=assistant: message 4999"


# --- random templates ---

_VALUES = """
messages ns.x ns.y l d t s big range(100000) 1 -1 10**6 10**9 1.5 none '%s' '%99999d' '{0:>99999}' '' '\\n' [] {} ()
undefined loop m self dict
"""
_METHODS = """
replace join split rsplit format center zfill expandtabs strip count rfind pop append extend insert update get items
copy index splitlines partition __class__
"""
_OPERATORS = "+ - * / // % ** ~ == < in and"
_NAMED_TESTS = sorted(name for name in TESTS if name.isalpha() and name not in ("in",))


def _combine(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    arguments = st.lists(inner, max_size=2).map(", ".join)
    return st.one_of(
        st.builds("({} {} {})".format, inner, st.sampled_from(_OPERATORS.split()), inner),
        st.builds("({}|{}({}))".format, inner, st.sampled_from(sorted(FILTERS)), arguments),
        st.builds("{}.{}({})".format, inner, st.sampled_from(_METHODS.split()), arguments),
        st.builds("({} is {}({}))".format, inner, st.sampled_from(_NAMED_TESTS), inner),
        st.builds("{}[{}:{}]".format, inner, inner, inner),
        st.builds("[{}, {}]".format, inner, inner),
        st.builds("({}, {})".format, inner, inner),
        st.builds("{{{}: {}}}".format, inner, inner),
        st.builds("m({})".format, inner),
    )


_EXPRESSIONS = st.recursive(st.sampled_from(_VALUES.split()), _combine, max_leaves=8)
_SET_UP = (
    "{% macro m(x) %}{{ x }}{% endmacro %}{% set ns = namespace(x=[1, 2], y='ab' * 1000) %}{% set l = [1, 'a', [2]] %}"
    "{% set d = {'a': 1} %}{% set s = 'abc ' * 1000 %}{% set big = 'ab\n' * 1000000 %}{% set t = (1, (2, 3)) %}"
)
_STATEMENTS = st.one_of(
    _EXPRESSIONS.map("{{{{ {} }}}}".format),
    st.builds("{{% set {} = {} %}}".format, st.sampled_from(["ns.x", "ns.y", "l", "d", "s"]), _EXPRESSIONS),
    st.builds("{{% for x in {} %}}{{{{ {} }}}}{{% endfor %}}".format, _EXPRESSIONS, _EXPRESSIONS),
    st.builds("{{% for x in {} if {} %}}{{% endfor %}}".format, _EXPRESSIONS, _EXPRESSIONS),
)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(_STATEMENTS, min_size=1, max_size=3))
def test_random_templates_end_in_text_or_one_error(statements: list[str]) -> None:
    try:
        text = render(_SET_UP + "".join(statements), IMPATIENT)
    except QuipuError as error:
        text = str(error)
        if "\n" in text or "memory ran out" in text:
            raise
    assert isinstance(text, str)
