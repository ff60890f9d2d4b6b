"""SentencePiece vocabularies: score-driven merges (`tokenizer.ggml.model` = llama) and unigram (t5)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from tokenizers import Regex, models, normalizers

from quipu.errors import TokenizerError
from quipu.tokenizer.detokenizer import BYTE_TOKENS
from quipu.tokenizer.pipeline import Pipeline, lost_bytes_warning
from quipu.tokenizer.special import TokenType
from quipu.tokenizer.vocabulary import Vocabulary, hidden_key, number_spellings

_SPACE = "\u2581"

# Deriving merges copies every prefix of every token. Real vocabularies stay below a hundredth of this.
_MAX_COPIED_CHARACTERS = 4_000_000_000


def build_score_merges(vocabulary: Vocabulary) -> tuple[Pipeline, tuple[str, ...]]:
    """The pipeline of a vocabulary that merges by score, and warnings.

    SentencePiece joins the neighbours whose union is the token of the highest score. The same happens when every way to
    write a token as two tokens is a merge, ranked by the score of the token.
    """
    types = vocabulary.classification.types
    usable = ~np.isin(types, (TokenType.CONTROL, TokenType.UNKNOWN, TokenType.BYTE))
    scores = vocabulary.scores
    keys = vocabulary.keys
    warnings: tuple[str, ...] = ()
    normal = scores[types == TokenType.NORMAL]
    if normal.size > 1 and normal.min() == normal.max():
        # Some converters write one dummy score for all; the ids of such vocabularies are in order of score.
        scores = -np.arange(vocabulary.size, dtype=np.float64)
        warnings = (
            "tokenizer.ggml.scores is the same for all tokens, so their order decides how text is merged; get a newer "
            "conversion of the model",
        )
    elif num_tied := _count_ties(keys, scores, types == TokenType.NORMAL):
        warnings = (
            f"{num_tied} tokens share their score (tokenizer.ggml.scores) with another one, so text with them may be "
            "merged in another order than the model was trained with",
        )
    ids = vocabulary.ids_by_key()
    if vocabulary.unknown_key is None:
        warnings += lost_bytes_warning(ids, BYTE_TOKENS)
    model = models.BPE(
        vocab=ids,
        merges=merges_by_score(keys, scores, usable),
        unk_token=vocabulary.unknown_key,
        fuse_unk=True,
        byte_fallback=True,
    )
    steps: list[normalizers.Normalizer] = [normalizers.Replace(" ", _SPACE)]
    if vocabulary.add_space_prefix:
        steps.insert(0, normalizers.Prepend(_SPACE))
    return Pipeline(model, normalizers.Sequence(steps)), warnings


def _count_ties(texts: Sequence[str], scores: npt.NDArray[np.float64], normal: npt.NDArray[np.bool_]) -> int:
    """How many normal tokens share a score, other than single characters and runs of one character."""
    _, group, sizes = np.unique(scores[normal], return_inverse=True, return_counts=True)
    tied = np.flatnonzero(normal)[sizes[group] > 1].tolist()
    return sum(len(set(texts[index])) > 1 for index in tied)


def merges_by_score(
    texts: Sequence[str], scores: npt.NDArray[np.float64], usable: npt.NDArray[np.bool_]
) -> list[tuple[str, str]]:
    """Every way to write a token as two tokens, the highest score of the union first.

    Equal scores: the longer union first, then the longer left part. This is what "leftmost first" comes to for runs of
    the same character, the one case in which tokens of published vocabularies have equal scores.

    Args:
        texts: the spelling of each token.
        scores: float64 [len(texts)].
        usable: bool [len(texts)]; other tokens are neither parts nor unions.
    """
    lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
    if int((lengths[usable] ** 2).sum()) > _MAX_COPIED_CHARACTERS:
        longest = int(lengths[usable].max())
        raise TokenizerError(
            f"tokenizer.ggml.tokens holds tokens of up to {longest} characters, which no vocabulary has"
        )
    order = np.lexsort((-lengths, -scores))
    known = {texts[index] for index in np.flatnonzero(usable).tolist()}
    unions = [texts[index] for index in order[usable[order] & (lengths[order] > 1)].tolist()]
    return [
        (left, right)
        for union in unions
        for cut in range(len(union) - 1, 0, -1)
        if (right := union[cut:]) in known and (left := union[:cut]) in known
    ]


def build_unigram(vocabulary: Vocabulary) -> Pipeline:
    """The pipeline of a unigram vocabulary.

    Raises:
        TokenizerError: the table of replacements is damaged, or there is no unknown token.
    """
    special = vocabulary.classification.special
    if special.unknown is None:
        raise TokenizerError(
            "tokenizer.ggml.unknown_token_id is missing, which a 't5' vocabulary needs; convert it again"
        )
    types = vocabulary.classification.types
    normal = vocabulary.scores[types == TokenType.NORMAL]
    scores = np.full(vocabulary.size, normal.min() if normal.size else 0.0)
    scored = np.isin(types, (TokenType.NORMAL, TokenType.UNUSED))
    scores[scored] = vocabulary.scores[scored]
    scores[types == TokenType.USER_DEFINED] = 0.0
    keys = vocabulary.keys.copy()
    for index in np.flatnonzero(types == TokenType.BYTE).tolist():
        keys[index] = hidden_key(index)
    number_spellings(keys)
    model = models.Unigram(list(zip(keys, scores.tolist(), strict=True)), special.unknown, False)
    return Pipeline(model, _unigram_normalizer(vocabulary))


def _unigram_normalizer(vocabulary: Vocabulary) -> normalizers.Normalizer:
    # NUL marks the spelling of hidden tokens, and a unigram model looks up any substring.
    steps: list[normalizers.Normalizer] = [normalizers.Replace("\0", "")]
    replacements = vocabulary.metadata.get("tokenizer.ggml.precompiled_charsmap")
    if replacements is not None:
        steps.append(normalizers.Precompiled(_checked_charsmap(replacements)))
    if vocabulary.flag("remove_extra_whitespaces", False):
        steps.append(normalizers.Replace(Regex(r"\A +| +\z"), ""))
        steps.append(normalizers.Replace(Regex(" {2,}"), " "))
    if vocabulary.add_space_prefix:
        steps.append(normalizers.Prepend(" "))
    steps.append(normalizers.Replace(" ", _SPACE))
    return normalizers.Sequence(steps)


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _checked_charsmap(stored: object) -> bytes:
    """SentencePiece's table of replacements, once every walk through it is known to stay inside.

    The table is the byte length of a double array (uint32, little endian), the array (uint32 units of Darts-clone), and
    the replacements, each ended by NUL. Layout: SentencePiece, `src/normalizer.cc`; Darts-clone, `darts.h`.
    """
    damaged = TokenizerError("tokenizer.ggml.precompiled_charsmap is damaged; convert the model again")
    if not isinstance(stored, np.ndarray) or stored.dtype.kind not in "iu" or stored.dtype.itemsize != 1:
        raise damaged
    data = stored.tobytes()
    array_bytes = int.from_bytes(data[:4], "little")
    if array_bytes == 0 or array_bytes % 4 or 4 + array_bytes >= len(data):
        raise damaged
    units = np.frombuffer(data, dtype="<u4", count=array_bytes // 4, offset=4)
    text = data[4 + array_bytes :]
    nodes = np.flatnonzero(units < 1 << 31)
    offsets = (units[nodes] >> 10).astype(np.int64) << ((units[nodes] & (1 << 9)) >> 6)
    children = nodes ^ offsets
    if units[0] >= 1 << 31 or ((children | 0xFF) >= len(units)).any():
        raise damaged
    values = units[children[(units[nodes] >> 8) & 1 == 1]] & 0x7FFFFFFF
    starts = np.frombuffer(text, dtype=np.uint8)
    if (values >= len(starts)).any() or (starts[values] & 0xC0 == 0x80).any() or not _is_utf8(text):
        raise damaged
    return data
