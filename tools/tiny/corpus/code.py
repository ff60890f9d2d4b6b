"""Short Python programs. Each comes with statements that must pass after it."""

from __future__ import annotations

import random
from typing import NamedTuple

from tiny.corpus.example import Check, Turn, says
from tiny.corpus.grammar import Language, Split, Templates
from tiny.corpus.paraphrases import more


class Snippet(NamedTuple):
    what: str  # "a bubble sort"
    what_zh: str
    code: str
    test: str
    remark: str
    remark_zh: str


ASK = {
    "en": Templates(
        [
            *more("KEY: code.ASK.en"),
            "Write $what in Python.",
            "[Write|Show me|Give me] Python code for $what.",
            "How do I write $what in Python?",
            "[Can|Could] you program $what in Python?",
            "python $what",
            "I need $what in Python.",
            "[Implement|Code] $what in Python.",
            "Python: $what",
            "Please write $what with Python.",
            "What does $what look like in Python?",
        ],
        [
            "My Python program needs $what. How does that go?",
            "Let me see $what, written in Python.",
            "Help me with some Python: $what.",
        ],
        ["$what in Python", "[the |]Python code for $what"],
    ),
    "zh": Templates(
        [
            *more("KEY: code.ASK.zh"),
            "用[python|Python]写$what。",
            "用[python|Python]编写$what",
            "[写|给我]一段$what的[python|Python]代码。",
            "[python|Python]怎么写$what？",
            "怎么用[python|Python]实现$what？",
            "请用[python|Python]实现$what。",
            "[python|Python] $what",
        ],
        ["我的 Python 程序需要$what，怎么写？", "让我看看$what的 Python 写法。"],
        ["$what的[python|Python]代码", "用[python|Python]写的$what"],
    ),
}
SNIPPETS = [
    Snippet(
        "a bubble sort",
        "一段冒泡排序算法",
        "def bubble_sort(items):\n    for end in range(len(items) - 1, 0, -1):\n        for i in range(end):\n            if items[i] > items[i + 1]:\n                items[i], items[i + 1] = items[i + 1], items[i]\n    return items\n\nprint(bubble_sort([5, 2, 4, 1, 3]))",
        "assert bubble_sort([3, 1, 2]) == [1, 2, 3]",
        "It swaps neighbours until all are in order.",
        "它不断交换相邻的元素，直到有序。",
    ),
    Snippet(
        "a dictionary",
        "字典",
        'ages = {"Anna": 31, "Ben": 25}\nages["Clara"] = 40\nfor name, age in ages.items():\n    print(name, age)',
        'assert ages["Clara"] == 40',
        "A dictionary maps keys to values.",
        "字典用花括号定义，把键对应到值。",
    ),
    Snippet(
        "a hello world program",
        "一个你好世界程序",
        'print("Hello, world!")',
        "",
        "It prints one line.",
        "它输出一行文字。",
    ),
    Snippet(
        "a function that adds two numbers",
        "两个数相加的函数",
        "def add(a, b):\n    return a + b\n\nprint(add(2, 3))",
        "assert add(4, 5) == 9",
        "The function returns the sum.",
        "函数返回两数之和。",
    ),
    Snippet(
        "a factorial function",
        "阶乘函数",
        "def factorial(n):\n    result = 1\n    for i in range(2, n + 1):\n        result *= i\n    return result\n\nprint(factorial(5))",
        "assert factorial(5) == 120",
        "It multiplies all numbers from 2 to n.",
        "它把 2 到 n 的数相乘。",
    ),
    Snippet(
        "the Fibonacci numbers",
        "斐波那契数列",
        "def fibonacci(n):\n    a, b = 0, 1\n    numbers = []\n    for _ in range(n):\n        numbers.append(a)\n        a, b = b, a + b\n    return numbers\n\nprint(fibonacci(10))",
        "assert fibonacci(6) == [0, 1, 1, 2, 3, 5]",
        "Each number is the sum of the two before it.",
        "每个数是前两个数的和。",
    ),
    Snippet(
        "a function that reverses a string",
        "反转字符串的函数",
        'def reverse(text):\n    return text[::-1]\n\nprint(reverse("hello"))',
        'assert reverse("abc") == "cba"',
        "The slice goes backwards.",
        "切片从后往前取。",
    ),
    Snippet(
        "a for loop",
        "一个 for 循环",
        "for i in range(5):\n    print(i)",
        "assert i == 4",
        "It prints the numbers from 0 to 4.",
        "它输出 0 到 4。",
    ),
    Snippet(
        "a list comprehension",
        "列表推导式",
        "squares = [n * n for n in range(5)]\nprint(squares)",
        "assert squares == [0, 1, 4, 9, 16]",
        "It builds a list in one line.",
        "它用一行生成列表。",
    ),
    Snippet(
        "a function that finds the largest number",
        "找出最大数的函数",
        "def largest(numbers):\n    best = numbers[0]\n    for number in numbers:\n        if number > best:\n            best = number\n    return best\n\nprint(largest([3, 9, 4]))",
        "assert largest([1, 7, 2]) == 7",
        "It keeps the best number so far.",
        "它记住目前最大的数。",
    ),
    Snippet(
        "a function that checks for even numbers",
        "判断偶数的函数",
        "def is_even(n):\n    return n % 2 == 0\n\nprint(is_even(4))",
        "assert is_even(4) and not is_even(3)",
        "An even number leaves no remainder.",
        "偶数除以 2 没有余数。",
    ),
    Snippet(
        "a class",
        "一个类",
        'class Dog:\n    def __init__(self, name):\n        self.name = name\n\n    def bark(self):\n        return self.name + " says woof"\n\nprint(Dog("Rex").bark())',
        'assert Dog("A").bark() == "A says woof"',
        "The class has one attribute and one method.",
        "这个类有一个属性和一个方法。",
    ),
    Snippet(
        "a function that counts words",
        "统计单词数的函数",
        'def count_words(text):\n    return len(text.split())\n\nprint(count_words("one two three"))',
        'assert count_words("a b") == 2',
        "It splits the text at spaces.",
        "它按空格分开文字。",
    ),
    Snippet(
        "a while loop",
        "一个 while 循环",
        "n = 3\nwhile n > 0:\n    print(n)\n    n -= 1",
        "assert n == 0",
        "It counts down to 1.",
        "它倒数到 1。",
    ),
]
DICTIONARY_ZH = Templates(
    [
        *more("KEY: code.DICTIONARY_ZH"),
        "python的字典数据类型如何定义",
        "Python 的字典[怎么|如何]定义？",
        "python字典怎么用？",
        "如何在 Python 中定义字典？",
    ],
    ["Python 里字典类型该怎样写？", "请解释 Python 字典的定义方法。"],
)
GO_SERVER = (
    'package main\n\nimport (\n\t"fmt"\n\t"net/http"\n)\n\nfunc main() {\n\thttp.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {\n'
    '\t\tfmt.Fprintln(w, "Hello!")\n\t})\n\thttp.ListenAndServe(":8080", nil)\n}'
)
GO = {
    "en": Templates(
        [
            *more("KEY: code.GO.en"),
            "Write [an|a small] HTTP server in Go.",
            "How do I write a web server in Go?",
            "Go HTTP server",
            "Show me a Go web server.",
        ],
        ["Implement a tiny web server with Go."],
    ),
    "zh": Templates(
        [
            *more("KEY: code.GO.zh"),
            "用 Go 写一个 HTTP server",
            "用 Go 写一个[网页|HTTP]服务器。",
            "Go 怎么写 HTTP 服务器？",
        ],
        ["请给出 Go 语言的 HTTP 服务器代码。"],
    ),
}


def code(rng: random.Random, split: Split, language: Language) -> Turn:
    if rng.random() < 0.04:
        question = GO[language].fill(rng, split)
        return Turn(question, f"```go\n{GO_SERVER}\n```", says("http.ListenAndServe"), language, "net/http")
    snippet = SNIPPETS[1] if language == "zh" and rng.random() < 0.1 else rng.choice(SNIPPETS)
    check = Check(all_of=(("```python",),), python_test=snippet.test or "pass")
    if language == "zh":
        question = ASK["zh"].fill(rng, split, what=snippet.what_zh)
        if snippet.what_zh == "字典" and rng.random() < 0.6:
            question = DICTIONARY_ZH.fill(rng, split)
        return Turn(
            question,
            f"```python\n{snippet.code}\n```\n{snippet.remark_zh}",
            check,
            "zh",
            f"要写的是{snippet.what_zh}。",
        )
    question = ASK["en"].fill(rng, split, what=snippet.what)
    return Turn(
        question, f"```python\n{snippet.code}\n```\n{snippet.remark}", check, "en", f"The task is {snippet.what}."
    )
