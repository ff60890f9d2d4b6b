"""Short answers to how-to questions, in numbered steps."""

from __future__ import annotations

import random
from typing import NamedTuple

from tiny.corpus.example import Check, Turn
from tiny.corpus.grammar import Language, Split, Templates
from tiny.corpus.paraphrases import more

ASK = {
    "en": Templates(
        [
            *more("KEY: howto.ASK.en"),
            "How do I $task?",
            "How can I $task?",
            "How to $task?",
            "how to $task",
            "[Tell me|Explain|Show me] how to $task.",
            "What is the best way to $task?",
            "I want to $task. How?",
            "[Give me|List|Write] the steps to $task.",
            "Can you help me $task?",
            "What do I do to $task?",
            "Please explain in steps how to $task.",
            "I have to $task. What do I do?",
            "I would like to $task.",
            "My friend wants to $task. How does it work?",
            "What should I do first to $task?",
            "How does one $task at home?",
            "Help me to $task.",
            "Is it hard to $task? Tell me how.",
            "I don't know how to $task.",
            "Today I will $task. Any advice?",
            "How do people $task?",
            "First time for me: $task. Explain it.",
            "What do I need to $task?",
        ],
        [
            "I have never tried to $task. Where do I start?",
            "Could you teach me to $task?",
            "Write a short guide: how does one $task?",
        ],
        ["the [steps|way|best way] to $task", "how to $task", "a way to $task", "instructions to $task"],
    ),
    "zh": Templates(
        [
            *more("KEY: howto.ASK.zh"),
            "如何$task？",
            "怎么$task？",
            "怎样$task？",
            "[请告诉我|说说|教我]怎么$task。",
            "$task的方法",
            "$task的步骤是什么？",
            "我想$task，该怎么做？",
            "我不会$task。",
            "怎么才能$task？",
            "第一次$task，请说明。",
            "今天我要$task，有什么建议？",
            "朋友想$task，怎么办？",
            "帮我$task。",
            "$task难吗？说说怎么做。",
            "[请问|你知道]怎么$task[吗|]？",
        ],
        ["我从来没有试过$task，该从哪里开始？", "写一个简短的指南：怎么$task？"],
        ["$task的[方法|步骤|做法]", "怎么$task", "如何$task"],
    ),
}


class Task(NamedTuple):
    task: str
    steps: tuple[str, ...]
    words: tuple[str, ...]  # a right answer has them all


TASKS_EN = [
    Task(
        "make a sandwich",
        (
            "Take two slices of bread.",
            "Spread butter on them.",
            "Put cheese, tomato and salad on one slice.",
            "Lay the other slice on top and cut it in half.",
        ),
        ("bread", "cheese"),
    ),
    Task(
        "make a beef burger",
        (
            "Form the minced beef into a flat patty and add salt.",
            "Fry it for three minutes on each side.",
            "Toast the bun.",
            "Stack salad, patty, cheese, tomato and sauce in the bun.",
        ),
        ("beef", "bun"),
    ),
    Task(
        "make a cup of tea",
        (
            "Boil fresh water.",
            "Put a tea bag into a cup.",
            "Pour the water over it.",
            "Wait three minutes, then take the bag out.",
        ),
        ("water", "tea bag"),
    ),
    Task(
        "make coffee",
        (
            "Boil water.",
            "Put ground coffee into a filter.",
            "Pour the water slowly over it.",
            "Let it drip into the cup and enjoy.",
        ),
        ("coffee", "filter"),
    ),
    Task(
        "boil an egg",
        (
            "Boil water in a pot.",
            "Lay the egg into it carefully.",
            "Wait eight minutes.",
            "Cool it in cold water and peel it.",
        ),
        ("water", "egg"),
    ),
    Task(
        "cook rice",
        (
            "Wash one cup of rice.",
            "Add two cups of water and some salt.",
            "Bring it to the boil, then cover the pot.",
            "Let it simmer for fifteen minutes.",
        ),
        ("rice", "cups of water"),
    ),
    Task(
        "wash my hands",
        (
            "Wet your hands with warm water.",
            "Take some soap.",
            "Rub all fingers for twenty seconds.",
            "Rinse and dry them with a clean towel.",
        ),
        ("soap", "rinse"),
    ),
    Task(
        "plant a seed",
        (
            "Fill a pot with soil.",
            "Make a small hole and put the seed in.",
            "Cover it with soil and water it.",
            "Put the pot in a sunny place.",
        ),
        ("soil", "water"),
    ),
    Task(
        "fold a paper plane",
        (
            "Fold a sheet of paper in half lengthwise.",
            "Fold the two top corners to the middle.",
            "Fold both sides down to make wings.",
            "Hold it below and throw it gently.",
        ),
        ("fold", "wings"),
    ),
    Task(
        "sleep better",
        (
            "Go to bed at the same time every day.",
            "Put the phone away an hour before.",
            "Keep the room dark and cool.",
            "Drink no coffee in the evening.",
        ),
        ("bed", "dark"),
    ),
    Task(
        "learn a language",
        (
            "Learn ten new words every day.",
            "Listen to songs and films.",
            "Speak with people as early as you can.",
            "Repeat old words each week.",
        ),
        ("words", "speak"),
    ),
    Task(
        "clean a keyboard",
        (
            "Switch the computer off.",
            "Turn the keyboard over and shake it gently.",
            "Brush between the keys.",
            "Wipe it with a slightly wet cloth.",
        ),
        ("shake", "cloth"),
    ),
    Task(
        "ride a bicycle",
        (
            "Set the seat so that your feet reach the ground.",
            "Push off and look ahead.",
            "Pedal steadily to keep your balance.",
            "Brake gently with both hands.",
        ),
        ("pedal", "brake"),
    ),
    Task(
        "bake a cake",
        (
            "Mix flour, sugar, eggs and butter.",
            "Pour the dough into a form.",
            "Bake it for forty minutes.",
            "Let it cool before you cut it.",
        ),
        ("flour", "bake"),
    ),
    Task(
        "write a letter",
        (
            "Write the date and a greeting.",
            "Say why you write.",
            "End with kind words and your name.",
            "Put it into an envelope with a stamp.",
        ),
        ("greeting", "envelope"),
    ),
    Task(
        "save money",
        (
            "Write down what you spend.",
            "Cook at home.",
            "Buy only what is on your list.",
            "Put some money aside each month.",
        ),
        ("spend", "month"),
    ),
]
TASKS_ZH = [
    Task(
        "制作一个三明治",
        ("拿两片面包。", "抹上黄油。", "放上奶酪、西红柿和生菜。", "盖上另一片面包，切成两半。"),
        ("面包", "奶酪"),
    ),
    Task(
        "制作牛肉汉堡",
        ("把牛肉末做成肉饼，加盐。", "每面煎三分钟。", "把面包烤一下。", "依次放上生菜、肉饼、奶酪、西红柿和酱。"),
        ("牛肉", "面包"),
    ),
    Task("泡一杯茶", ("把水烧开。", "把茶叶放进杯子。", "倒入热水。", "等三分钟就可以喝了。"), ("水", "茶叶")),
    Task("煮咖啡", ("把水烧开。", "把咖啡粉放进滤纸。", "慢慢倒入热水。", "等咖啡滴进杯子。"), ("咖啡粉", "水")),
    Task("煮鸡蛋", ("把水烧开。", "小心放入鸡蛋。", "煮八分钟。", "放进冷水，再剥壳。"), ("水", "鸡蛋")),
    Task("煮米饭", ("洗一杯米。", "加两杯水。", "烧开后盖上锅盖。", "小火煮十五分钟。"), ("米", "两杯水")),
    Task("洗手", ("用温水把手弄湿。", "抹上肥皂。", "搓二十秒。", "冲干净，用毛巾擦干。"), ("肥皂", "擦干")),
    Task("种花", ("在花盆里装土。", "挖一个小洞，放入种子。", "盖上土，浇水。", "放在有阳光的地方。"), ("土", "浇水")),
    Task(
        "折纸飞机",
        ("把纸对折。", "把上面两个角折向中间。", "两边向下折成翅膀。", "拿住下面，轻轻扔出去。"),
        ("折", "翅膀"),
    ),
    Task(
        "睡得更好",
        ("每天同一时间上床。", "睡前一小时放下手机。", "房间要暗，要凉快。", "晚上不喝咖啡。"),
        ("上床", "暗"),
    ),
    Task("学习一门语言", ("每天学十个新词。", "听歌，看电影。", "尽早和别人说。", "每周复习旧词。"), ("新词", "复习")),
    Task(
        "学骑自行车", ("调好座位，脚能着地。", "向前看，蹬一下。", "稳稳地踩踏板。", "双手轻轻刹车。"), ("踏板", "刹车")
    ),
    Task("做蛋糕", ("把面粉、糖、鸡蛋和黄油混合。", "倒进模具。", "烤四十分钟。", "放凉再切。"), ("面粉", "烤")),
    Task("省钱", ("记下每笔花费。", "在家做饭。", "只买清单上的东西。", "每月存一点钱。"), ("花费", "存")),
]


def howto(rng: random.Random, split: Split, language: Language) -> Turn:
    task = rng.choice(TASKS_EN if language == "en" else TASKS_ZH)
    question = ASK[language].fill(rng, split, task=task.task)
    return answer_task(task, question, language)


def answer_task(task: Task, question: str, language: Language) -> Turn:
    """The turn that answers `question` with the steps of `task`."""
    answer = "\n".join(f"{number}. {step}" for number, step in enumerate(task.steps, 1))
    check = Check(all_of=(("1.",), ("4.",), *((word,) for word in task.words)))
    thought = f"I go through the steps to {task.task}." if language == "en" else f"我想一想{task.task}的步骤。"
    return Turn(question, answer, check, language, thought)
