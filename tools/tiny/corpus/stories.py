"""Tiny stories from a grammar: somebody, a place, a trouble, a way out."""

from __future__ import annotations

import random
from typing import NamedTuple

from tiny.corpus.example import Check, Turn
from tiny.corpus.grammar import Language, Split, Templates, fill
from tiny.corpus.paraphrases import more
from tiny.corpus.tables import CHINESE_NAMES, FIRST_NAMES, Name

ASK = {
    "en": Templates(
        [
            *more("KEY: stories.ASK.en"),
            "Tell me a [short |tiny |little |]story about $hero.",
            "[Write|Make up|Invent] a [short |tiny |]story about $hero.",
            "[Can|Could] you tell [me |]a story about $hero?",
            "I want a story about $hero.",
            "A story about $hero, please.",
            "story about $hero",
            "Please tell a story with $hero in it.",
            "Give me a little tale about $hero.",
        ],
        [
            "Do you know a tale of $hero?",
            "My son wants to hear about $hero. Tell him a story.",
            "Write a few sentences of fiction on $hero.",
        ],
        ["a [short |tiny |little |]story about $hero", "a story with $hero"],
    ),
    "zh": Templates(
        [
            *more("KEY: stories.ASK.zh"),
            "[讲|说|写]一个关于$hero的[小|短|]故事。",
            "给我讲个$hero的故事。",
            "[可以|能]讲一个$hero的故事吗？",
            "我想听$hero的故事。",
            "编一个$hero的小故事。",
            "关于$hero的故事",
        ],
        ["孩子想听$hero的故事，讲一个吧。", "请用几句话写$hero的故事。"],
        ["一个关于$hero的故事", "$hero的故事"],
    ),
}
ASK_ANY = {
    "en": Templates(
        [
            *more("KEY: stories.ASK_ANY.en"),
            "Tell me a [short |tiny |]story.",
            "[Write|Make up] a [short |]story.",
            "I want to hear a story.",
            "Can you tell a story?",
            "A story, please.",
            "story",
        ],
        ["Do you know a nice tale?", "Entertain me with a small story."],
    ),
    "zh": Templates(
        [
            *more("KEY: stories.ASK_ANY.zh"),
            "讲一个[小|短|]故事。",
            "给我讲个故事吧。",
            "写一个小故事。",
            "我想听故事。",
            "你会讲故事吗？",
        ],
        ["来个故事听听。", "随便编个故事给我。"],
    ),
}
HEROES = [
    Name("a cat", "小猫"),
    Name("a dog", "小狗"),
    Name("a fox", "狐狸"),
    Name("a rabbit", "兔子"),
    Name("a bear", "小熊"),
    Name("a bird", "小鸟"),
    Name("a mouse", "老鼠"),
    Name("a frog", "青蛙"),
    Name("an owl", "猫头鹰"),
    Name("a horse", "小马"),
    Name("a robot", "机器人"),
    Name("a dragon", "龙"),
    Name("a king", "国王"),
    Name("a girl", "女孩"),
    Name("a boy", "男孩"),
    Name("a turtle", "乌龟"),
    Name("a snowman", "雪人"),
    Name("a little star", "小星星"),
]


class Plot(NamedTuple):
    lost: str
    trouble: str
    help: str
    end: str


PLACES = [
    "in a quiet forest",
    "by a blue lake",
    "in a small village",
    "on a green hill",
    "near the sea",
    "at the edge of a town",
    "in an old garden",
]
PLOTS = [
    Plot(
        "a red ball",
        "One morning the ball rolled into the river.",
        "$friend swam after it and brought it back.",
        "From that day on they played together every morning.",
    ),
    Plot(
        "a small lamp",
        "One night the lamp went out and everything was dark.",
        "$friend came with a light and showed the way home.",
        "After that $name was never afraid of the dark again.",
    ),
    Plot(
        "a golden key",
        "One day the key was gone, and the door stayed shut.",
        "$friend looked under every leaf and found it.",
        "They opened the door and had tea and cake inside.",
    ),
    Plot(
        "a warm scarf",
        "In winter the wind blew the scarf up into a tree.",
        "$friend climbed up and threw it down.",
        "They shared the scarf, and both were warm.",
    ),
    Plot(
        "a blue kite",
        "One windy day the string broke and the kite flew away.",
        "$friend followed it over three hills and caught it.",
        "In the evening they flew it together until the stars came out.",
    ),
    Plot(
        "an old map",
        "The map showed a treasure, but nobody could read it.",
        "$friend knew the signs and read them aloud.",
        "They found a box full of apples and gave one to everybody.",
    ),
    Plot(
        "a little boat",
        "One day it rained so much that the boat floated away.",
        "$friend stopped it with a long branch.",
        "When the sun came out, they sailed across the lake.",
    ),
    Plot(
        "a big drum",
        "The drum was so loud that nobody wanted to listen.",
        "$friend said: play softly, and we will sing.",
        "Soon the whole place sang along.",
    ),
]
START = [
    "Once upon a time there was $hero called $name. $name lived $place and had $lost.",
    "$place_cap lived $hero named $name, who loved $lost more than anything.",
    "There once was $hero, and the name was $name. $name lived $place with $lost.",
]
START_ZH = ["从前有$hero，名叫$name，住在$place，最喜欢$lost。", "在$place住着$hero，名字叫$name，它有$lost。"]
PLACES_ZH = ["安静的森林里", "蓝色的湖边", "一个小村庄里", "绿色的山坡上", "大海旁边", "一座老花园里"]
PLOTS_ZH = [
    Plot("一个红色的球", "一天早上，球滚进了河里。", "$friend游过去，把球捡了回来。", "从那以后，它们每天早上一起玩。"),
    Plot(
        "一盏小灯", "一天晚上，灯灭了，到处一片黑暗。", "$friend带着光来了，领着$name回家。", "从此$name再也不怕黑了。"
    ),
    Plot(
        "一把金钥匙",
        "有一天，钥匙不见了，门打不开。",
        "$friend翻遍每片叶子，终于找到了。",
        "它们打开门，一起喝茶吃蛋糕。",
    ),
    Plot(
        "一条暖和的围巾",
        "冬天，风把围巾吹到了树上。",
        "$friend爬上树，把围巾扔了下来。",
        "它们一起围着围巾，都很暖和。",
    ),
    Plot(
        "一只蓝色的风筝",
        "有一天刮大风，线断了，风筝飞走了。",
        "$friend翻过三座山，把它抓住了。",
        "晚上它们一起放风筝，直到星星出来。",
    ),
    Plot("一条小船", "有一天下大雨，小船漂走了。", "$friend用长树枝拦住了它。", "太阳出来后，它们一起划船过湖。"),
]
FRIENDS = ["a kind duck", "an old turtle", "a clever crow", "a small mouse", "a friendly bee", "a brave squirrel"]
FRIENDS_ZH = ["一只善良的鸭子", "一只老乌龟", "一只聪明的乌鸦", "一只小老鼠", "一只友好的蜜蜂", "一只勇敢的松鼠"]
# The measure word of a hero; animals take 只.
COUNTERS = {"国王": "位", "龙": "条", "小马": "匹", "小星星": "颗"} | dict.fromkeys(
    ("女孩", "男孩", "机器人", "雪人"), "个"
)
STORY_NAMES_ZH = [*CHINESE_NAMES[:6], "豆豆", "乐乐", "毛毛", "圆圆", "点点"]


def story(rng: random.Random, split: Split, language: Language) -> Turn:
    hero = rng.choice(HEROES)
    noun = hero.en.split()[-1]
    wanted: tuple[tuple[str, ...], ...] = ()
    if rng.random() < 0.3:
        question = ASK_ANY[language].fill(rng, split)
    else:
        question = ASK[language].fill(rng, split, hero=hero.en if language == "en" else hero.zh)
        wanted = ((noun if language == "en" else hero.zh,),)
    if language == "zh":
        check = Check(all_of=(*wanted, ("。",)), min_words=40)
        return Turn(question, _write_zh(rng, hero.zh), check, "zh", f"主角是{hero.zh}，先遇到麻烦，再有朋友帮忙。")
    check = Check(all_of=(*wanted, (".",)), min_words=35)
    return Turn(
        question,
        _write(rng, hero.en),
        check,
        "en",
        f"The hero is {hero.en}. There is a trouble, and a friend who helps.",
    )


def _write(rng: random.Random, hero: str) -> str:
    place, plot, name = rng.choice(PLACES), rng.choice(PLOTS), rng.choice(FIRST_NAMES)
    start = fill(
        rng,
        rng.choice(START),
        hero=hero,
        name=name,
        place=place,
        place_cap=place[0].upper() + place[1:],
        lost=plot.lost,
    )
    friend = rng.choice(FRIENDS)
    helped = fill(rng, plot.help, friend="Then " + friend)
    return f"{start} {plot.trouble} {name} was very sad. {helped} {fill(rng, plot.end, name=name)}"


def _write_zh(rng: random.Random, hero: str) -> str:
    plot, name = rng.choice(PLOTS_ZH), rng.choice(STORY_NAMES_ZH)
    counted = f"一{COUNTERS.get(hero, '只')}{hero}"
    start = fill(rng, rng.choice(START_ZH), hero=counted, name=name, place=rng.choice(PLACES_ZH), lost=plot.lost)
    helped = fill(rng, plot.help, friend=rng.choice(FRIENDS_ZH), name=name)
    return f"{start}{plot.trouble}{name}很难过。这时{helped}{fill(rng, plot.end, name=name)}"
