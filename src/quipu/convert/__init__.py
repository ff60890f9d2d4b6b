"""From a folder of a published model (config.json, safetensors, tokenizer) to one GGUF file."""

from quipu.convert.conversion import OUTPUT_TYPES, Conversion, Progress, convert

__all__ = ["OUTPUT_TYPES", "Conversion", "Progress", "convert"]
