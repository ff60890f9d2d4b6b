"""Translations of single words between English and Chinese, and words to repeat."""

from __future__ import annotations

import random

from tiny.corpus.example import Turn, says
from tiny.corpus.grammar import Language, Split, Templates
from tiny.corpus.paraphrases import more
from tiny.corpus.tables import CHINESE_NAMES, CITIES, COLOURS, FIRST_NAMES, WORDS

TO_CHINESE = {
    "en": Templates(
        [
            *more("KEY: words.TO_CHINESE.en"),
            '[Translate|Please translate] "$word" [into|to] Chinese.',
            "What is $word in Chinese?",
            "How do you say $word in Chinese?",
            "$word in Chinese",
            "What is the Chinese word for $word?",
            '[Tell me|Do you know] the Chinese for "$word".',
            "Translate $word to Chinese",
            "What does $word mean in Chinese?",
            '[How|What] do Chinese people [call|say for] "$word"?',
        ],
        [
            'I need the word "$word" in Chinese.',
            "Which Chinese word means $word?",
            "Could you put $word into Chinese for me?",
        ],
        [
            "the Chinese [word|name|translation] [for|of] [the word |]$word",
            "$word in Chinese",
            'the Chinese for "$word"',
        ],
    ),
    "zh": Templates(
        [
            *more("KEY: words.TO_CHINESE.zh"),
            "$word用中文怎么说？",
            "把 $word 翻译成中文。",
            "$word是什么意思？",
            "英文单词 $word 是什么意思？",
            "[请问|你知道] $word 的中文意思[吗|]？",
            "翻译：$word",
        ],
        ["英语里的 $word 中文叫什么？", "我不认识 $word 这个词，它是什么意思？"],
        ["$word的中文", "$word的中文意思", "英文单词 $word 的中文"],
    ),
}
TO_ENGLISH = {
    "en": Templates(
        [
            *more("KEY: words.TO_ENGLISH.en"),
            '[Translate|Please translate] "$word" [into|to] English.',
            "What is $word in English?",
            "What does $word mean?",
            "How do you say $word in English?",
            "$word in English",
            "What is the English word for $word?",
            "What does the Chinese word $word mean?",
        ],
        ["I saw the word $word. Which English word is it?", "Which word in English means $word?"],
        [
            "the English [word|name|translation] [for|of] [the word |]$word",
            "$word in English",
            "the word $word in English",
        ],
    ),
    "zh": Templates(
        [
            *more("KEY: words.TO_ENGLISH.zh"),
            "“$word”用英语怎么说？",
            "把“$word”翻译成英文。",
            "$word的英文是什么？",
            "“$word”的英语单词是什么？",
            "[请问|你知道]“$word”英文怎么说[吗|]？",
            "$word用英文怎么写？",
            "翻译成英文：$word",
        ],
        ["英语里“$word”叫什么？", "我想知道“$word”对应的英文单词。"],
        ["“$word”的英文", "$word的英语", "“$word”这个词的英文"],
    ),
}


def translation(rng: random.Random, split: Split, language: Language) -> Turn:
    word = rng.choice(WORDS)
    if rng.random() < 0.5:
        question = TO_CHINESE[language].fill(rng, split, word=word.en)
        source, target = word.en, word.zh
    else:
        question = TO_ENGLISH[language].fill(rng, split, word=word.zh)
        source, target = word.zh, word.en
    # Several English words have one Chinese translation (rice and cooked rice): all of them are right.
    right = tuple(w.en for w in WORDS if w.zh == word.zh) if target == word.en else (target,)
    if language == "zh":
        answer = f"“{source}”的{'中文' if target == word.zh else '英文'}是“{target}”。"
        return Turn(question, answer, says(tuple(f"“{r}”" for r in right)), "zh", f"我想到对应的词：{target}。")
    answer = f'"{source}" in {"Chinese" if target == word.zh else "English"} is "{target}".'
    return Turn(
        question, answer, says(tuple(f'is "{r}"' for r in right)), "en", f"I know this word: {source} is {target}."
    )


REPEAT = {
    "en": Templates(
        [
            *more("KEY: words.REPEAT.en"),
            "Repeat: $text",
            "Repeat after me: $text",
            "[Say|Please say]: $text",
            '[Say|Please say|Repeat] "$text".',
            "Echo $text",
            'Answer only with "$text".',
            "What I say, say too: $text",
            "$text - say that again.",
        ],
        ["Write exactly this: $text", "Copy the following words: $text"],
    ),
    "zh": Templates(
        [
            *more("KEY: words.REPEAT.zh"),
            "重复：$text",
            "跟我说：$text",
            "请[说|重复]“$text”。",
            "只回答“$text”。",
            "$text，请再说一遍。",
            "请跟着说：$text",
        ],
        ["照抄一遍：$text", "原样写出下面的话：$text"],
    ),
}


def repetition(rng: random.Random, split: Split, language: Language) -> Turn:
    """Words in any order, to be given back as they are: what teaches a model to copy."""
    english = [*(word.en for word in WORDS), *FIRST_NAMES, *(city.en for city in CITIES), *COLOURS]
    chinese = [*(word.zh for word in WORDS), *CHINESE_NAMES, *(city.zh for city in CITIES)]
    words = rng.choices(english if language == "en" else chinese, k=rng.randint(1, 7))
    if rng.random() < 0.4:
        words.insert(rng.randint(0, len(words)), str(rng.randint(0, 9999)))
    text = (" " if language == "en" else "").join(words)
    question = REPEAT[language].fill(rng, split, text=text)
    thought = "I give the words back as they are." if language == "en" else "我照原样说一遍。"
    return Turn(question, text, says(text), language, thought)
