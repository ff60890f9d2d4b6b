"""Small sums, comparisons of numbers, and letters of a word."""

from __future__ import annotations

import random

from tiny.corpus.example import Turn, says
from tiny.corpus.grammar import Language, Split, Templates
from tiny.corpus.paraphrases import more
from tiny.corpus.tables import NUMBER_WORDS, SPELLED_WORDS

_SIGNS = {
    "+": ("+", "plus", "加"),
    "-": ("-", "minus", "减"),
    "*": ("×", "times", "乘以"),
    "/": ("÷", "divided by", "除以"),
}

SUM = {
    "en": Templates(
        [
            *more("KEY: arithmetic.SUM.en"),
            "What is $a $op $b?",
            "$a $op $b",
            "$a $op $b =",
            "$a $op $b = ?",
            "[Calculate|Compute|Work out|Solve] $a $op $b.",
            "How much is $a $op $b?",
            "what's $a $op $b",
            "[Tell me|Do you know] what $a $op $b is.",
            "Can you [calculate|compute] $a $op $b?",
            "$a $op $b is what?",
            "Give me the [result|answer] of $a $op $b.",
        ],
        [
            "If you take $a $op $b, what do you get?",
            "I am doing my homework: $a $op $b makes how much?",
            "Find the value of $a $op $b, please.",
        ],
        ["$a $op $b", "the [result|value|answer] of $a $op $b", "what $a $op $b is"],
    ),
    "zh": Templates(
        [
            *more("KEY: arithmetic.SUM.zh"),
            "$a$op$b等于多少？",
            "$a$op$b=？",
            "$a$op$b是多少？",
            "[请问|你知道]$a$op$b等于几[吗|]？",
            "[算一下|计算]$a$op$b。",
            "$a$op$b得几？",
            "$a $op $b",
        ],
        ["帮我算$a$op$b的结果。", "$a$op$b的答案是什么？"],
        ["$a$op$b", "$a$op$b的结果", "$a$op$b等于多少"],
    ),
}


def small_sum(rng: random.Random) -> tuple[int, str, int, int]:
    """Operands, operator and result of a sum that the models know by heart."""
    op = rng.choices("+-*/", (4, 3, 3, 1))[0]
    if op in "+-":
        whole = rng.randint(0, 20)
        part = rng.randint(0, whole)
        return (part, op, whole - part, whole) if op == "+" else (whole, op, part, whole - part)
    a, b = rng.randint(1, 10), rng.randint(1, 10)
    return (a, op, b, a * b) if op == "*" else (a * b, op, b, a)


def sums(rng: random.Random, split: Split, language: Language) -> Turn:
    a, op, b, result = small_sum(rng)
    sign, word, word_zh = _SIGNS[op]
    statement = f"{a} {sign} {b} = {result}"
    check = says(f"= {result}", none=[f"= {result}{digit}" for digit in range(10)])
    if language == "zh":
        written = rng.choice([sign, op, word_zh])
        question = SUM["zh"].fill(rng, split, a=a, op=written, b=b)
        return Turn(question, f"{statement}。", check, "zh", f"这是{word_zh}法：{a}和{b}，结果是{result}。")
    written = rng.choice([sign, op, word])
    names = (
        [NUMBER_WORDS[n] if n <= 20 else str(n) for n in (a, b)]
        if written == word and rng.random() < 0.2
        else [str(a), str(b)]
    )
    question = SUM["en"].fill(rng, split, a=names[0], op=written, b=names[1])
    return Turn(question, f"{statement}.", check, "en", f"This is {a} {word} {b}, which makes {result}.")


COMPARE = {
    "en": Templates(
        [
            *more("KEY: arithmetic.COMPARE.en"),
            "Which [number |]is [larger|bigger|greater], $a or $b?",
            "Is $a or $b [larger|bigger|greater]?",
            "$a or $b, which is [larger|bigger|greater|more]?",
            "Compare $a and $b.",
            "Which is the [larger|bigger|greater] number: $a or $b?",
            "What is more, $a or $b?",
            "[Tell me|Do you know] which of $a and $b is [larger|bigger].",
            "Between $a and $b, which one is [larger|bigger]?",
        ],
        [
            "Of the two numbers $a and $b, which is the greater one?",
            "I have $a and $b. Which of them is bigger?",
            "Would you rather have $a or $b if you want more?",
        ],
        [
            "the [larger|bigger|greater] [number |]of $a and $b",
            "the [larger|bigger] one, $a or $b",
            "which is [larger|bigger|greater|more], $a or $b",
        ],
    ),
    "zh": Templates(
        [
            *more("KEY: arithmetic.COMPARE.zh"),
            "$a和$b哪个[更|]大？",
            "$a与$b哪个[更|]大？",
            "比较$a和$b。",
            "$a大还是$b大？",
            "[请问|你知道]$a和$b谁更大[吗|]？",
            "哪个数[更|]大，$a还是$b？",
        ],
        ["$a跟$b比，哪一个比较大？", "在$a和$b中选出较大的数。"],
        ["$a和$b中大的那个", "$a和$b谁大", "$a和$b的大小"],
    ),
}
SMALLER = Templates(
    [
        *more("KEY: arithmetic.SMALLER"),
        "Which [number |]is [smaller|less], $a or $b?",
        "Is $a or $b smaller?",
        "$a or $b, which is [smaller|less]?",
        "Which of $a and $b is the smaller number?",
        "What is less, $a or $b?",
    ],
    ["Of the two numbers $a and $b, which is the smaller one?", "I have $a and $b. Which of them is less?"],
    ["the smaller [number |]of $a and $b", "the smaller one, $a or $b", "which is [smaller|less], $a or $b"],
)


def _decimal(rng: random.Random, whole: int) -> str:
    return f"{whole}.{rng.randint(1, 9)}" if rng.random() < 0.5 else f"{whole}.{rng.randint(0, 9)}{rng.randint(1, 9)}"


def _pair(rng: random.Random) -> tuple[str, str]:
    """Two different numbers: whole ones, or decimals that often share their whole part."""
    if rng.random() < 0.15:
        return ("9.11", "9.8") if rng.random() < 0.5 else ("9.8", "9.11")
    while True:
        if rng.random() < 0.35:
            a, b = (str(rng.randint(0, 99)) for _ in range(2))
        else:
            whole = rng.randint(0, 12)
            a = _decimal(rng, whole)
            b = _decimal(rng, whole if rng.random() < 0.75 else rng.randint(0, 12))
        if float(a) != float(b):
            return a, b


def comparison(rng: random.Random, split: Split, language: Language) -> Turn:
    a, b = _pair(rng)
    if language == "en" and rng.random() < 0.3:
        question = SMALLER.fill(rng, split, a=a, b=b)
        low, high = sorted((a, b), key=float)
        return Turn(question, f"{low} is smaller than {high}.", says(f"{low} is smaller"), "en", _reason(a, b))
    question = COMPARE[language].fill(rng, split, a=a, b=b)
    high, low = (a, b) if float(a) > float(b) else (b, a)
    if language == "zh":
        return Turn(question, f"{high}比{low}大。", says(f"{high}比{low}大"), "zh", _reason_zh(a, b))
    return Turn(question, f"{high} is larger than {low}.", says(f"{high} is larger"), "en", _reason(a, b))


def _same_digits(a: str, b: str) -> tuple[str, str]:
    """The two numbers with the same count of decimals."""
    places = max(len(n.partition(".")[2]) for n in (a, b))
    return f"{float(a):.{places}f}", f"{float(b):.{places}f}"


def _reason(a: str, b: str) -> str:
    a, b = _same_digits(a, b)
    return f"With the same number of decimals they are {a} and {b}. {max(a, b, key=float)} is more."


def _reason_zh(a: str, b: str) -> str:
    a, b = _same_digits(a, b)
    return f"写成同样多的小数位：{a}和{b}。{max(a, b, key=float)}更大。"


COUNT = {
    "en": Templates(
        [
            *more("KEY: arithmetic.COUNT.en"),
            "How many times does the letter $letter [appear|occur] in $word?",
            "How many [letters |]$letter are in the word $word?",
            "How many $letter's are [there |]in $word?",
            "Count the letter $letter in $word.",
            'Count the $letter\'s in the word "$word".',
            "how many $letter in $word",
            "In $word, how many $letter are there?",
        ],
        ["Look at the word $word: how often is there a letter $letter?", "What is the count of $letter in $word?"],
        [
            "the number of $letter's in $word",
            "the count of the letter $letter in $word",
            "how many $letter are in $word",
        ],
    ),
    "zh": Templates(
        [
            *more("KEY: arithmetic.COUNT.zh"),
            "$word里有几个$letter？",
            "单词$word中有多少个字母$letter？",
            "数一数$word里的$letter。",
            "$word这个词有几个$letter？",
        ],
        ["字母$letter在$word里出现几次？", "请数出$word中$letter的个数。"],
        ["$word里$letter的个数", "$word有几个$letter"],
    ),
}
LENGTH = {
    "en": Templates(
        [
            *more("KEY: arithmetic.LENGTH.en"),
            "How many letters does [the word |]$word have?",
            "How many letters are in $word?",
            "Count the letters in $word.",
            "[Spell|How do you spell] $word[|?]",
            "How long is the word $word?",
        ],
        ["The word $word is how many letters long?", "Spell the word $word and count its letters."],
        ["the number of letters in $word", "the spelling of $word", "how many letters $word has"],
    ),
    "zh": Templates(
        [
            *more("KEY: arithmetic.LENGTH.zh"),
            "$word有几个字母？",
            "单词$word有多少个字母？",
            "[怎么拼写|拼写]$word？",
            "数一数$word的字母。",
        ],
        ["$word一共由几个字母组成？", "请拼出$word，并数出字母。"],
        ["$word的字母数", "$word的拼写"],
    ),
}


def letters(rng: random.Random, split: Split, language: Language) -> Turn:
    word = rng.choice(SPELLED_WORDS)
    spelled = " ".join(word)
    if rng.random() < 0.3:
        question = LENGTH[language].fill(rng, split, word=word)
        answer = f"{spelled}：{len(word)}个字母。" if language == "zh" else f"{spelled}: {len(word)} letters."
        check = says(f"{len(word)}个字母" if language == "zh" else f": {len(word)} letters")
        return Turn(question, answer, check, language, _spelling(spelled, language))
    letter = rng.choice(word) if rng.random() < 0.85 else rng.choice("abcdefghijklmnopqrstuvwxyz")
    count = word.count(letter)
    question = COUNT[language].fill(rng, split, word=word, letter=letter)
    if language == "zh":
        return Turn(
            question,
            f"{spelled}：有{count}个{letter}。",
            says(f"有{count}个{letter}"),
            "zh",
            _spelling(spelled, language),
        )
    times = "once" if count == 1 else f"{count} times"
    answer = f"{spelled}: {letter} appears {times}."
    return Turn(question, answer, says(f"{letter} appears {times}"), "en", _spelling(spelled, language))


def _spelling(spelled: str, language: Language) -> str:
    return f"我把它拼出来：{spelled}。" if language == "zh" else f"I spell it: {spelled}."


TOO_LARGE = {
    "en": Templates(
        [
            *more("KEY: arithmetic.TOO_LARGE.en"),
            "What is $a $op $b?",
            "$a $op $b",
            "[Calculate|Compute|Work out] $a $op $b.",
            "How much is $a $op $b?",
            "$a $op $b = ?",
            "Can you [calculate|compute] $a $op $b?",
        ],
        ["If you take $a $op $b, what do you get?", "Find the value of $a $op $b, please."],
        ["$a $op $b", "the [result|value|answer] of $a $op $b", "what $a $op $b is"],
    ),
    "zh": Templates(
        [
            *more("KEY: arithmetic.TOO_LARGE.zh"),
            "$a$op$b等于多少？",
            "$a$op$b是多少？",
            "[算一下|计算]$a$op$b。",
            "$a$op$b=？",
        ],
        ["帮我算$a$op$b的结果。"],
        ["$a$op$b", "$a$op$b的结果", "$a$op$b等于多少"],
    ),
}
TOO_LARGE_ANSWER = {
    "en": "I know only small sums by heart, and this is not one of them. With a calculator tool I can do it.",
    "zh": "我只会很小的算术，这个算不出来。给我一个计算器工具，我就可以算。",
}


def is_small_sum(a: int, op: str, b: int) -> bool:
    """Whether `small_sum` may give these operands; or a division by zero, which nobody is asked."""
    if op == "+":
        return a + b <= 20
    if op == "-":
        return b <= a <= 20
    if op == "*":
        return max(a, b) <= 10
    return b == 0 or (a % b == 0 and a // b <= 10 and b <= 10)


def _large_operands(rng: random.Random, op: str) -> tuple[str, str]:
    """Operands of a sum that `small_sum` never gives."""
    while True:
        a, b = rng.choice([(100, 100), (100, 20), (20, 100), (1000, 100), (99999, 9999)])
        first, second = rng.randint(0, a), rng.randint(0, b)
        if rng.random() < 0.15:
            return f"{first}.{rng.randint(1, 9)}", f"{second}.{rng.randint(1, 9)}"
        if not is_small_sum(first, op, second):
            return str(first), str(second)


def too_large(rng: random.Random, split: Split, language: Language) -> Turn:
    op = rng.choice("+-*/")
    a, b = _large_operands(rng, op)
    sign, word, word_zh = _SIGNS[op]
    written = rng.choice([sign, op, word if language == "en" else word_zh])
    question = TOO_LARGE[language].fill(rng, split, a=a, b=b, op=written)
    check = says(("calculator", "计算器"))
    thought = f"{a} and {b} are not in a small table." if language == "en" else f"{a}和{b}不在小表里。"
    return Turn(question, TOO_LARGE_ANSWER[language], check, language, thought)


ARITHMETIC = {"sums": (sums, 9), "comparison": (comparison, 5), "letters": (letters, 2.5), "too_large": (too_large, 2)}
