"""Conversations whose last question only makes sense with what came before."""

from __future__ import annotations

import random
from collections.abc import Callable

from tiny.corpus.arithmetic import small_sum
from tiny.corpus.example import Check, Conversation, Message, Turn, says
from tiny.corpus.facts import BIG_CITY, CAPITAL, SOUND
from tiny.corpus.grammar import Language, Split, Templates, articles
from tiny.corpus.paraphrases import more
from tiny.corpus.tables import ANIMALS, CHINESE_NAMES, CITIES, COUNTRIES, FIRST_NAMES, JOBS, WORDS
from tiny.corpus.words import TO_CHINESE, TO_ENGLISH

Exchange = tuple[str, str]
Follow = Callable[[random.Random, Split, Language], tuple[list[Exchange], Check]]

NEXT = {
    "en": Templates(
        [
            *more("KEY: multiturn.NEXT.en"),
            "And of $item?",
            "And $item?",
            "What about $item?",
            "and for $item",
            "The same for $item[, please|].",
            "How about $item?",
        ],
        ["Now the same question for $item.", "OK, and if I ask about $item?"],
    ),
    "zh": Templates(
        [*more("KEY: multiturn.NEXT.zh"), "那$item呢？", "$item呢？", "那么$item呢？", "$item又如何？"],
        ["换成$item怎么样？", "同样的问题，$item呢？"],
    ),
}
IT_BIG = {
    "en": Templates(
        [
            *more("KEY: multiturn.IT_BIG.en"),
            "Is it a big city?",
            "Is it big?",
            "Is that a [big|large] city?",
            "Is this city big?",
            "How big is it?",
        ],
        ["Does it count as a big city?", "Would you call that a large city?"],
    ),
    "zh": Templates(
        [*more("KEY: multiturn.IT_BIG.zh"), "它是大城市吗？", "这个城市大吗？", "它大吗？", "那里是大城市吗？"],
        ["它算不算大城市？", "那个城市很大吗？"],
    ),
}


def next_capital(rng: random.Random, split: Split, language: Language) -> tuple[list[Exchange], Check]:
    first, second = rng.sample(COUNTRIES, 2)
    name, other = getattr(first.name, language), getattr(second.name, language)
    answers = [
        f"{country.name.zh}的首都是{country.capital.zh}。"
        if language == "zh"
        else f"The capital of {country.name.en} is {country.capital.en}."
        for country in (first, second)
    ]
    exchanges = [
        (CAPITAL[language].fill(rng, split, country=name), answers[0]),
        (NEXT[language].fill(rng, split, item=other), answers[1]),
    ]
    return exchanges, says(getattr(second.capital, language))


def it_is_big(rng: random.Random, split: Split, language: Language) -> tuple[list[Exchange], Check]:
    country = rng.choice(COUNTRIES)
    city, big = getattr(country.capital, language), country.is_capital_big
    if language == "zh":
        first = f"{country.name.zh}的首都是{city}。"
        last = f"是的，{city}是一座大城市。" if big else f"不是，{city}不算大城市，它比较小。"
        check = says("大城市", city, none=["不是", "不算"]) if big else says(("不是", "不算"), city)
    else:
        first = f"The capital of {country.name.en} is {city}."
        last = f"Yes, {city} is a big city." if big else f"No, {city} is a rather small city."
        check = says("yes" if big else "no", city)
    question = CAPITAL[language].fill(rng, split, country=getattr(country.name, language))
    return [(question, first), (IT_BIG[language].fill(rng, split), last)], check


def next_big(rng: random.Random, split: Split, language: Language) -> tuple[list[Exchange], Check]:
    exchanges, check = [], Check()
    for index, country in enumerate(rng.sample(COUNTRIES, 2)):
        city, big = getattr(country.capital, language), country.is_capital_big
        question = (
            (NEXT[language].fill(rng, split, item=city)) if index else BIG_CITY[language].fill(rng, split, city=city)
        )
        if language == "zh":
            exchanges.append(
                (question, f"是的，{city}是一座大城市。" if big else f"不是，{city}不算大城市，它比较小。")
            )
            check = says("是的" if big else "不是", city)
        else:
            exchanges.append(
                (question, f"Yes, {city} is a big city." if big else f"No, {city} is a rather small city.")
            )
            check = says("yes" if big else "no", city)
    return exchanges, check


def next_sound(rng: random.Random, split: Split, language: Language) -> tuple[list[Exchange], Check]:
    exchanges, check = [], Check()
    for index, animal in enumerate(rng.sample([a for a in ANIMALS if a.sound], 2)):
        assert animal.sound is not None
        name, sound = getattr(animal.name, language), getattr(animal.sound, language)
        item = articles(f"a {name}") if language == "en" else name
        question = (
            NEXT[language].fill(rng, split, item=item) if index else SOUND[language].fill(rng, split, animal=name)
        )
        exchanges.append(
            (question, f"{name}的叫声是“{sound}”。" if language == "zh" else articles(f'A {name} says "{sound}".'))
        )
        check = says(sound)
    return exchanges, check


def next_word(rng: random.Random, split: Split, language: Language) -> tuple[list[Exchange], Check]:
    exchanges, check = [], Check()
    to_chinese = rng.random() < 0.5
    for index, word in enumerate(rng.sample(WORDS, 2)):
        source, target = (word.en, word.zh) if to_chinese else (word.zh, word.en)
        ask = (TO_CHINESE if to_chinese else TO_ENGLISH)[language]
        question = NEXT[language].fill(rng, split, item=source) if index else ask.fill(rng, split, word=source)
        if language == "zh":
            exchanges.append((question, f"“{source}”的{'中文' if to_chinese else '英文'}是“{target}”。"))
        else:
            exchanges.append((question, f'"{source}" in {"Chinese" if to_chinese else "English"} is "{target}".'))
        check = says(target)
    return exchanges, check


MY_NAME = {
    "en": Templates(
        [
            *more("KEY: multiturn.MY_NAME.en"),
            "My name is $name.",
            "I am $name.",
            "Hi, I'm $name.",
            "Hello, my name is $name!",
            "I am called $name.",
            "Call me $name.",
        ],
        ["You can call me $name.", "People know me as $name."],
    ),
    "zh": Templates(
        [*more("KEY: multiturn.MY_NAME.zh"), "我叫$name。", "我的名字是$name。", "你好，我是$name。", "叫我$name吧。"],
        ["大家都叫我$name。", "我名叫$name。"],
    ),
}
ASK_NAME = {
    "en": Templates(
        [
            *more("KEY: multiturn.ASK_NAME.en"),
            "What is my name?",
            "Who am I?",
            "Do you remember my name?",
            "What am I called?",
            "what's my name",
            "Say my name.",
        ],
        ["Tell me how I am called.", "Which name did I tell you?"],
        ["my name", "the name that I told you"],
    ),
    "zh": Templates(
        [*more("KEY: multiturn.ASK_NAME.zh"), "我叫什么名字？", "我是谁？", "你记得我的名字吗？", "我叫什么？"],
        ["我刚才说我叫什么？", "你还想得起我的名字吗？"],
        ["我的名字", "我叫什么"],
    ),
}
MY_FACT = {
    "en": Templates(
        [
            *more("KEY: multiturn.MY_FACT.en"),
            "I live in $city.",
            "I am from $city.",
            "My home is in $city.",
            "I come from $city.",
        ],
        ["$city is where I live.", "I have a house in $city."],
    ),
    "zh": Templates(
        [*more("KEY: multiturn.MY_FACT.zh"), "我住在$city。", "我来自$city。", "我的家在$city。"],
        ["$city是我的家乡。", "我家就在$city。"],
    ),
}
ASK_FACT = {
    "en": Templates(
        [
            *more("KEY: multiturn.ASK_FACT.en"),
            "Where do I live?",
            "Where am I from?",
            "Where is my home?",
            "Which city do I live in?",
        ],
        ["Do you remember my city?", "In what place is my home?"],
        ["my [city|home]", "the city I live in", "where I live"],
    ),
    "zh": Templates(
        [*more("KEY: multiturn.ASK_FACT.zh"), "我住在哪里？", "我来自哪里？", "我的家在哪里？", "我住在哪个城市？"],
        ["你记得我的城市吗？", "我家在什么地方？"],
        ["我的城市", "我住的地方"],
    ),
}
MY_JOB = {
    "en": Templates(
        [*more("KEY: multiturn.MY_JOB.en"), "I am a $job.", "I work as a $job.", "My job is $job.", "I'm a $job."],
        ["By profession I am a $job.", "They pay me as a $job."],
    ),
    "zh": Templates(
        [*more("KEY: multiturn.MY_JOB.zh"), "我是一名$job。", "我的职业是$job。", "我是$job。"],
        ["我当$job。", "我的工作是$job。"],
    ),
}
ASK_JOB = {
    "en": Templates(
        [
            *more("KEY: multiturn.ASK_JOB.en"),
            "What is my job?",
            "What do I work as?",
            "What's my profession?",
            "Do you remember my job?",
        ],
        ["By what work do I earn money?", "Say what my profession is."],
        ["my [job|profession]", "the work that I do"],
    ),
    "zh": Templates(
        [*more("KEY: multiturn.ASK_JOB.zh"), "我的职业是什么？", "我做什么工作？", "你记得我的职业吗？"],
        ["我是干什么的？", "你还想得起我的职业吗？"],
        ["我的职业", "我的工作是什么"],
    ),
}


def personal(rng: random.Random, split: Split, language: Language) -> tuple[list[Exchange], Check]:
    """What a user told about themselves, asked for later."""
    name = rng.choice(FIRST_NAMES if language == "en" else CHINESE_NAMES)
    city, job = getattr(rng.choice(CITIES), language), getattr(rng.choice(JOBS), language)
    if language == "en":
        facts = {
            "name": (MY_NAME["en"], ASK_NAME["en"], f"Nice to meet you, {name}!", f"Your name is {name}.", name),
            "city": (MY_FACT["en"], ASK_FACT["en"], f"{city} is a nice place.", f"You live in {city}.", city),
            "job": (MY_JOB["en"], ASK_JOB["en"], "That is a fine job.", articles(f"You work as a {job}."), job),
        }
    else:
        facts = {
            "name": (MY_NAME["zh"], ASK_NAME["zh"], f"很高兴认识你，{name}！", f"你叫{name}。", name),
            "city": (MY_FACT["zh"], ASK_FACT["zh"], f"{city}是个好地方。", f"你住在{city}。", city),
            "job": (MY_JOB["zh"], ASK_JOB["zh"], "这是一份好工作。", f"你的职业是{job}。", job),
        }
    told = rng.sample(list(facts), rng.randint(1, 3))
    exchanges = [(facts[key][0].fill(rng, split, name=name, city=city, job=job), facts[key][2]) for key in told]
    _, ask, _, answer, word = facts[rng.choice(told)]
    return [*exchanges, (ask.fill(rng, split), answer)], says(word)


FURTHER_SUM = {
    "en": Templates(
        [
            *more("KEY: multiturn.FURTHER_SUM.en"),
            "[Add|Now add|And add] $n.",
            "plus $n",
            "And plus $n?",
            "Now $n more.",
        ],
        ["Put $n on top of that.", "Increase it by $n."],
    ),
    "zh": Templates(
        [*more("KEY: multiturn.FURTHER_SUM.zh"), "再加$n。", "加上$n呢？", "然后加$n。"], ["在此基础上增加$n。"]
    ),
}
START_SUM = {
    "en": Templates(
        [
            *more("KEY: multiturn.START_SUM.en"),
            "What is $a + $b?",
            "$a + $b",
            "How much is $a plus $b?",
            "Calculate $a + $b.",
        ],
        ["If you take $a + $b, what do you get?"],
    ),
    "zh": Templates(
        [*more("KEY: multiturn.START_SUM.zh"), "$a+$b等于多少？", "$a加$b是多少？", "计算$a+$b。"],
        ["帮我算$a+$b的结果。"],
    ),
}


def further_sum(rng: random.Random, split: Split, language: Language) -> tuple[list[Exchange], Check]:
    a, b, n = rng.randint(0, 10), rng.randint(0, 10), rng.randint(1, 10)
    stop = "." if language == "en" else "。"
    exchanges = [
        (START_SUM[language].fill(rng, split, a=a, b=b), f"{a} + {b} = {a + b}{stop}"),
        (FURTHER_SUM[language].fill(rng, split, n=n), f"{a + b} + {n} = {a + b + n}{stop}"),
    ]
    return exchanges, says(f"= {a + b + n}")


ASKED = {
    "en": Templates(
        [
            *more("KEY: multiturn.ASKED.en"),
            "What did I [just |]ask[ you|]?",
            "What was my [last |]question?",
            "Repeat my question.",
            "Say again what I asked.",
        ],
        ["Which question did I put to you before?", "Can you quote my previous question?"],
    ),
    "zh": Templates(
        [*more("KEY: multiturn.ASKED.zh"), "我刚才问了什么？", "我的问题是什么？", "重复我的问题。"],
        ["我上一句问的是什么？", "你能重复我之前的提问吗？"],
    ),
}


def asked(rng: random.Random, split: Split, language: Language) -> tuple[list[Exchange], Check]:
    a, op, b, result = small_sum(rng)
    stop = "." if language == "en" else "。"
    if rng.random() < 0.5:
        country = rng.choice(COUNTRIES)
        topic = f"the capital of {country.name.en}" if language == "en" else f"{country.name.zh}的首都"
        question = CAPITAL[language].fill(rng, split, country=getattr(country.name, language))
        answer = (
            f"The capital of {country.name.en} is {country.capital.en}."
            if language == "en"
            else f"{country.name.zh}的首都是{country.capital.zh}。"
        )
    else:
        sign = {"+": "+", "-": "-", "*": "×", "/": "÷"}[op]
        topic = f"{a} {sign} {b}"
        question = f"What is {a} {sign} {b}?" if language == "en" else f"{a} {sign} {b}等于多少？"
        answer = f"{topic} = {result}{stop}"
    last = f"You asked about {topic}." if language == "en" else f"你问了{topic}。"
    return [(question, answer), (ASKED[language].fill(rng, split), last)], says(topic)


FOLLOW_UPS: dict[str, tuple[Follow, float]] = {
    "next_capital": (next_capital, 3),
    "it_is_big": (it_is_big, 3),
    "next_big": (next_big, 1),
    "next_sound": (next_sound, 1),
    "next_word": (next_word, 2),
    "personal": (personal, 5),
    "further_sum": (further_sum, 2),
    "asked": (asked, 1.5),
}


def follow_up(rng: random.Random, split: Split, language: Language) -> Conversation:
    name = rng.choices(list(FOLLOW_UPS), [weight for _, weight in FOLLOW_UPS.values()])[0]
    exchanges, check = FOLLOW_UPS[name][0](rng, split, language)
    return Conversation("multi_turn", to_messages(exchanges), check, language)


def chain(rng: random.Random, turns: list[Turn]) -> Conversation:
    """Independent turns one after the other, as people chat."""
    messages = to_messages([(turn.question, turn.answer) for turn in turns])
    return Conversation("chain", messages, turns[-1].check, turns[-1].language)


def to_messages(exchanges: list[Exchange]) -> list[Message]:
    messages: list[Message] = []
    for question, answer in exchanges:
        messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return messages
