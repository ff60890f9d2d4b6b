"""How text is cut into words before byte-pair merging, for every value of `tokenizer.ggml.pre`.

The cut is part of a vocabulary: with another one the model sees tokens it was never trained on. For each name that a
GGUF file may carry, the table gives the expressions (each cuts the pieces that the one before left) and the switches.

Sources: the names, the switches and the groups are those of llama.cpp, `src/llama-vocab.cpp` (MIT licence). Where it
had to adapt an expression to std::regex, the expression of the model's own tokenizer.json stands here, because
`tokenizers` runs the same engine (Oniguruma) as the models' authors did.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from quipu.errors import TokenizerError


class Switches(NamedTuple):
    """What else the name of a pre-tokenizer decides."""

    clean_spaces: bool = True
    ignore_merges: bool = False
    add_bos: bool = False


@dataclass(frozen=True, slots=True)
class PreTokenizer:
    """The cut that belongs to one value of `tokenizer.ggml.pre`.

    Attributes:
        expressions: Oniguruma expressions, applied in turn; matches and the text between them become pieces.
        clean_spaces: the model's authors remove spaces before punctuation when decoding.
        ignore_merges: a whole word that is a token is taken without merging.
        add_bos: a prompt begins with the BOS token unless the file says otherwise.
        byte_level: tokens are spelled in GPT-2's alphabet of 256 printable characters; otherwise in plain UTF-8.
        escape_spaces: spaces are written as U+2581 before the cut.
        drop_spaces: white space only separates words and is lost.
    """

    expressions: tuple[str, ...]
    clean_spaces: bool = True
    ignore_merges: bool = False
    add_bos: bool = False
    byte_level: bool = True
    escape_spaces: bool = False
    drop_spaces: bool = False


_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_UPPER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
_LOWER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_LEAD = r"[^\r\n\p{L}\p{N}]?"
_MIXED_WORD = _LEAD + _UPPER + "*" + _LOWER + "+"
_UPPER_WORD = _LEAD + _UPPER + "+" + _LOWER + "*"
_CASED_WORDS = _MIXED_WORD + "|" + _UPPER_WORD
_CASED_WORDS_CONTRACTED = _MIXED_WORD + _CONTRACTIONS + "?|" + _UPPER_WORD + _CONTRACTIONS + "?"
_ASCII_PUNCTUATION_WORD = r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+"""

_GPT2 = (r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",)
_GPT2_SINGLE_DIGITS = (r"\p{N}", *_GPT2)
_LLAMA3 = (_CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|" + _SPACES,)
_QWEN2 = (_CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|" + _SPACES,)
_QWEN35 = (_CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|" + _SPACES,)
_UFAKZEKA = (r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|" + _SPACES,)
_CASED_TAIL = r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|" + _SPACES
_GPT4O = (_CASED_WORDS_CONTRACTED + "|" + _CASED_TAIL,)
_TEKKEN = (_CASED_WORDS + r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|" + _SPACES,)
_JAIS2 = (
    _LLAMA3[0].removesuffix(r"|\s+(?!\S)|\s+")
    + "".join(rf"|\s{{{count}}}(?!\S)" for count in (512, 256, 128, 64, 32, 16, 8, 4))
    + r"|\s{1,2}(?!\S)|\s{1}",
)
_CJK = "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"
_DEEPSEEK_V3 = (
    r"\p{N}{1,3}",
    _CJK,
    _ASCII_PUNCTUATION_WORD + r"|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|" + _SPACES,
)
_SPARK = (
    r"\p{N}{1,3}",
    _CJK,
    _ASCII_PUNCTUATION_WORD + r"|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+|[\r\n]|\s+(?!\S)|\s+",
    r"\p{N}",
)
_YOUTU = (
    "[\uac00-\ud7a3\u3131-\u318e]+"
    "|[\uff01\u2026\u201c\u201d\u2018\u2019\u2014\uff1a\uff1b\uff0c\u3001-\u303f\ufe30-\ufe4f]+"
    "|[\u3105-\u312f]+|" + _CJK,
    _CASED_WORDS_CONTRACTED + r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|" + _SPACES,
)
_DEEPSEEK_LATIN = (
    r"\s?["
    "A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af\u0370-\u0373"
    "\u0376\u0377\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03f5\u03f7-\u0481\u048a-\u052f"
    "\u0531-\u0556\u10a0-\u10c5\u13a0-\u13f5\u13f8-\u13fd\u1c90-\u1cba\u1cbd-\u1cbf\u1d00-\u1d2b\u1d6b-\u1d77"
    "\u1d79-\u1d9a\u1e00-\u1f15\u1f18-\u1f1d\u1f20-\u1f45\u1f48-\u1f4d\u1f50-\u1f57\u1f59\u1f5b\u1f5d"
    "\u1f5f-\u1f7d\u1f80-\u1fb4\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb"
    "\u1fe0-\u1fec\u1ff2-\u1ff4\u1ff6-\u1ffc\u2102\u2107\u210a-\u2113\u2115\u2119-\u211d\u2124\u2126\u2128"
    "\u212a-\u212d\u212f-\u2134\u2139\u213c-\u213f\u2145-\u2149\u214e\u2183\u2184\u2c00-\u2c7b\u2c7e-\u2ce4"
    "\u2ceb-\u2cee\u2cf2\u2cf3\ua640-\ua66d\ua680-\ua69b\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e\uab70-\uabbf"
    "\ufb00-\ufb06\ufb13-\ufb17\uff21-\uff3a\uff41-\uff5a\U00010400-\U0001044f\U000104b0-\U000104d3"
    "\U000104d8-\U000104fb\U00010c80-\U00010cb2\U00010cc0-\U00010cf2\U000118a0-\U000118df\U0001e900-\U0001e943"
    "]+"
)
_DEEPSEEK_CJK = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"
_DEEPSEEK_LLM = (
    r"[\r\n]",
    _DEEPSEEK_LATIN,
    "\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+",
    r"\s+$",
    _DEEPSEEK_CJK,
    r"\p{N}+",
)
_DEEPSEEK_CODER = (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _DEEPSEEK_CJK, r"\p{N}")
_FALCON = (r"[\p{P}\$\+<=>\^~\|`]+", *_GPT2, r"[0-9][0-9][0-9]")
_DEFAULT = (r"[\p{P}\$\+<=>\^~\|]+", *_GPT2, r"\p{N}+", r"[0-9][0-9][0-9]")
_BLOOM = (" ?[^(\\s|.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c)]+",)
_CHAMELEON = (
    r"<sentinel:[0-9]+>",
    r"(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z",
    r"([\t\n]|    |  )",
    r"\p{N}",
    r"[\p{P}!-/:-@\[-`{-~]",
    *_GPT2,
)
# Digits in threes counted from the right. The models' own expressions have no bound on the digits that follow, and so
# take quadratic time on long runs; with the bound, runs of up to 300 digits are cut as before.
_TINY_AYA = (r"\d{1,3}(?=(?:\d{3}){0,100}\b)", *_GPT4O)
_HAN_FREE_UPPER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]"
_HAN_FREE_LOWER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]"
_KIMI_K2 = (
    r"[\p{Han}]+|[^\r\n\p{L}\p{N}]?" + _HAN_FREE_UPPER + r"*" + _HAN_FREE_LOWER + r"+" + _CONTRACTIONS + r"?"
    r"|[^\r\n\p{L}\p{N}]?" + _HAN_FREE_UPPER + r"+" + _HAN_FREE_LOWER + r"*" + _CONTRACTIONS + r"?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|" + _SPACES,
)
_SUPERBPE = (r"\p{N}+", r"(?=(\d{3}){1,100}(?!\d))")
_BAILING = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+",
)
_SEED_CODER = (_CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|" + _SPACES,)
# llama.cpp's class of CJK characters begins the compatibility block with U+8C48, which is U+F900 normalized; not here.
_AFMOE = (
    r"\p{N}{1,3}(?=(?:\p{N}{3}){0,100}(?!\p{N}))",
    "[\u4e00-\u9fff\u3400-\u4dbf\uf900-\ufaff\u3040-\u309f\u30a0-\u30ff\uff65-\uff9f"
    "\u2f00-\u2fdf\u0e40-\u0e7f\u0e80-\u0eff\u1780-\u17ff\u1000-\u109f\uaa60-\uaa7f\ua9e0-\ua9ff\uac00-\ud7af\u1100-\u11ff]+",
    _DEEPSEEK_V3[2],
)
_EXAONE_MOE = (
    _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+",
)
_MINICPM5 = (
    r"\p{N}{1,3}",
    _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}+| ?[^\s\p{L}\p{N}]+[\r\n]*|" + _SPACES,
)
_LINES = (r"[^\n]+|[\n]+",)

_KEEP = Switches(clean_spaces=False)
_CLEAN = Switches()

# names, expressions, switches
_BYTE_LEVEL: tuple[tuple[str, tuple[str, ...], Switches], ...] = (
    (
        "llama3 llama-v3 llama-bpe falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano",
        _LLAMA3,
        Switches(ignore_merges=True, add_bos=True),
    ),
    ("dbrx smaug-bpe chatglm-bpe", _LLAMA3, _CLEAN),
    ("glm4 glm5", _LLAMA3, Switches(ignore_merges=True)),
    ("jais-2", _JAIS2, _CLEAN),
    ("qwen2 deepseek-r1-qwen kormo f2llmv2 hunyuan solar-open grok-2", _QWEN2, _KEEP),
    ("megrez stablelm2", _QWEN2, _CLEAN),
    ("qwen35", _QWEN35, _KEEP),
    ("ufakzeka", _UFAKZEKA, _KEEP),
    ("laguna", (*_LINES, *_QWEN2), _KEEP),
    (
        "gpt-2 phi-2 jina-es jina-de jina-v2-es jina-v2-de gigachat a.x-4.0 mellum modern-bert exaone4 mpt olmo jais "
        "jina-v1-en jina-v2-code roberta-bpe",
        _GPT2,
        _CLEAN,
    ),
    ("trillion granite-docling", _GPT2, _KEEP),
    ("starcoder refact codeshell exaone minerva-7b mellum2", _GPT2_SINGLE_DIGITS, _CLEAN),
    ("command-r smollm", _GPT2_SINGLE_DIGITS, _KEEP),
    ("gpt-4o llama4 kanana2 talkie minimax-m2", _GPT4O, _KEEP),
    ("granite-embed-multi-97m", _GPT4O, Switches(clean_spaces=False, ignore_merges=True)),
    ("tiny_aya cohere2moe", _TINY_AYA, _KEEP),
    ("tekken", _TEKKEN, Switches(clean_spaces=False, ignore_merges=True, add_bos=True)),
    ("deepseek-llm", _DEEPSEEK_LLM, _KEEP),
    ("deepseek-coder", _DEEPSEEK_CODER, _KEEP),
    ("deepseek-v3 hunyuan-dense hy_v4 joyai-llm", _DEEPSEEK_V3, _KEEP),
    ("spark2_5", _SPARK, _KEEP),
    ("youtu", _YOUTU, Switches(clean_spaces=False, ignore_merges=True)),
    ("falcon", _FALCON, _CLEAN),
    ("bloom gpt3-finnish", _BLOOM, _CLEAN),
    ("poro-chat", _BLOOM, _KEEP),
    ("viking", (*_BLOOM, r"\p{N}"), _KEEP),
    ("chameleon", _CHAMELEON, Switches(clean_spaces=False, add_bos=True)),
    ("kimi-k2", _KIMI_K2, _KEEP),
    ("superbpe", _SUPERBPE, _KEEP),
    ("bailingmoe bailingmoe2 llada-moe", _BAILING, _KEEP),
    ("seed-coder", _SEED_CODER, _KEEP),
    ("afmoe", _AFMOE, _KEEP),
    ("exaone-moe", _EXAONE_MOE, _CLEAN),
    ("minicpm5", _MINICPM5, Switches(ignore_merges=True)),
    ("default", _DEFAULT, _CLEAN),
)

_GEMMA4 = PreTokenizer(_LINES, add_bos=True, byte_level=False, escape_spaces=True)

PRE_TOKENIZERS: Mapping[str, PreTokenizer] = {
    name: PreTokenizer(expressions, *switches) for names, expressions, switches in _BYTE_LEVEL for name in names.split()
} | {
    "gemma4": _GEMMA4,
    "granite-embed-multi-311m": _GEMMA4,
    "sarvam-moe": replace(_GEMMA4, add_bos=False, clean_spaces=False),
    "whitespace": PreTokenizer((r"\s+",), byte_level=False, drop_spaces=True),
}


def find_pre_tokenizer(name: str) -> PreTokenizer:
    """The cut for a value of `tokenizer.ggml.pre`; raises TokenizerError for a name that is not in the table."""
    if name not in PRE_TOKENIZERS:
        raise TokenizerError(
            f"the pre-tokenizer {name!r} (tokenizer.ggml.pre) is not known, and guessing would feed the model wrong "
            "tokens; update quipu, or pass token ids instead of text"
        )
    return PRE_TOKENIZERS[name]
