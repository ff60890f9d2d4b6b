"""WordPiece vocabularies (`tokenizer.ggml.model` = bert)."""

from __future__ import annotations

from tokenizers import models, normalizers, pre_tokenizers

from quipu.errors import TokenizerError
from quipu.tokenizer.pipeline import Pipeline
from quipu.tokenizer.special import TokenType
from quipu.tokenizer.vocabulary import Vocabulary, hidden_key

_WORD_START = "\u2581"
_CONTINUATION = "##"

# Longer words become the unknown token, as in BERT's own tokenizer.
_MAX_WORD_CHARACTERS = 100


def build_wordpiece(vocabulary: Vocabulary) -> Pipeline:
    """The pipeline of a WordPiece vocabulary.

    Raises:
        TokenizerError: there is no unknown token.
    """
    if vocabulary.unknown_key is None:
        raise TokenizerError(
            "tokenizer.ggml.unknown_token_id is missing, which a 'bert' vocabulary needs; convert it again"
        )
    types = vocabulary.classification.types
    spellings = [
        key if kind == TokenType.USER_DEFINED or key == hidden_key(index) else _wordpiece_spelling(key)
        for index, (key, kind) in enumerate(zip(vocabulary.keys, types.tolist(), strict=True))
    ]
    lowercase = vocabulary.flag("normalizer.lowercase", True)
    return Pipeline(
        models.WordPiece(
            vocab={spelling: index for index, spelling in enumerate(spellings)},
            unk_token=vocabulary.unknown_key,
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


def _wordpiece_spelling(text: str) -> str:
    """GGUF marks pieces that begin a word with U+2581; BERT marks the others with "##"."""
    if text.startswith(_WORD_START) and len(text) > 1:
        return text[1:]
    return _CONTINUATION + text
