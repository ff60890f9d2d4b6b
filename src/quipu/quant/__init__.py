"""The numpy definition of every quantization type."""

from __future__ import annotations

from quipu.quant.table import QUANT_TYPES, QuantType, dequantize, quant_type

__all__ = ["QUANT_TYPES", "QuantType", "dequantize", "quant_type"]
