"""Text to token ids and back: the tokenizer that a GGUF file describes, run by `tokenizers`."""

from quipu.tokenizer.detokenizer import IncrementalDetokenizer
from quipu.tokenizer.tokenizer import Tokenizer

__all__ = ["IncrementalDetokenizer", "Tokenizer"]
