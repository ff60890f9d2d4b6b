"""Small disturbances of a wording: what people mistype, leave out or add, so that models look for what matters."""

from __future__ import annotations

import random
import re

_PIECE = re.compile(r"\$[a-z_]+|[\u4e00-\u9fff]|[^\s$\u4e00-\u9fff]+|\s+")
SLOT_END = "\0"
_CHINESE = re.compile(r"[\u4e00-\u9fff]")
_FILLERS = "just really now also then maybe simply actually the a some please well here today oh um like you know so and this".split()
_CHINESE_FILLERS = "呢啊吧就那这也都请嘛的了还又再来们去"
_ONSETS = "b c d f g h j k l m n p r s t v w z br ch cl cr dr fl gr pl pr sh st th tr".split()
_RIMES = "a e i o u ai ea ee oo ou an en in on un ar er or at et it ot al el ol ing ert ise ake ound".split()


def perturb(rng: random.Random, template: str, rate: float) -> str:
    """The template with about `rate` of its words disturbed; slots stay as they are."""
    pieces = _PIECE.findall(template)
    disturbed: list[str] = []
    for piece in pieces:
        if piece.startswith("$"):
            disturbed.append(piece + SLOT_END)  # what comes next may be letters
            continue
        if piece.isspace() or rng.random() >= rate:
            disturbed.append(piece)
            continue
        chinese = _CHINESE.match(piece) is not None
        way = rng.random()
        if way < 0.25:  # left out
            continue
        if way < 0.6:  # another word in its place
            disturbed.append(_stranger(rng, chinese))
        elif chinese:
            disturbed += [rng.choice(_CHINESE_FILLERS), piece]
        else:
            disturbed += [rng.choice(_FILLERS) if rng.random() < 0.7 else _stranger(rng, False), " ", piece]
    text = re.sub(r"  +", " ", "".join(disturbed)).strip()
    return text or template


def _stranger(rng: random.Random, chinese: bool) -> str:
    """A word that means nothing here."""
    if chinese:
        return rng.choice(_CHINESE_FILLERS) if rng.random() < 0.5 else chr(rng.randint(0x4E00, 0x5E00))
    return invent_word(rng)


def invent_word(rng: random.Random) -> str:
    """A word that nobody knows, such as "plorit"."""
    return "".join(rng.choice(_ONSETS) + rng.choice(_RIMES) for _ in range(rng.randint(1, 3)))
