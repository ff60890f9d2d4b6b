"""Known ways out of template sandboxes lead nowhere."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from quipu.chat import render_template
from quipu.errors import TemplateError

# Payloads for server-side template injection from public collections, from CVE-2024-34359 (a GGUF file's template),
# CVE-2024-56326 and CVE-2025-27516 (str.format past the sandbox), and what becomes reachable where lists may change.
PAYLOADS = (
    "{{ ''.__class__ }}",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ ()['__class__']['__base__']['__subclasses__']() }}",
    "{{ [].__class__.__base__.__subclasses__()[104].__init__.__globals__['sys'].modules['os'].popen('id').read() }}",
    "{% for x in ().__class__.__base__.__subclasses__() %}{% if 'warning' in x.__name__ %}"
    "{{ x()._module.__builtins__['__import__']('os').popen('touch {flag}') }}{% endif %}{% endfor %}",
    "{{ self.__init__.__globals__.__builtins__.__import__('os').system('touch {flag}') }}",
    "{{ self._TemplateReference__context.cycler.__init__.__globals__.os.system('touch {flag}') }}",
    "{{ self._TemplateReference__context.joiner.__init__.__globals__.os.system('touch {flag}') }}",
    "{{ self._TemplateReference__context.namespace.__init__.__globals__.os.system('touch {flag}') }}",
    "{{ cycler.__init__.__globals__.os.system('touch {flag}') }}",
    "{{ joiner.__init__.__globals__.os }}",
    "{{ namespace.__init__.__globals__.os }}",
    "{{ lipsum.__globals__['os'].system('touch {flag}') }}",
    "{{ dict.mro() }}",
    "{{ dict.__base__ }}",
    "{{ range.__class__ }}",
    "{{ raise_exception.__globals__ }}",
    "{{ raise_exception.__code__.co_consts }}",
    "{{ raise_exception.__closure__ }}",
    "{{ strftime_now.__self__ }}",
    "{{ strftime_now.__func__.__globals__ }}",
    "{{ messages.append.__self__.__class__ }}",
    "{{ messages.append.__func__ }}",
    "{{ (messages|map('upper')).gi_frame.f_globals }}",
    "{{ (messages|select).gi_frame.f_builtins }}",
    "{{ (messages|select).gi_code }}",
    "{{ ''|attr('__class__') }}",
    "{{ ''|attr('__cl' ~ 'ass__')|attr('__mro__') }}",
    "{{ ['']|map(attribute='__class__')|list|first|attr('mro') }}",
    "{{ ['']|map('attr', '__class__')|list }}{{ (['']|map('attr', '__class__')|first).x }}",
    "{{ ['']|groupby('__class__') }}{{ (['']|groupby('__class__')|first).grouper.x }}",
    "{{ [{'a': ''}]|sort(attribute='a.__class__') }}{{ ([{'a': ''}]|map(attribute='a.__class__')|first).x }}",
    "{{ '{0.__class__.__init__.__globals__}'.format(cycler) }}",
    "{{ '{0.__class__}'.format('') }}",
    "{{ '{x.__class__}'.format_map({'x': ''}) }}",
    "{{ ''.format.__self__ }}",
    "{{ ('{0.__class__.__mro__}'|attr('format'))('') }}",
    "{{ ['{0.__class__}']|map('attr', 'format')|first('') }}",
    "{% set f = '{0.__class__}'.format %}{{ f('') }}",
    "{% set ns = namespace(f='{0.__class__}'.format) %}{{ ns.f('') }}",
    "{{ ('{0.__class__}'|safe).format('') }}",
    "{{ ('{0.__class__}'|safe|attr('format'))('') }}",
    "{{ 'x'.encode('utf-8') }}",
    "{{ 'x'.translate({}) }}",
    "{{ 'x'.maketrans('a', 'b') }}",
    "{{ (1).to_bytes(10) }}",
    "{{ (1).__add__(1) }}",
    "{{ (1).real.__class__ }}",
    "{{ namespace(__class__=1) }}",
    "{{ namespace({'__init__': 1}) }}",
    "{% set ns = namespace() %}{% set ns.__class__ = 1 %}",
    "{% set ns = namespace() %}{% set ns._x = 1 %}",
    "{{ namespace()._Namespace__attrs }}",
    "{% for x in [1] %}{{ loop.__class__ }}{% endfor %}",
    "{% for x in [1] %}{{ loop._iterable }}{% endfor %}",
    "{% macro m() %}{% endmacro %}{{ m._func.__globals__ }}",
    "{% macro m() %}{% endmacro %}{{ m.__init__.__globals__ }}",
    "{% macro m() %}{% endmacro %}{{ m._environment.globals }}",
    "{% macro m() %}{{ caller._func }}{% endmacro %}{% call m() %}{% endcall %}",
    "{% block b %}{{ self.b.__globals__ }}{{ super.__init__ }}{% endblock %}",
    "{{ undefined.__class__ }}",
    "{{ undefined._undefined_message }}",
    "{{ undefined['__init__']['__globals__'] }}",
    "{% include '/etc/passwd' %}",
    "{% import '/etc/passwd' as x %}",
    "{% from '/etc/passwd' import x %}",
    "{% extends '/etc/passwd' %}",
    "{% include ['/etc/passwd'] %}",
    "{{ config.items() }}",
    "{{ request.application.__globals__.__builtins__ }}",
    "{{ url_for.__globals__ }}",
    "{{ environment.globals }}",
    "{{ context.environment }}",
    "{{ messages.__class__.__init__.__globals__ }}",
    "{{ messages.sort() }}",
    "{{ messages[0].popitem() }}",
    "{{ messages[0].__setitem__('a', 1) }}",
    "{{ messages[0].fromkeys }}{{ messages[0].fromkeys([1]) }}",
    "{{ dict.fromkeys.__self__ }}",
    "{{ tools.x.y }}",
    "{% do messages.append(1) %}",
    "{% debug %}",
    "{% trans %}x{% endtrans %}",
)


@pytest.mark.parametrize("payload", PAYLOADS)
def test_payloads_get_nowhere(payload: str, tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    before = set(os.listdir())
    try:
        text = render_template(
            payload.replace("{flag}", str(flag)),
            [{"role": "user", "content": "Hi"}],
            add_generation_prompt=True,
            bos_token="",
            eos_token="",
            environment_variable="x",
        )
    except TemplateError as error:
        if "\n" in str(error):
            raise
    else:  # an attribute that is not there prints as nothing
        assert not any(word in text for word in ("class", "built-in", "module", "root:", "0x", "function", "object")), (
            text
        )
        assert text.strip() in ("", "[]"), text
    assert not flag.exists()
    assert set(os.listdir()) == before


@pytest.mark.parametrize(
    ("payload", "problem"),
    [
        ("{{ ''.__class__.x }}", "access to attribute '__class__' of 'str' object is unsafe"),
        ("{{ 'x'.encode() }}", "access to attribute 'encode' of 'str' object is unsafe"),
        ("{% set ns = namespace(_x=1) %}", "a namespace may not have the attribute '_x'"),
        ("{{ ('{0}'|safe).format(1) }}", "a text marked as safe may not be formatted"),
        ("{% include 'x' %}", "a chat template may not load another template"),
    ],
)
def test_what_is_refused_is_said(payload: str, problem: str) -> None:
    with pytest.raises(TemplateError) as caught:
        render_template(payload, [], add_generation_prompt=True, bos_token="", eos_token="")
    assert f"stopped at line 1 for what templates may not do: {problem}; choose another" in str(caught.value)
