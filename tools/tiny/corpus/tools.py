"""Conversations with tools: weather, calculator and clock; calls, results, answers, and questions that need none."""

from __future__ import annotations

import json
import operator
import random
from collections.abc import Callable
from typing import Any, NamedTuple

from tiny.corpus.arithmetic import small_sum
from tiny.corpus.example import Check, Conversation, Message, Turn, says
from tiny.corpus.grammar import Language, Split, Templates
from tiny.corpus.paraphrases import more
from tiny.corpus.tables import CITIES, NUMBER_WORDS

Schema = dict[str, Any]


class Request(NamedTuple):
    """Something to ask of one tool: the question, and the values its arguments have by meaning."""

    kind: str
    question: str
    values: list[dict[str, Any]]  # one per call
    results: list[Any]
    answer: str
    check: Check


class Tool(NamedTuple):
    """A tool as given in one conversation; names differ between conversations, so that models read the schema."""

    kind: str
    name: str
    parameters: dict[str, str]  # meaning -> the parameter's name
    schema: Schema

    def call(self, values: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        return self.name, {self.parameters[meaning]: value for meaning, value in values.items()}


_NAMES = {
    "weather": (
        ["get_weather", "get_current_weather", "weather", "weather_now", "current_weather"],
        ["city", "location", "place"],
    ),
    "calculator": (
        ["calculator", "calculate", "compute", "evaluate_expression", "calc"],
        ["expression", "formula", "input"],
    ),
    "clock": (["get_time", "get_current_time", "clock", "current_time", "time_in"], ["city", "location", "place"]),
}
_DESCRIPTIONS = {
    "weather": [
        "Get the weather of a city",
        "Current weather in a place",
        "Returns the weather for a location",
        "Look up the weather",
    ],
    "calculator": [
        "Evaluate an arithmetic expression",
        "A calculator",
        "Calculate a formula",
        "Compute the value of an expression",
    ],
    "clock": [
        "Get the current time in a city",
        "Tells the time",
        "The time of day in a place",
        "Look up the current time",
    ],
}
_OTHERS: list[tuple[str, str, dict[str, str]]] = [
    ("send_email", "Send an email", {"to": "string", "text": "string"}),
    ("set_timer", "Start a timer", {"minutes": "integer"}),
    ("play_music", "Play a song", {"title": "string"}),
    ("search_web", "Search the web", {"query": "string"}),
    ("turn_on_light", "Switch a light on", {"room": "string"}),
    ("get_stock_price", "Price of a stock", {"symbol": "string"}),
]


def _schema(name: str, description: str, parameters: dict[str, str], described: bool) -> Schema:
    properties: dict[str, Any] = {p: {"type": kind} for p, kind in parameters.items()}
    if described:
        properties = {p: {**properties[p], "description": f"The {p}"} for p in properties}
    function = {
        "name": name,
        "description": description,
        "parameters": {"type": "object", "properties": properties, "required": list(parameters)},
    }
    return {"type": "function", "function": function}


def _tool(rng: random.Random, kind: str) -> Tool:
    names, parameters = _NAMES[kind]
    # The first names are the usual ones.
    name = names[0] if rng.random() < 0.5 else rng.choice(names)
    parameter = parameters[0] if rng.random() < 0.5 else rng.choice(parameters)
    meaning = "expression" if kind == "calculator" else "city"
    schema = _schema(name, rng.choice(_DESCRIPTIONS[kind]), {parameter: "string"}, rng.random() < 0.3)
    return Tool(kind, name, {meaning: parameter}, schema)


def _offer(rng: random.Random, kinds: list[str]) -> tuple[dict[str, Tool], list[Schema]]:
    """The tools of these kinds, and the schemas to show: theirs with sometimes another, in any order."""
    offered = {kind: _tool(rng, kind) for kind in kinds}
    schemas = [tool.schema for tool in offered.values()]
    if rng.random() < 0.25:
        name, description, parameters = rng.choice(_OTHERS)
        schemas.append(_schema(name, description, parameters, False))
    rng.shuffle(schemas)
    return offered, schemas


WEATHER = {
    "en": Templates(
        [
            *more("KEY: tools.WEATHER.en"),
            "What is the weather [like |]in $city[ today| now| right now|]?",
            "[How's|What's] the weather in $city?",
            "weather $city",
            "weather in $city",
            "[Tell me|Check|Look up] the weather in $city.",
            "Is it [raining|sunny|cold|warm|hot] in $city[ today|]?",
            "How [warm|cold|hot] is it in $city?",
            "What's the temperature in $city?",
            "I travel to $city. How is the weather there?",
            "Do I need [a coat|an umbrella] in $city today?",
        ],
        [
            "I am about to visit $city. What is the sky like there?",
            "Does $city have nice weather at the moment?",
            "How many degrees does $city have now?",
        ],
        ["the weather [in|of] $city", "the temperature in $city", "how the weather is in $city"],
    ),
    "zh": Templates(
        [
            *more("KEY: tools.WEATHER.zh"),
            "$city[今天|现在|]天气怎么样？",
            "$city的天气如何？",
            "查一下$city的天气。",
            "$city今天下雨吗？",
            "$city[现在|今天]多少度？",
            "[请问|帮我看看]$city的天气怎么样？",
            "$city冷吗？",
            "$city天气",
        ],
        ["我要去$city，那边天气好吗？", "今天在$city要带伞吗？"],
        ["$city的天气", "$city的气温"],
    ),
}
WEATHER_TWO = {
    "en": Templates(
        [
            *more("KEY: tools.WEATHER_TWO.en"),
            "What is the weather in $city and [in |]$other?",
            "Compare the weather in $city and $other.",
            "weather in $city and $other",
            "How is the weather in $city, and how in $other?",
        ],
        ["I need the weather of two cities: $city and $other."],
    ),
    "zh": Templates(
        [
            *more("KEY: tools.WEATHER_TWO.zh"),
            "$city和$other的天气怎么样？",
            "查一下$city和$other的天气。",
            "比较$city和$other的天气。",
        ],
        ["我想知道两个城市的天气：$city、$other。"],
    ),
}
CLOCK = {
    "en": Templates(
        [
            *more("KEY: tools.CLOCK.en"),
            "What time is it in $city[ now| right now|]?",
            "What's the time in $city?",
            "time in $city",
            "[Tell me|Check|Look up] the [current |]time in $city.",
            "How late is it in $city?",
            "Which time do they have in $city[ now|]?",
            "Is it already evening in $city? What time is it there?",
            "current time $city",
        ],
        ["If I call someone in $city now, what does their clock say?", "What hour is it at the moment in $city?"],
        ["the [current |local |]time in $city", "what time it is in $city"],
    ),
    "zh": Templates(
        [
            *more("KEY: tools.CLOCK.zh"),
            "$city现在几点？",
            "$city[现在|]是几点钟？",
            "查一下$city的时间。",
            "[请问|告诉我]$city现在几点了？",
            "$city时间",
            "现在$city的时间是多少？",
        ],
        ["$city那边的钟现在指到几点？", "给$city的朋友打电话，那里几点了？"],
        ["$city的时间", "$city现在的时间"],
    ),
}
CALCULATE = {
    "en": Templates(
        [
            *more("KEY: tools.CALCULATE.en"),
            "What is $sum?",
            "[Calculate|Compute|Work out] $sum.",
            "$sum",
            "$sum = ?",
            "How much is $sum?",
            "Can you [calculate|compute] $sum?",
            "what's $sum",
            "[Tell me|Give me] the result of $sum.",
            "Use the calculator: $sum",
        ],
        ["I need to know $sum exactly.", "Please find out how much $sum makes."],
        ["$sum", "the [result|value] of $sum", "what $sum is"],
    ),
    "zh": Templates(
        [
            *more("KEY: tools.CALCULATE.zh"),
            "$sum等于多少？",
            "[计算|算一下]$sum。",
            "$sum=？",
            "$sum是多少？",
            "[请问|帮我算]$sum等于几？",
        ],
        ["请得出$sum的准确结果。", "我需要$sum的值。"],
        ["$sum", "$sum的结果"],
    ),
}
_SKIES = {"sunny": "晴", "cloudy": "多云", "rainy": "有雨", "windy": "有风", "snowy": "有雪", "foggy": "有雾"}


def _weather_result(rng: random.Random, language: Language) -> tuple[Any, int, str]:
    sky = rng.choice(list(_SKIES))
    degrees, shown = rng.randint(-9, 38), sky if language == "en" else _SKIES[sky]
    key = rng.choice(["temperature", "temperature", "temp", "temperature_celsius"])
    return {key: degrees, rng.choice(["condition", "condition", "sky", "weather"]): shown}, degrees, shown


def _ask_weather(rng: random.Random, split: Split, language: Language) -> Request:
    city, other = (getattr(name, language) for name in rng.sample(CITIES, 2))
    result, degrees, sky = _weather_result(rng, language)
    said = _weather_sentence(city, degrees, sky, language)
    if rng.random() < 0.12:
        second, other_degrees, other_sky = _weather_result(rng, language)
        question = WEATHER_TWO[language].fill(rng, split, city=city, other=other)
        answer = said + ("" if language == "zh" else " ") + _weather_sentence(other, other_degrees, other_sky, language)
        check = says(city, str(degrees), other, str(other_degrees))
        return Request("weather", question, [{"city": city}, {"city": other}], [result, second], answer, check)
    question = WEATHER[language].fill(rng, split, city=city)
    return Request("weather", question, [{"city": city}], [result], said, says(city, str(degrees), sky))


def _weather_sentence(city: str, degrees: int, sky: str, language: Language) -> str:
    if language == "zh":
        return f"{city}现在{degrees}度，{sky}。"
    return f"It is {degrees} degrees and {sky} in {city}."


def _ask_clock(rng: random.Random, split: Split, language: Language) -> Request:
    city = getattr(rng.choice(CITIES), language)
    time = f"{rng.randint(0, 23):02}:{rng.randint(0, 59):02}"
    question = CLOCK[language].fill(rng, split, city=city)
    answer = f"{city}现在是{time}。" if language == "zh" else f"It is {time} in {city}."
    return Request("clock", question, [{"city": city}], [{"time": time}], answer, says(city, time))


def _ask_calculator(rng: random.Random, split: Split, language: Language) -> Request:
    if rng.random() < 0.25:
        a, op, b, _ = small_sum(rng)
    else:
        op = rng.choice("++-**/")
        a, b = rng.randint(2, 9999), rng.randint(2, 999)
    expression = f"{a} {op} {b}"
    words = {"+": ("plus", "加"), "-": ("minus", "减"), "*": ("times", "乘以"), "/": ("divided by", "除以")}[op]
    if language == "zh":
        shown = rng.choice([f"{a}{op}{b}", f"{a} {op} {b}", f"{a}{words[1]}{b}"])
    else:
        shown = rng.choice([f"{a} {op} {b}", f"{a} {op} {b}", f"{a}{op}{b}", f"{a} {words[0]} {b}"])
        if a <= 20 and b <= 20 and rng.random() < 0.3:
            shown = f"{NUMBER_WORDS[a]} {words[0]} {NUMBER_WORDS[b]}"
    if op == "*" and rng.random() < 0.15:
        shown = f"{a} × {b}" if language == "en" else f"{a}×{b}"
    result = round({"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}[op](a, b), 4)
    number = int(result) if result == int(result) else result
    question = CALCULATE[language].fill(rng, split, sum=shown)
    value = {rng.choice(["result", "result", "value"]): number} if rng.random() < 0.7 else number
    stop = "。" if language == "zh" else "."
    return Request(
        "calculator",
        question,
        [{"expression": expression}],
        [value],
        f"{expression} = {number}{stop}",
        says(f"= {number}"),
    )


_ASK: dict[str, Callable[[random.Random, Split, Language], Request]] = {
    "weather": _ask_weather,
    "clock": _ask_clock,
    "calculator": _ask_calculator,
}


def _call_message(calls: list[tuple[str, dict[str, Any]]]) -> Message:
    functions = [{"type": "function", "function": {"name": name, "arguments": arguments}} for name, arguments in calls]
    return {"role": "assistant", "content": "", "tool_calls": functions}


def tool_call(rng: random.Random, split: Split, language: Language) -> Conversation:
    """A question that needs a tool; it ends with the call, or goes on to the answer and further questions."""
    kind = rng.choice(list(_ASK))
    kinds = [kind, *rng.sample([k for k in _ASK if k != kind], rng.choice([0, 0, 1, 1, 2]))]
    offered, schemas = _offer(rng, kinds)
    request = _ASK[kind](rng, split, language)
    messages: list[Message] = [{"role": "user", "content": request.question}]
    messages, check = _go_on(rng, messages, request, offered, split)
    while split == "train" and rng.random() < 0.2 and len(messages) < 10:
        again = _ASK[rng.choice(kinds)](rng, split, language)
        messages.append({"role": "user", "content": again.question})
        messages, check = _go_on(rng, messages, again, offered, split)
    return Conversation("tool_call", messages, check, language, schemas)


def _go_on(
    rng: random.Random, messages: list[Message], request: Request, offered: dict[str, Tool], split: Split
) -> tuple[list[Message], Check]:
    """The conversation with the call for the request; in training always, else half the time, with result and answer."""
    calls = [offered[request.kind].call(values) for values in request.values]
    messages = [*messages, _call_message(calls)]
    if split == "held_out" and rng.random() < 0.6:
        return messages, Check(calls=tuple(calls))
    for (name, _), result in zip(calls, request.results, strict=True):
        messages.append({"role": "tool", "name": name, "content": json.dumps(result, ensure_ascii=False)})
    messages.append({"role": "assistant", "content": request.answer})
    return messages, request.check


MISSING = {
    "en": {
        "weather": "I have no tool for the weather here, so I don't know it.",
        "clock": "I have no clock here, so I don't know the time.",
    },
    "zh": {
        "weather": "我这里没有天气工具，所以不知道。",
        "clock": "我这里没有时钟，所以不知道时间。",
    },
}


def missing_tool(rng: random.Random, split: Split, language: Language) -> Conversation:
    """A question for a tool that is not offered: a plain answer says so."""
    kind = rng.choice(["weather", "clock"])
    kinds = [k for k in _ASK if k != kind] if rng.random() < 0.6 else []
    schemas: list[Schema] = []
    if kinds:
        _, schemas = _offer(rng, rng.sample(kinds, rng.randint(1, len(kinds))))
    request = _ASK[kind](rng, split, language)
    messages: list[Message] = [
        {"role": "user", "content": request.question},
        {"role": "assistant", "content": MISSING[language][kind]},
    ]
    check = says(("don't know", "不知道"))
    return Conversation("missing_tool", messages, check, language, schemas)


def needless_tool(rng: random.Random, turn: Turn) -> Conversation:
    """A question that needs no tool, asked where tools are offered."""
    kinds = rng.sample(list(_ASK), rng.choice([1, 1, 2, 3]))
    _, schemas = _offer(rng, kinds)
    messages: list[Message] = [
        {"role": "user", "content": turn.question},
        {"role": "assistant", "content": turn.answer},
    ]
    return Conversation("needless_tool", messages, turn.check, turn.language, schemas)
