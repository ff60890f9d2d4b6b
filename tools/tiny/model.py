"""The qwen3 architecture in PyTorch, for training only; quipu's own implementation is what runs the result."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tiny.recipes import ModelConfig


class Attention(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.attn_q = nn.Linear(config.hidden_size, config.num_heads * config.head_size, bias=False)
        self.attn_k = nn.Linear(config.hidden_size, config.num_kv_heads * config.head_size, bias=False)
        self.attn_v = nn.Linear(config.hidden_size, config.num_kv_heads * config.head_size, bias=False)
        self.attn_output = nn.Linear(config.num_heads * config.head_size, config.hidden_size, bias=False)
        self.attn_q_norm = nn.RMSNorm(config.head_size, config.norm_epsilon)
        self.attn_k_norm = nn.RMSNorm(config.head_size, config.norm_epsilon)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        batch, length, _ = x.shape
        size = self.config.head_size
        q = rotate(self.attn_q_norm(self.attn_q(x).view(batch, length, -1, size)).transpose(1, 2), cos, sin)
        k = rotate(self.attn_k_norm(self.attn_k(x).view(batch, length, -1, size)).transpose(1, 2), cos, sin)
        v = self.attn_v(x).view(batch, length, -1, size).transpose(1, 2)
        groups = self.config.num_heads // self.config.num_kv_heads
        k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)  # [batch, heads, length, size]
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.attn_output(mixed.transpose(1, 2).reshape(batch, length, -1))


class FeedForward(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.ffn_gate = nn.Linear(config.hidden_size, config.feed_forward_size, bias=False)
        self.ffn_up = nn.Linear(config.hidden_size, config.feed_forward_size, bias=False)
        self.ffn_down = nn.Linear(config.feed_forward_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.ffn_down(F.silu(self.ffn_gate(x)) * self.ffn_up(x))


class Block(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attn_norm = nn.RMSNorm(config.hidden_size, config.norm_epsilon)
        self.attention = Attention(config)
        self.ffn_norm = nn.RMSNorm(config.hidden_size, config.norm_epsilon)
        self.feed_forward = FeedForward(config)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self.attention(self.attn_norm(x), cos, sin)
        return x + self.feed_forward(self.ffn_norm(x))


class TinyModel(nn.Module):
    """A decoder whose output matrix is its embedding. Modules are named after the tensors of the GGUF file."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.token_embd = nn.Embedding(config.vocab_size, config.hidden_size)
        self.blk = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.output_norm = nn.RMSNorm(config.hidden_size, config.norm_epsilon)
        cos, sin = rope_tables(config)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        self.apply(self._initialize)
        for block in self.blk:
            for linear in (block.attention.attn_output, block.feed_forward.ffn_down):
                nn.init.normal_(linear.weight, std=0.02 / (2 * config.num_layers) ** 0.5)

    @staticmethod
    def _initialize(module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)

    def forward(self, ids: Tensor) -> Tensor:
        """Token ids [batch, length] to the normalized hidden states [batch, length, hidden]."""
        length = ids.shape[1]
        x = self.token_embd(ids)
        for block in self.blk:
            x = block(x, self.cos[:length], self.sin[:length])
        return self.output_norm(x)

    def logits(self, hidden: Tensor) -> Tensor:
        """Hidden states [..., hidden] to logits [..., vocab]."""
        return F.linear(hidden, self.token_embd.weight)


def rope_tables(config: ModelConfig) -> tuple[Tensor, Tensor]:
    """Cosines and sines [context, head size], the halves of a row alike (the "neox" order of qwen3)."""
    half = torch.arange(0, config.head_size, 2, dtype=torch.float64) / config.head_size
    angles = torch.outer(torch.arange(config.context_length, dtype=torch.float64), config.rope_freq_base**-half)
    angles = torch.cat((angles, angles), dim=1)
    return angles.cos().float(), angles.sin().float()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate [batch, heads, length, size] by position."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin
