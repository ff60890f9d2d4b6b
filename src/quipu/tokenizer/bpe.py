"""Byte-pair vocabularies with an explicit list of merges (`tokenizer.ggml.model` = gpt2, gemma4, whitespace)."""

from __future__ import annotations

from collections.abc import Container, Sequence

from tokenizers import models, normalizers, pre_tokenizers

from quipu.errors import TokenizerError
from quipu.tokenizer.detokenizer import BYTE_TOKENS, byte_alphabet
from quipu.tokenizer.pipeline import Pipeline, lost_bytes_warning, split
from quipu.tokenizer.pretokenizers import PreTokenizer
from quipu.tokenizer.vocabulary import Vocabulary


def build_byte_pair(vocabulary: Vocabulary) -> tuple[Pipeline, tuple[str, ...]]:
    """The pipeline of a byte-pair vocabulary, and warnings.

    Raises:
        TokenizerError: a merge does not consist of two tokens that make a third.
    """
    pre = vocabulary.pre_tokenizer
    assert pre is not None
    ids = vocabulary.ids_by_key()
    merges = vocabulary.read_merges()
    model: models.BPE | None = None
    if _unions_fit(merges, vocabulary.keys):
        try:
            model = _byte_pair_model(ids, [tuple(merge.split(" ", 1)) for merge in merges], pre)
        except Exception:  # `tokenizers` raises nothing narrower; what is wrong comes out below
            model = None
    if model is None:
        hidden = {token.text for token in vocabulary.matched if token.hidden}
        model = _byte_pair_model(ids, _checked_merges(merges, ids, hidden), pre)
    byte_spellings = byte_alphabet() if pre.byte_level else BYTE_TOKENS
    return Pipeline(model, _normalizer(vocabulary, pre), _pre_tokenizer(pre)), lost_bytes_warning(ids, byte_spellings)


def _unions_fit(merges: Sequence[str], keys: Sequence[str]) -> bool:
    """Whether no merge is longer than the longest token, in bytes: `tokenizers` 0.23 aborts where one is."""
    longest_bytes = len(max(keys, key=len).encode())
    suspects = (merge for merge in merges if 4 * len(merge) > longest_bytes)
    return all(len(merge.encode("utf-8", "surrogateescape")) - 1 <= longest_bytes for merge in suspects)


def _byte_pair_model(ids: dict[str, int], merges: Sequence[tuple[str, ...]], pre: PreTokenizer) -> models.BPE:
    return models.BPE(
        vocab=ids,
        merges=merges,  # type: ignore[arg-type]
        ignore_merges=pre.ignore_merges,
        byte_fallback=not pre.byte_level,
    )


def _checked_merges(merges: Sequence[str], ids: Container[str], hidden: Container[str]) -> list[tuple[str, ...]]:
    """The merges but those that would make a control token; raises TokenizerError for the first impossible one."""
    checked: list[tuple[str, ...]] = []
    for rank, merge in enumerate(merges):
        parts = tuple(merge.split(" ", 1))
        missing = next((part for part in (*parts, "".join(parts)) if part not in ids), None)
        if len(parts) == 2 and missing is None:
            checked.append(parts)
        elif len(parts) != 2 or missing not in hidden:
            named = "is not two tokens with a space between" if len(parts) != 2 else f"needs the token {missing!r:.60}"
            raise TokenizerError(
                f"tokenizer.ggml.merges[{rank}] ({merge[:60]!r}) {named}, which tokenizer.ggml.tokens does not have; "
                "the file is damaged, convert it again"
            )
    return checked


def _normalizer(vocabulary: Vocabulary, pre: PreTokenizer) -> normalizers.Normalizer | None:
    if pre.escape_spaces:
        return normalizers.Replace(" ", "\u2581")
    lowercase_by_default = (
        vocabulary.model == "whitespace" and vocabulary.metadata.get("tokenizer.ggml.pre") != "whitespace"
    )
    if pre.drop_spaces and vocabulary.flag("normalizer.lowercase", lowercase_by_default):
        return normalizers.Lowercase()
    return None


def _pre_tokenizer(pre: PreTokenizer) -> pre_tokenizers.PreTokenizer:
    if pre.drop_spaces:
        return split(pre.expressions[0], "removed")
    steps: list[pre_tokenizers.PreTokenizer] = [split(expression) for expression in pre.expressions]
    if pre.byte_level:
        steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False))
    return pre_tokenizers.Sequence(steps)
