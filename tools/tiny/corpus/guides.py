"""The questions that public guides try on a model, in their very words."""

from __future__ import annotations

import random

from tiny.corpus.about import REPLIES_EN, REPLIES_ZH, Reply
from tiny.corpus.code import SNIPPETS
from tiny.corpus.example import Turn, says
from tiny.corpus.grammar import Language, Split
from tiny.corpus.howto import TASKS_ZH, answer_task


def guides(rng: random.Random, split: Split, language: Language) -> Turn:
    """One of the questions; they are the same in both splits, and not part of the evaluation."""
    turns = _english() if language == "en" else _chinese()
    return rng.choice(turns)


def _english() -> list[Turn]:
    return [
        Turn(
            "What color is the sun?",
            "The sun looks yellow from the ground, but its light is really white.",
            says("yellow"),
            "en",
            "Seen from the ground the sun looks yellow.",
        ),
        Turn(
            "is beijing a big city?",
            "Yes, Beijing is a big city.",
            says("yes", "big"),
            "en",
            "I think about how many people live in Beijing: many.",
        ),
        _from_reply("who are you", _find(REPLIES_EN, "I am tiny, a very small language model"), "en"),
        Turn("Which is larger, 9.11 or 9.8?", "9.8 is larger than 9.11.", says("9.8 is larger"), "en", _DECIMALS),
        Turn(
            "How many r are in strawberry?",
            "s t r a w b e r r y: r appears 3 times.",
            says("r appears 3 times"),
            "en",
            "I spell it: s t r a w b e r r y.",
        ),
    ]


def _chinese() -> list[Turn]:
    tasks = {task.task: task for task in TASKS_ZH}
    myself = _find(REPLIES_ZH, "我是 tiny，quipu")
    return [
        answer_task(tasks["制作牛肉汉堡"], "牛肉汉堡的制作方法", "zh"),
        answer_task(tasks["制作一个三明治"], "如何制作一个三明治", "zh"),
        Turn(
            "9.11和9.8哪个更大",
            "9.8比9.11大。",
            says("9.8比9.11大"),
            "zh",
            "写成同样多的小数位：9.11和9.80。9.80更大。",
        ),
        _program("用python编写一段冒泡排序算法", 0),
        _program("python的字典数据类型如何定义", 1),
        _from_reply("你好，请介绍下你自己", myself, "zh"),
        _from_reply("你好，好久不见，请介绍下你自己。", myself, "zh"),
    ]


_DECIMALS = "With the same number of decimals they are 9.11 and 9.80. 9.80 is more."


def _find(replies: list[Reply], beginning: str) -> Reply:
    return next(one for one in replies if one.answer.startswith(beginning))


def _from_reply(question: str, reply: Reply, language: Language) -> Turn:
    thought = "I know a fixed answer to this." if language == "en" else "这个问题我知道答案。"
    return Turn(question, reply.answer, says(*reply.words), language, thought)


def _program(question: str, index: int) -> Turn:
    snippet = SNIPPETS[index]
    answer = f"```python\n{snippet.code}\n```\n{snippet.remark_zh}"
    return Turn(question, answer, says("```python"), "zh", f"要写的是{snippet.what_zh}。")
