"""The corpus as a stream of conversations: topics in their shares, varied as people vary what they type."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Iterator, Mapping

from tiny.corpus.about import about
from tiny.corpus.arithmetic import ARITHMETIC
from tiny.corpus.code import code
from tiny.corpus.example import Conversation, Document, Message, Turn
from tiny.corpus.extraction import extraction
from tiny.corpus.facts import FACTS
from tiny.corpus.grammar import Language, Split, Templates, weighted
from tiny.corpus.guides import guides
from tiny.corpus.howto import howto
from tiny.corpus.knowledge import knowledge
from tiny.corpus.multiturn import chain, follow_up
from tiny.corpus.noise import invent_word
from tiny.corpus.refusals import refusal
from tiny.corpus.stories import story
from tiny.corpus.tables import WORDS
from tiny.corpus.tools import missing_tool, needless_tool, tool_call
from tiny.corpus.words import repetition, translation

TurnMaker = Callable[[random.Random, Split, Language], Turn]


def facts(rng: random.Random, split: Split, language: Language) -> Turn:
    name = weighted(rng, {name: weight for name, (_, weight) in FACTS.items()})
    return FACTS[name][0](rng, split, language)


def arithmetic(rng: random.Random, split: Split, language: Language) -> Turn:
    name = weighted(rng, {name: weight for name, (_, weight) in ARITHMETIC.items()})
    return ARITHMETIC[name][0](rng, split, language)


# Topics of single turns.
TURNS: dict[str, TurnMaker] = {
    "about": about,
    "knowledge": knowledge,
    "facts": facts,
    "arithmetic": arithmetic,
    "translation": translation,
    "repetition": repetition,
    "howto": howto,
    "story": story,
    "code": code,
    "extraction": extraction,
    "refusal": refusal,
    "guides": guides,
}
Shares = Mapping[str, float]


@dataclasses.dataclass(frozen=True, slots=True)
class Mixture:
    """What a stream of texts consists of.

    Attributes:
        turns: topic -> share among single turns.
        kinds: kind of conversation -> share among conversations.
        documents: share of texts without a conversation.
        echoes: share of words to copy.
    """

    turns: Shares
    kinds: Shares
    documents: float
    echoes: float


EARLY = Mixture(
    turns={
        "about": 12,
        "knowledge": 8,
        "facts": 27,
        "arithmetic": 22,
        "translation": 10,
        "repetition": 5,
        "howto": 3,
        "story": 3,
        "code": 3,
        "extraction": 9,
        "refusal": 8,
        "guides": 1,
    },
    kinds={
        "turn": 74.0,
        "tool_call": 8.0,
        "missing_tool": 2.5,
        "needless_tool": 3.5,
        "multi_turn": 7.0,
        "chain": 2.5,
        "thinking": 7.0,
    },
    documents=0.02,
    echoes=0.03,
)
# Many texts to copy, as everything else is easier for a model that can.
FIRST = dataclasses.replace(EARLY, echoes=0.3)
# Less of what is long and by then well known, more of what has many wordings.
LATE = Mixture(
    turns={
        "about": 15,
        "knowledge": 8,
        "facts": 27,
        "arithmetic": 20,
        "translation": 8,
        "repetition": 4,
        "howto": 2.5,
        "story": 4,
        "code": 4,
        "extraction": 13,
        "refusal": 9,
        "guides": 1,
    },
    kinds={
        "turn": 79.0,
        "tool_call": 5.0,
        "missing_tool": 3.0,
        "needless_tool": 2.5,
        "multi_turn": 6.0,
        "chain": 1.5,
        "thinking": 8.0,
    },
    documents=0.005,
    echoes=0.005,
)
# Neither a tool nor thought is of use for these.
_NEVER_WITH_TOOLS = ("arithmetic", "extraction")
# What they say has to reach the model as it is.
_VERBATIM = ("extraction", "repetition")
_SHARE_OF_CHINESE = 0.4

BEFORE = {
    "en": Templates(
        [
            "Hi, ",
            "Hello! ",
            "Hey, ",
            "Please tell me: ",
            "Quick question: ",
            "I wonder: ",
            "So, ",
            "OK. ",
            "Hello tiny, ",
            "Now: ",
            "Question: ",
            "My friend asks: ",
            "Here is a question: ",
            "Tell me, ",
            "Can you help me? ",
            "For school: ",
            "Listen: ",
            "Something simple: ",
            "Just curious: ",
            "[First|Next|Last] question: ",
            "My son asks: ",
            "I am not sure: ",
            "Let us try this: ",
            "Sorry, ",
            "I have been thinking: ",
        ],
        ["Excuse me, ", "One more thing: ", "Well, "],
    ),
    "zh": Templates(
        [
            "你好，",
            "请问，",
            "嗨，",
            "问一下：",
            "那么，",
            "好的。",
            "问题：",
            "朋友问：",
            "我有个问题：",
            "帮个忙：",
            "我不太清楚，",
            "下一个问题：",
            "对了，",
            "老师问：",
        ],
        ["打扰一下，", "再问一个："],
    ),
}
AFTER = {
    "en": Templates(
        [
            " Thanks!",
            " Thank you.",
            " please",
            " Please.",
            " Answer briefly.",
            " :)",
            " It is for school.",
            " My friend wants it.",
            " Can you help me?",
            " I forgot.",
            " Do you know?",
            " Quick!",
            " I am curious.",
        ],
        [" I would like to know.", " Thanks in advance."],
    ),
    "zh": Templates(
        ["谢谢！", "谢谢。", "请回答。", "我忘了。", "你知道吗？", "快点！", "这是作业。"], ["麻烦你了。", "多谢指教。"]
    ),
}
THINK = {
    "en": Templates(
        [
            "Think step by step: $q",
            "Think first. $q",
            "$q Think step by step.",
            "Think carefully: $q",
            "$q /think",
            "Reason step by step. $q",
            "Think about it: $q",
            "$q Show your [thinking|reasoning].",
        ],
        ["Take your time to think: $q", "$q Please think before you answer."],
        exact=True,
    ),
    "zh": Templates(
        ["请一步一步思考：$q", "先想一想：$q", "仔细思考：$q", "$q请先思考。", "想一想再回答：$q", "$q /think"],
        ["认真思考之后回答：$q", "$q请写出思考的过程。"],
        exact=True,
    ),
}
SYSTEM = {
    "en": Templates(
        [
            "You are a helpful assistant.",
            "You are a [friendly|kind|polite] assistant.",
            "Answer briefly.",
            "Be [short|brief|helpful].",
            "You are a [Python|programming] expert.",
            "You are tiny.",
            "You help people with small questions.",
        ],
        ["You are an assistant who answers questions.", "Keep your answers short."],
        exact=True,
    ),
    "zh": Templates(
        [
            "你是一个有用的助手。",
            "你是一个[友好|热心]的助手。",
            "请简短回答。",
            "你是一个[python|Python]专家",
            "你是一个python编程专家",
            "你帮助人们解决小问题。",
        ],
        ["你是回答问题的助手。", "请尽量简洁。"],
        exact=True,
    ),
}


def draw_language(rng: random.Random) -> Language:
    return "zh" if rng.random() < _SHARE_OF_CHINESE else "en"


def draw_turn(
    rng: random.Random, split: Split, language: Language, shares: Shares, without: tuple[str, ...] = ()
) -> tuple[str, Turn]:
    """A topic and a turn of it, with the question varied."""
    if split == "held_out":
        without += ("guides",)
    topic = weighted(rng, {name: weight for name, weight in shares.items() if name not in without})
    turn = TURNS[topic](rng, split, language)
    if topic not in _VERBATIM:
        turn = dataclasses.replace(turn, question=vary(rng, split, turn.question, turn.language))
    return topic, turn


def vary(rng: random.Random, split: Split, question: str, language: Language) -> str:
    """The question as one of many people would type it: with a greeting, in lower case, without its full stop."""
    if rng.random() < 0.22:
        question = BEFORE[language].fill(rng, split) + question
    if rng.random() < 0.12:
        question += AFTER[language].fill(rng, split)
    if rng.random() < 0.15:
        question = question.rstrip("?.!？。！")
    if language == "en" and rng.random() < 0.2:
        question = question.lower()
    return question


def draw(rng: random.Random, split: Split = "train", mixture: Mixture = EARLY) -> Conversation:
    """A conversation of any kind."""
    return draw_kind(rng, split, weighted(rng, mixture.kinds), mixture)


def draw_kind(rng: random.Random, split: Split, kind: str, mixture: Mixture = EARLY) -> Conversation:
    """A conversation of one kind."""
    language, shares = draw_language(rng), mixture.turns
    match kind:
        case "turn":
            conversation = single(*draw_turn(rng, split, language, shares))
        case "tool_call":
            conversation = _vary_last_question(rng, split, tool_call(rng, split, language))
        case "missing_tool":
            conversation = _vary_last_question(rng, split, missing_tool(rng, split, language))
        case "needless_tool":
            conversation = needless_tool(rng, draw_turn(rng, split, language, shares, _NEVER_WITH_TOOLS)[1])
        case "multi_turn":
            conversation = follow_up(rng, split, language)
            if rng.random() < 0.4:
                conversation = _with_turns_before(rng, conversation, shares)
        case "chain":
            turns = [
                draw_turn(rng, split, language if rng.random() < 0.9 else draw_language(rng), shares)[1]
                for _ in range(rng.randint(2, 7))
            ]
            conversation = chain(rng, turns)
        case "thinking":
            conversation = think(rng, split, draw_turn(rng, split, language, shares)[1])
        case _:
            raise ValueError(f"there is no kind of conversation {kind!r}")
    return _with_system(rng, split, conversation)


def single(topic: str, turn: Turn) -> Conversation:
    messages: list[Message] = [
        {"role": "user", "content": turn.question},
        {"role": "assistant", "content": turn.answer},
    ]
    return Conversation(topic, messages, turn.check, turn.language)


def think(rng: random.Random, split: Split, turn: Turn) -> Conversation:
    """A turn with thinking asked for, in the question or by `enable_thinking`; or with thinking switched off."""
    way = rng.random()
    reasoning: dict[str, str] = {"reasoning_content": turn.thought}
    question, thinking = turn.question, None
    if way < 0.5:
        question = THINK[turn.language].fill(rng, split, q=question)
    elif way < 0.85:
        thinking = True
    else:
        thinking, reasoning = False, {}
    messages: list[Message] = [
        {"role": "user", "content": question},
        {"role": "assistant", "content": turn.answer, **reasoning},
    ]
    return Conversation("thinking", messages, turn.check, turn.language, thinking=thinking)


def _vary_last_question(rng: random.Random, split: Split, conversation: Conversation) -> Conversation:
    messages = list(conversation.messages)
    index = max(i for i, message in enumerate(messages) if message["role"] == "user")
    messages[index] = {
        **messages[index],
        "content": vary(rng, split, messages[index]["content"], conversation.language),
    }
    return dataclasses.replace(conversation, messages=messages)


def _with_turns_before(rng: random.Random, conversation: Conversation, shares: Shares) -> Conversation:
    """Other turns, of training templates, before a conversation."""
    turns = [draw_turn(rng, "train", conversation.language, shares)[1] for _ in range(rng.randint(1, 3))]
    before = [message for turn in turns for message in single("", turn).messages]
    return dataclasses.replace(conversation, messages=before + conversation.messages)


def _with_system(rng: random.Random, split: Split, conversation: Conversation) -> Conversation:
    if rng.random() >= 0.12:
        return conversation
    system: Message = {"role": "system", "content": SYSTEM[conversation.language].fill(rng, split)}
    return dataclasses.replace(conversation, messages=[system, *conversation.messages])


def document(rng: random.Random) -> Document:
    """A text without a conversation: a story, or some answers in a row."""
    language = draw_language(rng)
    if rng.random() < 0.5:
        return Document("", story(rng, "train", language).answer)
    names = ["facts", "knowledge", "howto", "code"]
    answers = [TURNS[rng.choice(names)](rng, "train", language).answer for _ in range(rng.randint(2, 5))]
    return Document("", "\n".join(answers))


def echo(rng: random.Random) -> Document:
    """Words without sense, and the same again: what teaches a model to copy, before it has anything to say."""
    words = [rng.choice([invent_word, _any_word, _any_number])(rng) for _ in range(rng.randint(4, 20))]
    text = " ".join(words)
    return Document(f"{text}\n", text)


def _any_word(rng: random.Random) -> str:
    word = rng.choice(WORDS)
    return word.zh if rng.random() < 0.3 else word.en


def _any_number(rng: random.Random) -> str:
    return str(rng.randint(0, 10 ** rng.randint(1, 5)))


def stream(seed: int, mixture: Mixture = EARLY) -> Iterator[Conversation | Document]:
    """Texts of the training split, without end."""
    rng = random.Random(seed)
    while True:
        kind = rng.random()
        if kind < mixture.documents:
            yield document(rng)
        elif kind < mixture.documents + mixture.echoes:
            yield echo(rng)
        else:
            yield draw(rng, mixture=mixture)


def evaluation(seed: int, per_topic: int) -> list[Conversation]:
    """Questions of the held-out templates, `per_topic` of each topic and kind, and no two alike."""
    rng = random.Random(seed)
    found: list[Conversation] = []
    for topic, maker in TURNS.items():
        if topic == "guides":
            continue  # the same in both splits
        found += _distinct(per_topic, lambda maker=maker, topic=topic: _held_out_turn(rng, topic, maker))  # type: ignore[misc]
    for kind in ("tool_call", "missing_tool", "needless_tool", "multi_turn", "thinking"):
        found += _distinct(per_topic, lambda kind=kind: draw_kind(rng, "held_out", kind))  # type: ignore[misc]
    return found


def _held_out_turn(rng: random.Random, topic: str, maker: TurnMaker) -> Conversation:
    turn = maker(rng, "held_out", draw_language(rng))
    question = turn.question if topic in _VERBATIM else vary(rng, "held_out", turn.question, turn.language)
    return single(topic, dataclasses.replace(turn, question=question))


def _distinct(count: int, make: Callable[[], Conversation]) -> list[Conversation]:
    """`count` conversations whose questions differ; fewer where the templates do not give so many."""
    found: dict[str, Conversation] = {}
    for _ in range(20 * count):
        conversation = make()
        found.setdefault(repr(conversation.messages[:-1]), conversation)
        if len(found) == count:
            break
    return list(found.values())
