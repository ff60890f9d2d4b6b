"""DeepSeek V3, R1 and V3.1: marks that are tokens of their own.

V3 and R1 fence the arguments, V3.1 does not:

    <｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather
    ```json
    {"city": "Rome"}
    ```<｜tool▁call▁end｜><｜tool▁calls▁end｜>

    <｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>{"city": "Rome"}<｜tool▁call▁end｜>
    <｜tool▁calls▁end｜>
"""

from __future__ import annotations

from quipu.chat.tools.named_calls import NamedFormat

_SECTION, _SECTION_END = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"
_CALL, _SEPARATOR, _CALL_END = "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁call▁end｜>"
_MARKERS = (_SECTION, _CALL, _SEPARATOR, _CALL_END, _SECTION_END)
# Distilled models, whose vocabularies lack these tokens, spell the marks in these ways, too.
_SPELLINGS = (_SECTION, "<｜tool_calls_begin｜>", "<｜tool calls begin｜>", "<｜tool\\_calls\\_begin｜>")

DEEPSEEK_V3 = NamedFormat(
    "deepseek-v3",
    _SPELLINGS,
    "\n```json\n",
    call_begin=_CALL,
    head="function" + _SEPARATOR,
    call_ends=("\n```" + _CALL_END, "```" + _CALL_END, "```", _CALL_END),
    section_ends=(_SECTION_END,),
    markers=_MARKERS,
    ends_reasoning=True,
)
DEEPSEEK_V31 = NamedFormat(
    "deepseek-v3.1",
    _SPELLINGS,
    _SEPARATOR,
    call_begin=_CALL,
    call_ends=(_CALL_END,),
    section_ends=(_SECTION_END,),
    markers=_MARKERS,
    ends_reasoning=True,
)
