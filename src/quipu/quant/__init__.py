"""The numpy definition of every quantization type."""

from __future__ import annotations

from quipu.quant.table import ENCODABLE_TYPES, QUANT_TYPES, QuantType, dequantize, encode, quant_type

__all__ = ["ENCODABLE_TYPES", "QUANT_TYPES", "QuantType", "dequantize", "encode", "quant_type"]
