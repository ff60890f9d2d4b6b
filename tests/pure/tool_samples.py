"""Answers that call tools, as the authors of the models document them, and what they mean.

Sources: the templates of the models (`tests/data/templates` and the larger set), their model cards, and the published
descriptions of the formats (Meta's Llama 3.1 prompt format page, OpenAI's Harmony guide, Kimi's tool guide, DeepSeek's
encoding notes, NousResearch's Hermes function calling).
"""

from __future__ import annotations

from typing import Any, NamedTuple

from quipu.chat.tools import FORMATS, ToolFormat, read_tools


def function(name: str, **properties: Any) -> dict[str, Any]:
    parameters = {"type": "object", "properties": properties, "required": list(properties)[:1]}
    return {"type": "function", "function": {"name": name, "description": "", "parameters": parameters}}


TOOLS = [
    function("get_weather", city={"type": "string"}, days={"type": "integer"}),
    function("add", a={"type": "number"}, b={"type": "number"}),
    function("search", query={"type": "string"}, filters={"type": "object"}, exact={"type": "boolean"}),
    function("python", code={"type": "string"}),
    function("ping"),
]
OFFERED = read_tools(TOOLS)


class Sample(NamedTuple):
    """An answer, the text in it, and the calls: name and arguments."""

    family: str
    text: str
    content: str
    calls: tuple[tuple[str, dict[str, Any]], ...]
    prompt: str = ""
    ids: tuple[str, ...] | None = None  # those that the model writes


ROME = ("get_weather", {"city": "Rome"})
ROME_2 = ("get_weather", {"city": "Rome", "days": 2})
SUM = ("add", {"a": 1, "b": 2.5})


def format_named(name: str) -> ToolFormat:
    return next(tool_format for tool_format in FORMATS if tool_format.name == name)


SAMPLES = [
    # Hermes 2 Pro, Qwen 2.5, Qwen 3, Granite 4
    Sample("hermes", '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Rome"}}\n</tool_call>', "", (ROME,)),
    Sample(
        "hermes",
        'I will look.\n<tool_call>\n{"name": "get_weather", "arguments": {"city": "Rome"}}\n</tool_call>\n'
        '<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": 2.5}}\n</tool_call>',
        "I will look.",
        (ROME, SUM),
    ),
    Sample("hermes", '<tool_call>{"arguments": {"city": "Rome"}, "name": "get_weather"}</tool_call>', "", (ROME,)),
    Sample(
        "hermes",
        '<tool_call>\n{"name": "get_weather", "arguments": "{\\"city\\": \\"Rome\\"}"}\n</tool_call>',
        "",
        (ROME,),
    ),
    Sample("hermes", '<tool_call>\n{"name": "ping"}\n</tool_call>', "", (("ping", {}),)),
    Sample("hermes", '<tool_call>\n{"name": "ping", "arguments": null}\n</tool_call>', "", (("ping", {}),)),
    Sample(
        "hermes",
        '<tool_call>\n{"type": "function", "function": {"name": "get_weather", "arguments": {"city": "Rome"}}}\n'
        "</tool_call>",
        "",
        (ROME,),
    ),
    # no closing tag: the end of the turn stands in its place
    Sample("hermes", '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Rome"}}', "", (ROME,)),
    Sample(
        "hermes", '<tool_call>\n{"name": "unknown_tool", "arguments": {}}\n</tool_call>', "", (("unknown_tool", {}),)
    ),
    # Qwen3-Coder, Nemotron 3 Nano, Step 3.5
    Sample(
        "qwen3-coder",
        "<tool_call>\n<function=get_weather>\n<parameter=city>\nRome\n</parameter>\n<parameter=days>\n2\n</parameter>\n"
        "</function>\n</tool_call>",
        "",
        (ROME_2,),
    ),
    Sample(
        "qwen3-coder",
        "Two:\n<tool_call>\n<function=get_weather>\n<parameter=city>\nRome\n</parameter>\n</function>\n</tool_call>\n"
        "<tool_call>\n<function=add>\n<parameter=a>\n1\n</parameter>\n<parameter=b>\n2.5\n</parameter>\n</function>\n"
        "</tool_call>",
        "Two:",
        (ROME, SUM),
    ),
    Sample("qwen3-coder", "<function=ping>\n</function>\n</tool_call>", "", (("ping", {}),)),
    Sample(
        "qwen3-coder",
        '<tool_call>\n<function=search>\n<parameter=query>\n</parameter> or\n\n"quotes" \\ and <b>\n</parameter>\n'
        '<parameter=filters>\n{"tags": ["<a>", "}"], "x": null}\n</parameter>\n<parameter=exact>\nTrue\n</parameter>\n'
        "</function>\n</tool_call>",
        "",
        (
            (
                "search",
                {
                    "query": '</parameter> or\n\n"quotes" \\ and <b>',
                    "filters": {"tags": ["<a>", "}"], "x": None},
                    "exact": True,
                },
            ),
        ),
    ),
    # Seed-OSS: as Qwen3-Coder, on one line, and objects as Python prints them
    Sample(
        "seed",
        "<seed:tool_call>\n<function=search>\n<parameter=query>007</parameter>\n"
        "<parameter=filters>{'a': [1, True, None], \"b\": 'it\\'s'}</parameter>\n</function>\n</seed:tool_call>",
        "",
        (("search", {"query": "007", "filters": {"a": [1, True, None], "b": "it's"}}),),
    ),
    # MiniMax M2
    Sample(
        "minimax-m2",
        '<minimax:tool_call>\n<invoke name="get_weather">\n<parameter name="city">Rome</parameter>\n</invoke>\n'
        '<invoke name="add">\n<parameter name="a">1</parameter>\n<parameter name="b">2.5</parameter>\n</invoke>\n'
        "</minimax:tool_call>",
        "",
        (ROME, SUM),
    ),
    # DeepSeek V4 and V3.2
    Sample(
        "deepseek-v4",
        '\n\n<｜DSML｜tool_calls>\n<｜DSML｜invoke name="get_weather">\n'
        '<｜DSML｜parameter name="city" string="true">Rome</｜DSML｜parameter>\n'
        '<｜DSML｜parameter name="days" string="false">2</｜DSML｜parameter>\n</｜DSML｜invoke>\n</｜DSML｜tool_calls>',
        "",
        (ROME_2,),
    ),
    Sample(
        "deepseek-v4",
        '<｜DSML｜function_calls>\n<｜DSML｜invoke name="unknown">\n'
        '<｜DSML｜parameter name="n" string="true">12</｜DSML｜parameter>\n'
        '<｜DSML｜parameter name="m" string="false">[1, 2]</｜DSML｜parameter>\n</｜DSML｜invoke>\n'
        "</｜DSML｜function_calls>",
        "",
        (("unknown", {"n": "12", "m": [1, 2]}),),
    ),
    # GLM 4.5 and 4.6, Laguna
    Sample(
        "glm",
        "\n<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Rome</arg_value>\n<arg_key>days</arg_key>\n"
        "<arg_value>2</arg_value>\n</tool_call>\n<tool_call>ping\n</tool_call>",
        "",
        (ROME_2, ("ping", {})),
    ),
    Sample("glm", "<tool_call>get_weather<arg_key>city</arg_key><arg_value>Rome</arg_value></tool_call>", "", (ROME,)),
    # MiniMax M1, Apriel, Granite 3.3, Phi-4-mini, firefunction
    Sample(
        "minimax-m1",
        '<tool_calls>\n{"name": "get_weather", "arguments": {"city": "Rome"}}\n'
        '{"name": "add", "arguments": {"a": 1, "b": 2.5}}\n</tool_calls>',
        "",
        (ROME, SUM),
    ),
    Sample(
        "apriel",
        '\n<tool_calls>[{"name": "get_weather", "arguments": {"city": "Rome"}, "id": "a1"}, '
        '{"name": "add", "arguments": {"a": 1, "b": 2.5}, "id": "a2"}]</tool_calls>',
        "",
        (ROME, SUM),
    ),
    Sample("granite", '<|tool_call|>[{"name": "get_weather", "arguments": {"city": "Rome"}}]', "", (ROME,)),
    Sample("phi", '<|tool_call|>[{"name": "get_weather", "arguments": {"city": "Rome"}}]<|/tool_call|>', "", (ROME,)),
    Sample(
        "firefunction",
        ' functools[{"name": "get_weather", "arguments": {"city": "Rome"}}, '
        '{"name": "add", "arguments": {"a": 1, "b": 2.5}}]',
        "",
        (ROME, SUM),
    ),
    # Mistral: the list (v3 templates), and names before arguments (v11 and later)
    Sample(
        "mistral-list",
        '[TOOL_CALLS][{"name": "get_weather", "arguments": {"city": "Rome"}, "id": "call00001"}]',
        "",
        (ROME,),
    ),
    Sample("mistral", '[TOOL_CALLS] [{"name": "get_weather", "arguments": {"city": "Rome"}}]', "", (ROME,)),
    Sample(
        "mistral",
        '[TOOL_CALLS]get_weather[CALL_ID]a1B2c3D4e[ARGS]{"city": "Rome"}[TOOL_CALLS]add[CALL_ID]f5G6h7I8j[ARGS]'
        '{"a": 1, "b": 2.5}',
        "",
        (ROME, SUM),
        ids=("a1B2c3D4e", "f5G6h7I8j"),
    ),
    Sample("mistral", 'Let me see.[TOOL_CALLS]get_weather[ARGS]{"city": "Rome"}', "Let me see.", (ROME,)),
    # Cohere Command R7B, and Command R+
    Sample(
        "cohere",
        '<|START_ACTION|>[\n    {"tool_call_id": "0", "tool_name": "get_weather", "parameters": {"city": "Rome"}},\n'
        '    {"tool_call_id": "1", "tool_name": "add", "parameters": {"a": 1, "b": 2.5}}\n]<|END_ACTION|>',
        "",
        (ROME, SUM),
    ),
    Sample(
        "cohere-action",
        '\nAction:\n```json\n[\n    {\n        "tool_name": "get_weather",\n        "parameters": {\n'
        '            "city": "Rome"\n        }\n    }\n]```\n',
        "",
        (ROME,),
    ),
    # Apertus, GigaChat 3
    Sample(
        "apertus",
        '<|tools_prefix|>[{"get_weather": {"city": "Rome"}}, {"add": {"a": 1, "b": 2.5}}]<|tools_suffix|>',
        "",
        (ROME, SUM),
    ),
    Sample(
        "gigachat",
        '<|message_sep|>\n\nfunction call<|role_sep|>\n{"name": "get_weather", "arguments": {"city": "Rome"}}',
        "",
        (ROME,),
    ),
    # DeepSeek V3 and R1, V3.1
    Sample(
        "deepseek-v3",
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n```json\n"
        '{"city": "Rome"}\n```<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>add\n```json\n'
        '{"a": 1, "b": 2.5}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>',
        "",
        (ROME, SUM),
    ),
    Sample(
        "deepseek-v3.1",
        '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>{"city": "Rome"}<｜tool▁call▁end｜>'
        '<｜tool▁call▁begin｜>add<｜tool▁sep｜>{"a": 1, "b": 2.5}<｜tool▁call▁end｜><｜tool▁calls▁end｜>',
        "",
        (ROME, SUM),
    ),
    # Kimi K2
    Sample(
        "kimi",
        "<|tool_calls_section_begin|><|tool_call_begin|>functions.get_weather:0<|tool_call_argument_begin|>"
        '{"city": "Rome"}<|tool_call_end|><|tool_call_begin|>functions.add:1<|tool_call_argument_begin|>'
        '{"a": 1, "b": 2.5}<|tool_call_end|><|tool_calls_section_end|>',
        "",
        (ROME, SUM),
        ids=("functions.get_weather:0", "functions.add:1"),
    ),
    # functionary 3.1 and 3.2
    Sample(
        "functionary-v3.1",
        '<function=get_weather>{"city": "Rome"}</function><function=add>{"a": 1, "b": 2.5}</function>',
        "",
        (ROME, SUM),
    ),
    Sample("functionary-v3.2", 'get_weather\n{"city": "Rome"}>>>add\n{"a": 1, "b": 2.5}', "", (ROME, SUM), ">>>"),
    Sample("functionary-v3.2", 'all\nLet me look.>>>get_weather\n{"city": "Rome"}', "Let me look.", (ROME,), ">>>"),
    Sample("functionary-v3.2", "all\nHello!", "Hello!", (), ">>>"),
    # gpt-oss, behind the reasoning parser, which leaves messages to tools as they are
    Sample(
        "harmony",
        "<|start|>assistant<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>"
        '{"city": "Rome"}<|call|>',
        "",
        (ROME,),
    ),
    Sample("harmony", ' to=functions.get_weather<|channel|>commentary json<|message|>{"city": "Rome"}', "", (ROME,)),
    # Gemma 4
    Sample(
        "gemma",
        '<|tool_call>call:search{exact:true,filters:{a:[1,<|"|>x,}<|"|>],b:{}},query:<|"|>it\'s "here"\n<|"|>}'
        "<tool_call|><|tool_call>call:ping{}<tool_call|>",
        "",
        (
            ("search", {"exact": True, "filters": {"a": [1, "x,}"], "b": {}}, "query": 'it\'s "here"\n'}),
            ("ping", {}),
        ),
    ),
    # LFM2
    Sample(
        "pythonic",
        '<|tool_call_start|>[get_weather(city="Rome", days=2), search(query=\'a "b"\', exact=False), ping()]'
        "<|tool_call_end|>Done.",
        "Done.",
        (ROME_2, ("search", {"query": 'a "b"', "exact": False}), ("ping", {})),
    ),
    # Llama 3.x
    Sample("llama", '{"name": "get_weather", "parameters": {"city": "Rome"}}', "", (ROME,)),
    Sample(
        "llama",
        '<|python_tag|>{"name": "get_weather", "parameters": {"city": "Rome"}}; '
        '{"name": "add", "parameters": {"a": 1, "b": 2.5}}',
        "",
        (ROME, SUM),
    ),
    Sample(
        "llama",
        '<|python_tag|>search.call(query="a, b", exact=True)',
        "",
        (("search", {"query": "a, b", "exact": True}),),
    ),
    Sample("llama", '<|python_tag|>print("1")\nx = {1}', "", (("python", {"code": 'print("1")\nx = {1}'}),)),
    # none of the families
    Sample("generic", '```json\n{"name": "get_weather", "arguments": {"city": "Rome"}}\n```', "", (ROME,)),
    Sample("generic", '[{"name": "get_weather", "parameters": {"city": "Rome"}}]', "", (ROME,)),
]
