"""What is trained: the sizes of the embedded models, and for how long."""

from __future__ import annotations

from dataclasses import dataclass

from tiny.vocabulary import VOCAB_SIZE

SEED = 20_26


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Sizes of a model. Queries, keys and values have `num_heads` or `num_kv_heads` heads of `head_size`."""

    vocab_size: int
    hidden_size: int
    feed_forward_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_size: int = 64
    context_length: int = 1024
    rope_freq_base: float = 10000.0
    norm_epsilon: float = 1e-6


@dataclass(frozen=True, slots=True)
class Recipe:
    """One model and its training.

    Attributes:
        name: of its files.
        examples: questions to show to whoever meets the model.
        num_steps: optimizer steps, each over at most `batch_tokens` tokens with padding.
        matrix_lr: peak learning rate of Muon.
        other_lr: peak learning rate of AdamW, for embedding and norms.
    """

    name: str
    description: str
    config: ModelConfig
    num_steps: int
    examples: tuple[str, ...]
    batch_tokens: int = 3072
    matrix_lr: float = 0.006
    other_lr: float = 0.003
    num_warmup_steps: int = 60
    decay_from: float = 0.1  # share of the steps after which the learning rate falls, in a line, to zero

    def lr_factor(self, step: int) -> float:
        """The share of the peak learning rate at a step."""
        if step < self.num_warmup_steps:
            return (step + 1) / self.num_warmup_steps
        return min(1.0, max(0.02, (1 - step / self.num_steps) / (1 - self.decay_from)))


# Widths are multiples of 256, so that every quantization type applies.
CHAT = Recipe(
    "tiny-chat",
    "A very small model, trained in an hour on made-up sentences in English and Chinese; it knows simple things only.",
    ModelConfig(VOCAB_SIZE, hidden_size=256, feed_forward_size=512, num_layers=5, num_heads=4, num_kv_heads=2),
    num_steps=4000,
    examples=(
        "What can you do?",
        "What is the capital of Peru?",
        "Which is larger, 9.11 or 9.8?",
        "How do I make a sandwich?",
        "Tell me a story about a fox.",
        "Write a bubble sort in Python.",
        "Think step by step: how many r are in strawberry?",
        "你好，请介绍下你自己",
    ),
)
# Narrower, to fit 1.5 MB with the same vocabulary: it drafts for tiny-chat.
DRAFT = Recipe(
    "tiny-draft",
    "The small sister of tiny-chat, with the same vocabulary, to draft for it.",
    ModelConfig(VOCAB_SIZE, hidden_size=128, feed_forward_size=256, num_layers=4, num_heads=2, num_kv_heads=1),
    num_steps=1800,
    examples=(),
)
RECIPES = {recipe.name: recipe for recipe in (CHAT, DRAFT)}
