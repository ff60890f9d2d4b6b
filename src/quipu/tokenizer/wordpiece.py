"""WordPiece vocabularies (`tokenizer.ggml.model` = bert)."""

from __future__ import annotations

from tokenizers import models, normalizers, pre_tokenizers

from quipu.errors import TokenizerError
from quipu.tokenizer.pipeline import Pipeline
from quipu.tokenizer.special import TokenType
from quipu.tokenizer.vocabulary import Vocabulary, hidden_key, number_spellings

_WORD_START = "\u2581"
_CONTINUATION = "##"

# Longer words become the unknown token, as in BERT's own tokenizer.
_MAX_WORD_CHARACTERS = 100


def build_wordpiece(vocabulary: Vocabulary) -> Pipeline:
    """The pipeline of a WordPiece vocabulary.

    Raises:
        TokenizerError: there is no unknown token.
    """
    unknown = vocabulary.classification.special.unknown
    if unknown is None:
        raise TokenizerError(
            "tokenizer.ggml.unknown_token_id is missing, which a 'bert' vocabulary needs; convert it again"
        )
    spellings = _spellings(vocabulary)
    lowercase = vocabulary.flag("normalizer.lowercase", True)
    return Pipeline(
        models.WordPiece(
            vocab=number_spellings(spellings),
            unk_token=spellings[unknown],
            max_input_chars_per_word=_MAX_WORD_CHARACTERS,
            continuing_subword_prefix=_CONTINUATION,
        ),
        normalizers.BertNormalizer(
            clean_text=True,
            handle_chinese_chars=True,
            strip_accents=vocabulary.flag("normalizer.strip_accents", lowercase),
            lowercase=lowercase,
        ),
        pre_tokenizers.BertPreTokenizer(),
    )


def _spellings(vocabulary: Vocabulary) -> list[str]:
    """The tokens as BERT spells them. Tokens that no word consists of get a spelling of no word."""
    spellings: list[str] = []
    taken: set[str] = set()
    types = vocabulary.classification.types.tolist()
    for index, (key, kind) in enumerate(zip(vocabulary.keys, types, strict=True)):
        spelling = _wordpiece_spelling(key)
        if kind in (TokenType.CONTROL, TokenType.UNKNOWN, TokenType.USER_DEFINED) or spelling in taken:
            spelling = hidden_key(index)
        taken.add(spelling)
        spellings.append(spelling)
    return spellings


def _wordpiece_spelling(text: str) -> str:
    """GGUF marks pieces that begin a word with U+2581; BERT marks the others with "##"."""
    if text.startswith(_WORD_START) and len(text) > 1:
        return text[1:]
    return _CONTINUATION + text
