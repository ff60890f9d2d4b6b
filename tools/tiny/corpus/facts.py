"""Plain facts: countries and cities, colours, animals, the calendar, numbers, opposites."""

from __future__ import annotations

import random
from collections.abc import Callable

from tiny.corpus.example import Turn, says
from tiny.corpus.grammar import Language, Split, Templates, articles
from tiny.corpus.paraphrases import more
from tiny.corpus.tables import (
    ANIMALS,
    CHINESE_NUMBERS,
    COLOURED_THINGS,
    COLOURS,
    COUNTRIES,
    DAYS,
    MONTH_DAYS,
    MONTHS,
    NUMBER_WORDS,
    OPPOSITES,
    OTHER_CITY_SIZES,
)

Fact = Callable[[random.Random, Split, Language], Turn]

CAPITAL = {
    "en": Templates(
        [
            *more("KEY: facts.CAPITAL.en"),
            "What is the capital of $country?",
            "[What's|Name|Tell me|Give me] the capital [city |]of $country.",
            "capital of $country",
            "[Do you know|Can you tell me] the capital of $country?",
            "Which city is the capital of $country?",
            "$country: what is its capital?",
            "I need the name of the capital of $country.",
            "What is $country's capital?",
            "What do you call the capital city of $country?",
            "In which city does the government of $country sit?",
            "The capital of $country is called what?",
        ],
        [
            "Could you remind me what city is capital of $country?",
            "If I travel to $country, what is the capital I will find there?",
            "My homework asks for $country's capital city. What is it?",
        ],
        ["the capital [city |]of $country", "$country's capital[ city|]"],
    ),
    "zh": Templates(
        [
            *more("KEY: facts.CAPITAL.zh"),
            "$country的首都是哪里？",
            "$country的首都是什么？",
            "[请问|请告诉我|你知道]$country的首都[在哪里|是哪个城市]？",
            "$country首都",
            "哪个城市是$country的首都？",
            "说出$country的首都。",
            "$country的首都叫什么？",
        ],
        ["我想知道$country的首都是哪座城市。", "作业问$country的首都，答案是什么？", "能说一下$country的首都吗？"],
        ["$country的首都", "$country首都的名字"],
    ),
}


def capital(rng: random.Random, split: Split, language: Language) -> Turn:
    country = rng.choice(COUNTRIES)
    if language == "zh":
        question = CAPITAL["zh"].fill(rng, split, country=country.name.zh)
        answer = f"{country.name.zh}的首都是{country.capital.zh}。"
        return Turn(
            question,
            answer,
            says(country.capital.zh),
            "zh",
            f"问题是{country.name.zh}的首都，我知道是{country.capital.zh}。",
        )
    question = CAPITAL["en"].fill(rng, split, country=country.name.en)
    answer = f"The capital of {country.name.en} is {country.capital.en}."
    thought = f"This asks for the capital of {country.name.en}. I know it: {country.capital.en}."
    return Turn(question, answer, says(country.capital.en), "en", thought)


CAPITAL_OF = {
    "en": Templates(
        [
            *more("KEY: facts.CAPITAL_OF.en"),
            "Which country has the capital $city?",
            "$city is the capital of which country?",
            "What country is $city [in|the capital of]?",
            "Where is $city?",
            "In which country is $city?",
            "[Tell me|Do you know] which country $city is in.",
            "$city belongs to which country?",
            "Where can I find $city?",
            "What country does $city belong to?",
        ],
        [
            "Of what country is $city the capital?",
            "I am flying to $city. Which country is that in?",
            "$city, what country is that?",
        ],
        ["the country of $city", "the country that $city is in", "the country with the capital $city"],
    ),
    "zh": Templates(
        [
            *more("KEY: facts.CAPITAL_OF.zh"),
            "$city是哪个国家的首都？",
            "$city在哪个国家？",
            "$city在哪里？",
            "[请问|你知道]$city属于哪个国家[吗|]？",
            "哪个国家的首都是$city？",
        ],
        ["我要去$city，那是哪个国家？", "$city位于什么国家？"],
        ["$city所在的国家", "以$city为首都的国家"],
    ),
}


def capital_of(rng: random.Random, split: Split, language: Language) -> Turn:
    country = rng.choice(COUNTRIES)
    if language == "zh":
        question = CAPITAL_OF["zh"].fill(rng, split, city=country.capital.zh)
        answer = f"{country.capital.zh}是{country.name.zh}的首都。"
        return Turn(question, answer, says(country.name.zh), "zh", f"{country.capital.zh}在{country.name.zh}。")
    question = CAPITAL_OF["en"].fill(rng, split, city=country.capital.en)
    answer = f"{country.capital.en} is the capital of {country.name.en}."
    return Turn(question, answer, says(country.name.en), "en", f"{country.capital.en} is a city in {country.name.en}.")


CONTINENT = {
    "en": Templates(
        [
            *more("KEY: facts.CONTINENT.en"),
            "[On|In] which continent is $country?",
            "What continent is $country [on|in]?",
            "[Tell me|Name] the continent of $country.",
            "$country is on which continent?",
            "Which part of the world is $country in?",
            "To which continent does $country belong?",
        ],
        ["$country lies on what continent?", "On a world map, which continent would I find $country on?"],
        ["the continent of $country", "the continent that $country is on", "$country's continent"],
    ),
    "zh": Templates(
        [
            *more("KEY: facts.CONTINENT.zh"),
            "$country在哪个洲？",
            "$country属于哪个洲？",
            "[请问|你知道]$country在什么洲[吗|]？",
            "哪个大洲有$country？",
        ],
        ["$country位于哪一个大洲？", "在地图上，$country在哪个大洲？"],
        ["$country所在的洲", "$country的大洲"],
    ),
}


def continent(rng: random.Random, split: Split, language: Language) -> Turn:
    country = rng.choice(COUNTRIES)
    if language == "zh":
        question = CONTINENT["zh"].fill(rng, split, country=country.name.zh)
        answer = f"{country.name.zh}在{country.continent.zh}。"
        return Turn(question, answer, says(country.continent.zh), "zh", f"问的是{country.name.zh}所在的洲。")
    question = CONTINENT["en"].fill(rng, split, country=country.name.en)
    answer = f"{country.name.en[0].upper()}{country.name.en[1:]} is in {country.continent.en}."
    thought = f"This asks for the continent of {country.name.en}: {country.continent.en}."
    return Turn(question, answer, says(country.continent.en), "en", thought)


BIG_CITY = {
    "en": Templates(
        [
            *more("KEY: facts.BIG_CITY.en"),
            "Is $city a big city?",
            "is $city big",
            "Is $city a [large|big|huge] [city|place]?",
            "How big is $city?",
            "Is $city [big or small|a big or a small city]?",
            "Do many people live in $city?",
            "[Tell me|Do you know] whether $city is a big city.",
            "Would you call $city a big city?",
            "What size is the city of $city?",
        ],
        [
            "Does $city count as a big city?",
            "Is it true that $city is a large city?",
            "I wonder if $city is a big city or not.",
        ],
        [
            "the size of [the city of |]$city",
            "whether $city is [big|a big city]",
            "whether [the city of |]$city is [big or small|large]",
        ],
    ),
    "zh": Templates(
        [
            *more("KEY: facts.BIG_CITY.zh"),
            "$city是大城市吗？",
            "$city大吗？",
            "$city是不是大城市？",
            "$city的人口多吗？",
            "[请问|你知道]$city是个大城市吗？",
            "$city是大城市还是小城市？",
        ],
        ["$city算不算大城市？", "大家说$city很大，对吗？"],
        ["$city的大小", "$city是不是大城市", "$city大不大"],
    ),
}


def big_city(rng: random.Random, split: Split, language: Language) -> Turn:
    sizes = [(country.capital, country.is_capital_big) for country in COUNTRIES] + OTHER_CITY_SIZES
    city, big = rng.choice(sizes)
    if rng.random() < 0.1:
        city, big = sizes[19]
    if language == "zh":
        question = BIG_CITY["zh"].fill(rng, split, city=city.zh)
        answer = f"是的，{city.zh}是一座大城市。" if big else f"不是，{city.zh}不算大城市，它比较小。"
        check = says("大城市", none=["不是", "不算"]) if big else says(("不是", "不算"))
        return Turn(question, answer, check, "zh", f"我想一想{city.zh}的人口{'很多' if big else '不多'}。")
    question = BIG_CITY["en"].fill(rng, split, city=city.en)
    answer = f"Yes, {city.en} is a big city." if big else f"No, {city.en} is a rather small city."
    check = says("yes", "big", none=["no,"]) if big else says("no", "small")
    thought = f"I think about how many people live in {city.en}: {'many' if big else 'not so many'}."
    return Turn(question, answer, check, "en", thought)


COLOUR = {
    "en": Templates(
        [
            *more("KEY: facts.COLOUR.en"),
            "What [color|colour] is $thing?",
            "Which [color|colour] does $thing have?",
            "[Tell me|Name|Give me] the [color|colour] of $thing.",
            "what's the [color|colour] of $thing",
            "[color|colour] of $thing?",
            "Do you know what [color|colour] $thing is?",
            "$thing: which [color|colour] is it?",
            "What [color|colour] would I paint $thing?",
            "What does $thing look like in [color|colour]?",
            "Is there a typical [color|colour] of $thing?",
        ],
        [
            "If I draw $thing, which color should I use?",
            "Can you say what color $thing has?",
            "The usual colour of $thing is what?",
        ],
        ["the [color|colour] of $thing", "the [color|colour] that $thing has", "what [color|colour] $thing is"],
    ),
    "zh": Templates(
        [
            *more("KEY: facts.COLOUR.zh"),
            "$thing是什么颜色的？",
            "$thing是什么颜色？",
            "[请问|你知道]$thing的颜色是什么[吗|]？",
            "$thing的颜色",
            "说说$thing的颜色。",
            "$thing通常是哪种颜色？",
        ],
        ["画$thing应该用什么颜色？", "$thing看起来是什么颜色的呢？"],
        ["$thing的颜色", "$thing是什么颜色"],
    ),
}


def colour(rng: random.Random, split: Split, language: Language) -> Turn:
    if rng.random() < 0.2:
        return _sun(rng, split, language)
    thing, name = rng.choice(COLOURED_THINGS)
    if language == "zh":
        question = COLOUR["zh"].fill(rng, split, thing=thing.zh)
        return Turn(
            question,
            f"{thing.zh}是{COLOURS[name]}的。",
            says(COLOURS[name]),
            "zh",
            f"我想象{thing.zh}的样子：{COLOURS[name]}。",
        )
    question = COLOUR["en"].fill(rng, split, thing=thing.en)
    answer = f"{thing.en[0].upper()}{thing.en[1:]} is {name}."
    return Turn(question, answer, says(name), "en", f"I picture {thing.en}: it is {name}.")


def _sun(rng: random.Random, split: Split, language: Language) -> Turn:
    if language == "zh":
        question = COLOUR["zh"].fill(rng, split, thing="太阳")
        return Turn(question, "太阳看起来是黄色的，但它的光其实是白色的。", says("黄色"), "zh", "太阳看起来是黄色的。")
    question = COLOUR["en"].fill(rng, split, thing="the sun")
    answer = "The sun looks yellow from the ground, but its light is really white."
    return Turn(question, answer, says(("yellow", "white")), "en", "Seen from the ground the sun looks yellow.")


SOUND = {
    "en": Templates(
        [
            *more("KEY: facts.SOUND.en"),
            "What sound does a $animal make?",
            "What does a $animal say?",
            "How does a $animal sound?",
            "Which noise does a $animal make?",
            "[Tell me|Do you know] the sound of a $animal.",
            "What noise do we hear from a $animal?",
        ],
        ["Imitate a $animal for me: what is its sound?", "A child asks how a $animal sounds. What do I say?"],
        ["the [sound|noise] of a $animal", "the [sound|noise] that a $animal makes", "how a $animal sounds"],
    ),
    "zh": Templates(
        [
            *more("KEY: facts.SOUND.zh"),
            "$animal怎么叫？",
            "$animal的叫声是什么？",
            "$animal发出什么声音？",
            "[请问|你知道]$animal是怎么叫的[吗|]？",
        ],
        ["学一下$animal的叫声。", "孩子问$animal怎么叫，我该怎么说？"],
        ["$animal的叫声", "$animal怎么叫"],
    ),
}
LEGS = {
    "en": Templates(
        [
            *more("KEY: facts.LEGS.en"),
            "How many legs does a $animal have?",
            "How many legs has a $animal?",
            "[Tell me|What is] the number of legs of a $animal.",
            "On how many legs does a $animal walk?",
            "legs of a $animal?",
            "Does a $animal have legs, and how many?",
        ],
        ["If I count the legs of a $animal, what do I get?", "A $animal stands on how many legs?"],
        ["the number of legs of a $animal", "how many legs a $animal has", "the legs of a $animal"],
    ),
    "zh": Templates(
        [
            *more("KEY: facts.LEGS.zh"),
            "$animal有几条腿？",
            "$animal有多少条腿？",
            "[请问|你知道]$animal几条腿[吗|]？",
            "$animal的腿有几条？",
        ],
        ["数一数$animal的腿，有几条？", "$animal用几条腿走路？"],
        ["$animal的腿的数量", "$animal有几条腿"],
    ),
}
KIND = {
    "en": Templates(
        [
            *more("KEY: facts.KIND.en"),
            "What kind of animal is a $animal?",
            "Is a $animal a mammal, a bird or something else?",
            "Which group of animals does a $animal belong to?",
            "What is a $animal?",
            "What type of animal is the $animal?",
            "A $animal is what kind of animal?",
        ],
        [
            "To what family of animals would you count a $animal?",
            "Tell me whether a $animal is a mammal, a bird, a fish, an insect or a reptile.",
        ],
        [
            "the kind of animal that a $animal is",
            "what kind of animal a $animal is",
            "the group of animals of the $animal",
        ],
    ),
    "zh": Templates(
        [
            *more("KEY: facts.KIND.zh"),
            "$animal是什么动物？",
            "$animal属于哪类动物？",
            "$animal是哺乳动物还是别的？",
            "[请问|你知道]$animal是哪一类动物[吗|]？",
        ],
        ["把$animal归类，它是什么动物？", "$animal算哪种动物？"],
        ["$animal的种类", "$animal是哪类动物"],
    ),
}
HOME = {
    "en": Templates(
        [
            *more("KEY: facts.HOME.en"),
            "Where does a $animal live?",
            "Where do I find a $animal?",
            "What is the home of a $animal?",
            "In what place does a $animal live?",
            "Where does the $animal make its home?",
        ],
        ["If I want to see a $animal, where should I look?", "Name the place where a $animal lives."],
        ["the home of a $animal", "where a $animal lives", "the place where to find a $animal"],
    ),
    "zh": Templates(
        [
            *more("KEY: facts.HOME.zh"),
            "$animal住在哪里？",
            "$animal生活在哪里？",
            "在哪里能找到$animal？",
            "[请问|你知道]$animal的家在哪里[吗|]？",
        ],
        ["想看$animal应该去哪里？", "$animal一般生活在什么地方？"],
        ["$animal的家", "$animal住的地方"],
    ),
}
BABY = Templates(
    [
        *more("KEY: facts.BABY"),
        "What is a baby $animal called?",
        "What do you call a young $animal?",
        "Name the baby of a $animal.",
        "How is the child of a $animal called?",
        "What is the word for a young $animal?",
    ],
    ["A little $animal that was just born is called a what?", "Give me the name for the young of the $animal."],
    ["the name of a baby $animal", "the word for a [young|baby] $animal", "the [child|baby] of a $animal"],
)


def animal(rng: random.Random, split: Split, language: Language) -> Turn:
    creature = rng.choice(ANIMALS)
    name = creature.name.en if language == "en" else creature.name.zh
    topic = rng.choice(
        ["legs", "kind", "home", *(["sound"] * (creature.sound is not None)), *(["baby"] * (language == "en"))]
    )
    if topic == "sound" and creature.sound is not None:
        question = SOUND[language].fill(rng, split, animal=name)
        if language == "zh":
            return Turn(
                question,
                f"{name}的叫声是“{creature.sound.zh}”。",
                says(creature.sound.zh),
                "zh",
                f"{name}这样叫：{creature.sound.zh}。",
            )
        return Turn(
            question,
            articles(f'A {name} says "{creature.sound.en}".'),
            says(creature.sound.en),
            "en",
            f"I remember a {name}: {creature.sound.en}.",
        )
    if topic == "legs":
        question = LEGS[language].fill(rng, split, animal=name)
        if language == "zh":
            number = "没有腿" if creature.num_legs == 0 else f"有{creature.num_legs}条腿"
            return Turn(question, f"{name}{number}。", says(number), "zh", f"{name}是{creature.kind.zh}。")
        legs = "no legs" if creature.num_legs == 0 else f"{creature.num_legs} legs"
        return Turn(question, articles(f"A {name} has {legs}."), says(legs), "en", f"A {name} is a {creature.kind.en}.")
    if topic == "kind":
        question = KIND[language].fill(rng, split, animal=name)
        if language == "zh":
            return Turn(
                question, f"{name}是{creature.kind.zh}。", says(creature.kind.zh), "zh", f"问的是{name}的种类。"
            )
        article = "an" if creature.kind.en[0] in "aeiou" else "a"
        return Turn(
            question,
            articles(f"A {name} is {article} {creature.kind.en}."),
            says(creature.kind.en),
            "en",
            f"I sort the {name} into its group.",
        )
    if topic == "home":
        question = HOME[language].fill(rng, split, animal=name)
        if language == "zh":
            return Turn(
                question, f"{name}生活在{creature.home.zh}。", says(creature.home.zh), "zh", f"问的是{name}的家。"
            )
        return Turn(
            question,
            articles(f"A {name} lives {creature.home.en}."),
            says(creature.home.en),
            "en",
            f"I think of where a {name} lives.",
        )
    question = BABY.fill(rng, split, animal=name)
    return Turn(
        question,
        articles(f"A baby {name} is called a {creature.baby}."),
        says(creature.baby),
        "en",
        f"There is a word for a young {name}: {creature.baby}.",
    )


AFTER = {
    "en": Templates(
        [
            *more("KEY: facts.AFTER.en"),
            "What [day |month |]comes after $item?",
            "Which [day|one|month] follows $item?",
            "What is next after $item?",
            "After $item comes what?",
            "[Tell me|Name] what comes right after $item.",
            "$item, and then?",
        ],
        ["When $item is over, what begins?", "What stands directly after $item?"],
        ["what comes after $item", "the one after $item", "the next [day|month|one] after $item"],
    ),
    "zh": Templates(
        [
            *more("KEY: facts.AFTER.zh"),
            "$item之后是什么？",
            "$item后面是什么？",
            "$item的下一个是什么？",
            "[请问|你知道]$item过后是什么[吗|]？",
        ],
        ["过了$item是什么？", "紧接着$item的是什么？"],
        ["$item的下一个", "$item后面的那个"],
    ),
}
BEFORE = {
    "en": Templates(
        [
            *more("KEY: facts.BEFORE.en"),
            "What [day |month |]comes before $item?",
            "Which [day|one|month] is before $item?",
            "What is right before $item?",
            "Before $item comes what?",
            "[Tell me|Name] what comes just before $item.",
        ],
        ["What do we have directly before $item?", "$item has just begun. What was before it?"],
        ["what comes before $item", "the one before $item", "the [day|month|one] before $item"],
    ),
    "zh": Templates(
        [
            *more("KEY: facts.BEFORE.zh"),
            "$item之前是什么？",
            "$item前面是什么？",
            "$item的上一个是什么？",
            "[请问|你知道]$item以前是什么[吗|]？",
        ],
        ["$item的前一个是哪个？", "在$item前面的是什么？"],
        ["$item的上一个", "$item前面的那个"],
    ),
}


def calendar(rng: random.Random, split: Split, language: Language) -> Turn:
    """What comes before or after a day, a month or a number."""
    if rng.random() < 0.35:
        number = rng.randint(1, 99)
        forward = rng.random() < 0.5
        item, other = f"{number}", f"{number + 1 if forward else number - 1}"
    else:
        cycle = rng.choice([DAYS, MONTHS])
        index = rng.randrange(len(cycle))
        forward = rng.random() < 0.5
        row, neighbour = cycle[index], cycle[(index + (1 if forward else -1)) % len(cycle)]
        item, other = (row.en, neighbour.en) if language == "en" else (row.zh, neighbour.zh)
    question = (AFTER if forward else BEFORE)[language].fill(rng, split, item=item)
    if language == "zh":
        return Turn(
            question,
            f"{item}{'之后' if forward else '之前'}是{other}。",
            says(f"是{other}"),
            "zh",
            f"按顺序数：{item}的{'后面' if forward else '前面'}。",
        )
    answer = f"{other} comes {'after' if forward else 'before'} {item}."
    return Turn(
        question, answer, says(f"{other} comes"), "en", f"I count {'up' if forward else 'back'} by one from {item}."
    )


MONTH_LENGTH = {
    "en": Templates(
        [
            *more("KEY: facts.MONTH_LENGTH.en"),
            "How many days does $month have?",
            "How many days are in $month?",
            "[Tell me|What is] the number of days in $month.",
            "How long is $month?",
            "days in $month?",
        ],
        ["If I stay for the whole of $month, how many days is that?", "$month counts how many days?"],
        ["the number of days in $month", "how many days $month has", "the length of $month", "the days of $month"],
    ),
    "zh": Templates(
        [
            *more("KEY: facts.MONTH_LENGTH.zh"),
            "$month有多少天？",
            "$month有几天？",
            "[请问|你知道]$month一共多少天[吗|]？",
            "$month多长？",
        ],
        ["整个$month是多少天？", "$month里有几天呢？"],
        ["$month的天数", "$month有多少天"],
    ),
}


def month_length(rng: random.Random, split: Split, language: Language) -> Turn:
    index = rng.randrange(12)
    month, days = MONTHS[index], MONTH_DAYS[index]
    question = MONTH_LENGTH[language].fill(rng, split, month=month.en if language == "en" else month.zh)
    if language == "zh":
        extra = "，闰年有29天" if days == 28 else ""
        return Turn(question, f"{month.zh}有{days}天{extra}。", says(f"{days}天"), "zh", f"问的是{month.zh}的天数。")
    extra = ", and 29 in a leap year" if days == 28 else ""
    return Turn(
        question,
        f"{month.en} has {days} days{extra}.",
        says(f"{days} days"),
        "en",
        f"I recall the length of {month.en}: {days} days.",
    )


NUMBER_TO_WORD = {
    "en": Templates(
        [
            *more("KEY: facts.NUMBER_TO_WORD.en"),
            "[Write|Spell] $number as a word.",
            "How do you [write|spell] $number in [words|letters]?",
            "What is the word for $number?",
            "$number in words",
            "Turn the number $number into a word.",
        ],
        ["I have the digit form $number. What is it as a word?", "Please put $number into words."],
        ["the word for [the number |]$number", "$number [as a word|in words]", "the number $number in letters"],
    ),
    "zh": Templates(
        [
            *more("KEY: facts.NUMBER_TO_WORD.zh"),
            "$number用中文怎么写？",
            "把$number写成汉字。",
            "$number的中文数字是什么？",
            "$number用汉字怎么写？",
        ],
        ["请用汉字写出$number。", "数字$number的汉字写法是什么？"],
        ["$number的汉字", "$number的中文写法"],
    ),
}
EVEN = {
    "en": Templates(
        [
            *more("KEY: facts.EVEN.en"),
            "Is $number even or odd?",
            "Is $number an [even|odd] number?",
            "$number: even or odd?",
            "[Tell me|Do you know] whether $number is even or odd.",
            "Is the number $number odd?",
        ],
        ["Would you say $number is odd or even?", "Even or odd, which one is $number?"],
        ["whether $number is [even or odd|odd or even|even|odd]", "if $number is [even or odd|even|odd]"],
    ),
    "zh": Templates(
        [
            *more("KEY: facts.EVEN.zh"),
            "$number是奇数还是偶数？",
            "$number是偶数吗？",
            "$number是奇数吗？",
            "[请问|你知道]$number是奇数还是偶数[吗|]？",
        ],
        ["判断一下$number是奇数还是偶数。", "$number属于奇数还是偶数？"],
        ["$number的奇偶", "$number是奇数还是偶数"],
    ),
}


def number(rng: random.Random, split: Split, language: Language) -> Turn:
    if rng.random() < 0.5:
        value = rng.randint(0, 20)
        question = NUMBER_TO_WORD[language].fill(rng, split, number=value)
        if language == "zh":
            return Turn(
                question,
                f"{value}写作“{CHINESE_NUMBERS[value]}”。",
                says(f"“{CHINESE_NUMBERS[value]}”"),
                "zh",
                f"我想到{value}的汉字。",
            )
        return Turn(
            question,
            f'{value} is written "{NUMBER_WORDS[value]}".',
            says(f'"{NUMBER_WORDS[value]}"'),
            "en",
            f"I know the word for {value}.",
        )
    value = rng.randint(0, 99)
    even = value % 2 == 0
    question = EVEN[language].fill(rng, split, number=value)
    if language == "zh":
        word = "偶数" if even else "奇数"
        return Turn(question, f"{value}是{word}。", says(f"是{word}"), "zh", f"{value}的最后一位是{value % 10}。")
    word = "even" if even else "odd"
    return Turn(
        question, f"{value} is {word}.", says(f"is {word}"), "en", f"The last digit of {value} is {value % 10}."
    )


OPPOSITE = {
    "en": Templates(
        [
            *more("KEY: facts.OPPOSITE.en"),
            "What is the opposite of $word?",
            "[Tell me|Give me|Name] the opposite of $word.",
            "opposite of $word",
            "Which word means the opposite of $word?",
            "$word: what is its opposite?",
        ],
        ["What would be the contrary of $word?", "If something is not $word, what is the opposite word?"],
        ["the opposite of $word", "the word that is the opposite of $word"],
    ),
    "zh": Templates(
        [
            *more("KEY: facts.OPPOSITE.zh"),
            "“$word”的反义词是什么？",
            "$word的反义词",
            "说出“$word”的反义词。",
            "[请问|你知道]“$word”的反义词[吗|]？",
        ],
        ["“$word”的相反的词是哪个？", "和“$word”意思相反的是什么？"],
        ["“$word”的反义词", "$word的反义词"],
    ),
}


def opposite(rng: random.Random, split: Split, language: Language) -> Turn:
    pair = rng.choice(OPPOSITES)
    word, other = pair if rng.random() < 0.5 else pair[::-1]
    if language == "zh":
        question = OPPOSITE["zh"].fill(rng, split, word=word.zh)
        return Turn(
            question,
            f"“{word.zh}”的反义词是“{other.zh}”。",
            says(f"“{other.zh}”"),
            "zh",
            f"“{word.zh}”的反面是“{other.zh}”。",
        )
    question = OPPOSITE["en"].fill(rng, split, word=word.en)
    return Turn(
        question,
        f"The opposite of {word.en} is {other.en}.",
        says(f"is {other.en}"),
        "en",
        f"I look for the opposite of {word.en}.",
    )


FACTS: dict[str, tuple[Fact, float]] = {
    "capital": (capital, 5),
    "capital_of": (capital_of, 3),
    "continent": (continent, 2),
    "big_city": (big_city, 3),
    "colour": (colour, 3),
    "animal": (animal, 5),
    "calendar": (calendar, 4),
    "month_length": (month_length, 1),
    "number": (number, 3),
    "opposite": (opposite, 2),
}
