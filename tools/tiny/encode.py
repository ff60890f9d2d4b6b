"""Encoding weights as Q8_0, the type in which the embedded models are shipped."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_BLOCK = 32


def encode_q8_0(array: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Rows [rows, columns] in blocks of 32: the scale in half precision, then 32 signed bytes.

    Source: the block layout of the GGUF format; rounding is half away from zero, as its reference encoder does.
    """
    blocks = array.reshape(array.shape[0], -1, _BLOCK)
    scales = np.abs(blocks).max(axis=2, keepdims=True) / np.float32(127)
    inverse = np.divide(1, scales, out=np.zeros_like(scales), where=scales != 0)
    scaled = blocks * inverse
    codes = (np.sign(scaled) * np.floor(np.abs(scaled) + np.float32(0.5))).astype(np.int8)
    half = scales.astype("<f2").view(np.uint8)  # [rows, blocks, 2]
    return np.concatenate((half, codes.view(np.uint8)), axis=2).reshape(array.shape[0], -1)
