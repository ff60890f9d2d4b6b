"""The GGUF file format: reading (memory-mapped, safe with hostile files), writing, and typed access to keys."""

from quipu.gguf.cursor import NestedArray
from quipu.gguf.header import TensorInfo
from quipu.gguf.keys import ModelKeys
from quipu.gguf.metadata import Metadata
from quipu.gguf.reader import GGUFReader
from quipu.gguf.types import GGMLType
from quipu.gguf.values import StringArray, ValueType
from quipu.gguf.writer import GGUFWriter, TensorSpec, write_gguf

__all__ = [
    "GGMLType",
    "GGUFReader",
    "GGUFWriter",
    "Metadata",
    "ModelKeys",
    "NestedArray",
    "StringArray",
    "TensorInfo",
    "TensorSpec",
    "ValueType",
    "write_gguf",
]
