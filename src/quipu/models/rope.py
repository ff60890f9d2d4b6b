"""Rotary frequencies from metadata: plain, linear, YaRN, and per-frequency factors.

Scaling as in llama.cpp's reading of the keys: linear divides all angles by the factor; YaRN (arXiv:2309.00071) keeps
the frequencies that turn often within the original context, divides the slow ones, and blends between; Llama 3's rule
comes as a tensor of factors.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from quipu.backends.program import RopeParams
from quipu.errors import ModelFileError, UnsupportedModelError
from quipu.gguf import ModelKeys

YARN_BETA_FAST = 32.0  # rotations within the original context above which a frequency is kept
YARN_BETA_SLOW = 1.0  # and below which it is divided


def read_rope(
    keys: ModelKeys,
    num_rotated: int,
    pairing: Literal["norm", "neox"],
    factors: NDArray[np.float32] | None = None,
) -> RopeParams:
    """The frequencies that the metadata asks for.

    Args:
        keys: the model's metadata.
        num_rotated: dimensions of a head that rotate.
        pairing: which dimensions form a pair, a property of the architecture.
        factors: float32 [num_rotated / 2] that divide the frequencies (`rope_freqs.weight`), or None.

    Raises:
        ModelFileError: a value is missing or out of range.
        UnsupportedModelError: a scaling type that is not known here.
    """
    if num_rotated % 2:
        raise ModelFileError(f"{keys.path}: {num_rotated} rotated dimensions are no whole pairs; convert it again")
    base = keys.number("rope.freq_base", 10000.0, minimum=1e-3)
    frequencies = base ** (-np.arange(0, num_rotated, 2, dtype=np.float64) / num_rotated)
    if factors is not None:
        if factors.shape != (num_rotated // 2,) or not np.all(factors > 0):
            raise ModelFileError(
                f"{keys.path}: rope_freqs.weight needs {num_rotated // 2} positive factors; convert it again"
            )
        frequencies = frequencies / factors
    magnitude = keys.number("rope.scaling.attn_factor", 1.0, minimum=1e-6)
    scaling, factor = _scaling(keys)
    if scaling == "linear":
        frequencies = frequencies / factor
    elif scaling == "yarn":
        frequencies = _yarn(keys, frequencies, base, factor)
        magnitude *= 1.0 + 0.1 * math.log(factor)
    return RopeParams(frequencies.astype(np.float32), float(magnitude), pairing)


def _scaling(keys: ModelKeys) -> tuple[str, float]:
    """The scaling type and its factor; the type defaults to linear, whose factor defaults to 1."""
    scaling = keys.text("rope.scaling.type", "linear")
    if scaling not in ("none", "linear", "yarn"):
        raise UnsupportedModelError(
            f"{keys.path}: {keys.key('rope.scaling.type')} = {scaling!r} is not supported; "
            "none, linear and yarn are, and llama 3's frequency factors"
        )
    name = "rope.scaling.factor" if "rope.scaling.factor" in keys else "rope.scale_linear"
    factor = keys.number(name, 1.0, minimum=0.0)
    return scaling, factor or 1.0  # converters write 0 for "none"


def _yarn(keys: ModelKeys, frequencies: NDArray[np.float64], base: float, factor: float) -> NDArray[np.float64]:
    """Blend between the frequencies and the divided ones by how often each turns in the original context."""
    num_rotated = 2 * len(frequencies)
    original = keys.integer(
        "rope.scaling.original_context_length", keys.integer("context_length", minimum=1), minimum=1
    )

    def pair_with_rotations(rotations: float) -> float:
        return num_rotated * math.log(original / (2.0 * math.pi * rotations)) / (2.0 * math.log(base))

    if base <= 1.0:
        raise ModelFileError(
            f"{keys.path}: {keys.key('rope.freq_base')} is {base}, but YaRN needs more than 1; convert the model again"
        )
    low = max(0, math.floor(pair_with_rotations(YARN_BETA_FAST)))
    high = min(num_rotated - 1, math.ceil(pair_with_rotations(YARN_BETA_SLOW)))
    ramp = np.clip((np.arange(len(frequencies)) - low) / max(0.001, high - low), 0.0, 1.0)
    return frequencies * ((1.0 - ramp) + ramp / factor)
