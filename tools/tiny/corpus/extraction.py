"""Facts in a sentence into JSON of a given schema."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any, NamedTuple

from tiny.corpus.example import Check, Turn
from tiny.corpus.grammar import Language, Split, Templates
from tiny.corpus.paraphrases import more
from tiny.corpus.tables import CHINESE_NAMES, CITIES, COLOURS, DAYS, FIRST_NAMES, JOBS


class Field(NamedTuple):
    type: str  # of JSON Schema
    en: str
    zh: str


class Domain(NamedTuple):
    """A kind of record: its fields, sentences that tell one, and how to draw it."""

    fields: dict[str, Field]
    sentences: dict[str, Templates]  # in exact words, as a missing "euros" may make a number ambiguous
    draw: Callable[[random.Random, Language], dict[str, Any]]


def _person(rng: random.Random, language: Language) -> dict[str, Any]:
    city, job = rng.choice(CITIES), rng.choice(JOBS)
    return {
        "name": rng.choice(FIRST_NAMES) if language == "en" else rng.choice(CHINESE_NAMES),
        "age": rng.randint(18, 90),
        "city": getattr(city, language),
        "job": getattr(job, language),
    }


_PRODUCTS = {
    "apple": "苹果",
    "book": "书",
    "chair": "椅子",
    "lamp": "台灯",
    "shirt": "衬衫",
    "cup": "杯子",
    "bag": "包",
    "clock": "钟",
    "pen": "笔",
    "table": "桌子",
    "hat": "帽子",
    "phone": "手机",
}


def _order(rng: random.Random, language: Language) -> dict[str, Any]:
    product, colour = rng.choice(list(_PRODUCTS)), rng.choice(list(COLOURS))
    return {
        "product": product if language == "en" else _PRODUCTS[product],
        "color": colour if language == "en" else COLOURS[colour],
        "quantity": rng.randint(2, 40),
        "price": rng.randint(2, 500),
    }


_EVENTS = {
    "meeting": "会议",
    "concert": "音乐会",
    "party": "聚会",
    "lesson": "课程",
    "dinner": "晚餐",
    "football match": "足球比赛",
    "exhibition": "展览",
    "wedding": "婚礼",
}


def _event(rng: random.Random, language: Language) -> dict[str, Any]:
    event = rng.choice(list(_EVENTS))
    return {
        "event": event if language == "en" else _EVENTS[event],
        "day": getattr(rng.choice(DAYS), language),
        "hour": rng.randint(1, 23),
        "place": getattr(rng.choice(CITIES), language),
    }


_SKIES = {"sunny": "晴", "cloudy": "多云", "rainy": "下雨", "windy": "有风", "snowy": "下雪", "foggy": "有雾"}


def _report(rng: random.Random, language: Language) -> dict[str, Any]:
    sky = rng.choice(list(_SKIES))
    return {
        "city": getattr(rng.choice(CITIES), language),
        "temperature": rng.randint(0, 38),
        "condition": sky if language == "en" else _SKIES[sky],
    }


DOMAINS = [
    Domain(
        {
            "name": Field("string", "the name", "名字"),
            "age": Field("integer", "the age in years", "年龄"),
            "city": Field("string", "where they live", "城市"),
            "job": Field("string", "the profession", "职业"),
        },
        {
            "en": Templates(
                [
                    "$name is $age years old, lives in $city and works as a $job.",
                    "$name, $age, is a $job from $city.",
                    "My friend $name from $city is a $job and $age years old.",
                    "The $job $name lives in $city. [The age is|Age:] $age.",
                    "I am $name, a $job of $age from $city.",
                    "In $city I met $name, who is $age and works as a $job.",
                    "$name ($age, $city) is a $job.",
                    "A $job of $age years, $name, wrote to us from $city.",
                    "We looked for a $job and found $name in $city, $age years old.",
                    "$city, $age, $job: that is $name.",
                    "Do you know $name? A $job, $age, and born in $city.",
                    "Since last year $name has been a $job in $city, at the age of $age.",
                    "Her name is $name. She is $age, works as a $job, and her home is $city.",
                ],
                [
                    "At $age, $name still works as a $job in $city.",
                    "This is $name from $city. Age $age. Profession: $job.",
                ],
                exact=True,
            ),
            "zh": Templates(
                [
                    "$name今年$age岁，住在$city，是一名$job。",
                    "我叫$name，$age岁，来自$city，职业是$job。",
                    "$job$name住在$city，今年$age岁。",
                    "在$city，我认识了$age岁的$job$name。",
                    "$name（$age岁，$city）是$job。",
                    "$city有一位$job叫$name，$age岁了。",
                    "你认识$name吗？职业$job，$age岁，家在$city。",
                ],
                ["来自$city的$name是$job，年龄$age岁。", "$age岁的$name在$city当$job。"],
                exact=True,
            ),
        },
        _person,
    ),
    Domain(
        {
            "product": Field("string", "what is ordered", "商品"),
            "color": Field("string", "its color", "颜色"),
            "quantity": Field("integer", "how many", "数量"),
            "price": Field("integer", "price in euros", "价格"),
        },
        {
            "en": Templates(
                [
                    "I order $quantity pieces of the $color $product for $price euros.",
                    "Please send me the $color $product, $quantity pieces, at $price euros.",
                    "Order: $product, $color, quantity $quantity, price $price euros.",
                    "We bought $quantity times the $product in $color and paid $price euros.",
                    "The $color $product costs $price euros, and I take $quantity of them.",
                    "$price euros for $quantity pieces of $product ($color).",
                    "My order: $quantity x $product, $color. Price: $price.",
                    "How about $quantity of the $product in $color for $price euros?",
                    "The shop sent $quantity $color items of the type $product, at $price euros.",
                    "A $color $product, $quantity times, please. The bill says $price euros.",
                ],
                [
                    "For $price euros we would like $quantity of the $product, color $color.",
                    "$quantity of the $color $product, please. You said $price euros.",
                ],
                exact=True,
            ),
            "zh": Templates(
                [
                    "我要订$quantity个$color的$product，价格$price元。",
                    "请寄给我$color的$product，$quantity个，$price元。",
                    "订单：$product，$color，数量$quantity，价格$price元。",
                    "我们花$price元买了$quantity个$color的$product。",
                    "$color$product，$quantity个，一共$price元。",
                    "商店寄来$quantity个$product，颜色是$color，$price元。",
                ],
                [
                    "$price元，$quantity个，要$color的$product。",
                    "您好，需要$product$quantity个，颜色$color，共$price元。",
                ],
                exact=True,
            ),
        },
        _order,
    ),
    Domain(
        {
            "event": Field("string", "what happens", "活动"),
            "day": Field("string", "day of the week", "星期几"),
            "hour": Field("integer", "hour of the day", "几点"),
            "place": Field("string", "the city", "地点"),
        },
        {
            "en": Templates(
                [
                    "The $event is on $day at $hour o'clock in $place.",
                    "On $day we have a $event in $place. It begins at $hour.",
                    "Come to $place for the $event on $day at $hour!",
                    "Reminder: $event in $place, $day, $hour o'clock.",
                    "There will be a $event at $hour on $day, and the place is $place.",
                    "$day, $hour o'clock, $place: $event.",
                    "We meet in $place for the $event. Time: $day at $hour.",
                    "Do not forget the $event in $place, $day at $hour o'clock.",
                    "From $hour o'clock on there is a $event, this $day, in $place.",
                    "Our next $event takes place in $place on $day ($hour o'clock).",
                ],
                ["At $hour on $day the $event starts in $place.", "$place, $day: a $event from $hour on."],
                exact=True,
            ),
            "zh": Templates(
                [
                    "$event在$day$hour点举行，地点是$place。",
                    "$day我们在$place有$event，$hour点开始。",
                    "提醒：$event，$place，$day，$hour点。",
                    "欢迎$day$hour点来$place参加$event！",
                    "$day，$hour点，$place：$event。",
                    "别忘了$place的$event，时间是$day$hour点。",
                ],
                ["$place的$event定在$day$hour点。", "$hour点开始的$event，$day，在$place。"],
                exact=True,
            ),
        },
        _event,
    ),
    Domain(
        {
            "city": Field("string", "the city", "城市"),
            "temperature": Field("integer", "degrees Celsius", "温度"),
            "condition": Field("string", "the sky", "天气"),
        },
        {
            "en": Templates(
                [
                    "In $city it is $condition today, at $temperature degrees.",
                    "It is $temperature degrees and $condition in $city.",
                    "$city: $condition, $temperature degrees.",
                    "The weather in $city is $condition, and we have $temperature degrees.",
                    "Today: $temperature degrees, $condition ($city).",
                    "$condition and $temperature degrees, that is $city today.",
                    "People in $city enjoy $temperature degrees. The sky is $condition.",
                    "For $city we expect $condition weather with $temperature degrees.",
                ],
                [
                    "A $condition day in $city with $temperature degrees.",
                    "They report $temperature degrees for $city, and it stays $condition.",
                ],
                exact=True,
            ),
            "zh": Templates(
                [
                    "$city今天$condition，$temperature度。",
                    "今天$city的天气是$condition，气温$temperature度。",
                    "$city：$condition，$temperature度。",
                    "今天$temperature度，$condition，$city。",
                    "在$city，气温是$temperature度，天气$condition。",
                ],
                ["气温$temperature度，$condition，这里是$city。", "据报道，$city$condition，温度为$temperature度。"],
                exact=True,
            ),
        },
        _report,
    ),
]
ASK_FIELDS = {
    "en": Templates(
        [
            *more("KEY: extraction.ASK_FIELDS.en"),
            "Extract $fields as JSON: $text",
            "Extract $fields from this text as JSON.\n\n$text",
            "[Return|Give me|Write] JSON with $fields.\nText: $text",
            "Text: $text\nFill in a JSON object with the keys $fields.",
            "Turn this into JSON with the keys $fields: $text",
            '"$text" [Give|Return] $fields as a JSON object.',
            "Read the text and answer with JSON only ($fields).\n$text",
            "$text\n\n[Find|Get|Pick out] $fields. JSON only.",
            "JSON please: $fields. The text is: $text",
            "I need $fields as JSON. $text",
            "What are $fields here? $text Use JSON.",
            "Take $fields from the text and write them as JSON.\n$text",
            "Keys: $fields\nText: $text\nOutput: JSON",
        ],
        ["$text\nPlease put $fields into a JSON object.", "Which $fields do you find here? Reply in JSON. $text"],
    ),
    "zh": Templates(
        [
            *more("KEY: extraction.ASK_FIELDS.zh"),
            "从下面的文字中提取$fields，用JSON回答：$text",
            "提取$fields，返回JSON。\n$text",
            "$text\n请把$fields写成JSON。",
            "文字：$text\n用JSON给出$fields。",
            "把这句话变成JSON，键是$fields：$text",
            "$text\n找出$fields，写成JSON。",
            "我要$fields，JSON格式。$text",
            "键：$fields\n文字：$text\n输出JSON",
            "$text 其中$fields是多少？用JSON。",
        ],
        ["读一读：$text 然后以JSON格式列出$fields。", "$text 这里的$fields是什么？请输出JSON。"],
    ),
}
ASK_SCHEMA = {
    "en": Templates(
        [
            *more("KEY: extraction.ASK_SCHEMA.en"),
            "Extract the data as JSON that follows this schema: $schema\n\nText: $text",
            "JSON schema:\n$schema\nText: $text\n[Fill in the schema.|Answer with JSON only.]",
            "$text\nAnswer with a JSON object for the schema $schema",
            "Use this JSON schema: $schema\nExtract from: $text",
            "Schema: $schema\n$text",
            "Text: $text\nSchema: $schema\nJSON:",
            "Write a JSON object for this schema: $schema The text: $text",
            "I need data for this schema.\n$schema\nIt is in this text: $text",
        ],
        [
            "Here is a schema: $schema\nWhat would the JSON for this text be? $text",
            'Parse "$text" according to $schema',
        ],
    ),
    "zh": Templates(
        [
            *more("KEY: extraction.ASK_SCHEMA.zh"),
            "按照这个JSON schema提取信息：$schema\n文字：$text",
            "JSON schema：$schema\n$text\n只用JSON回答。",
            "$text\n请按schema $schema 输出JSON。",
            "schema：$schema\n文字：$text\nJSON：",
            "用这个schema：$schema 文字是：$text",
        ],
        ["模式如下：$schema\n请把“$text”转成JSON。", "根据$schema解析这句话：$text"],
    ),
}


def extraction(rng: random.Random, split: Split, language: Language) -> Turn:
    domain = rng.choice(DOMAINS)
    record = domain.draw(rng, language)
    text = domain.sentences[language].fill(rng, split, **record)
    names = rng.sample(list(domain.fields), rng.randint(2, len(domain.fields)))
    value = {name: record[name] for name in names}
    if rng.random() < 0.45:
        question = ASK_SCHEMA[language].fill(rng, split, schema=_schema(rng, domain, names), text=text)
    else:
        listed = ", ".join(names) if rng.random() < 0.6 else f"{', '.join(names[:-1])} and {names[-1]}"
        question = ASK_FIELDS[language].fill(rng, split, fields=listed, text=text)
    thought = f"The keys are {', '.join(names)}." if language == "en" else f"要的键是{'、'.join(names)}。"
    return Turn(question, json.dumps(value, ensure_ascii=False), Check(json_value=value), language, thought)


def _schema(rng: random.Random, domain: Domain, names: list[str]) -> str:
    properties: dict[str, dict[str, str]] = {name: {"type": domain.fields[name].type} for name in names}
    if rng.random() < 0.3:
        properties = {name: {**properties[name], "description": domain.fields[name].en} for name in names}
    schema: dict[str, Any] = {"type": "object", "properties": properties}
    if rng.random() < 0.6:
        schema["required"] = names
    return json.dumps(schema, ensure_ascii=False)
