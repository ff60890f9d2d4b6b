"""A model in a few facts, read from its file."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

from quipu.gguf import GGUFReader, StringArray

_MAX_EXAMPLES = 8
_MAX_EXAMPLE_LENGTH = 70


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What a person wants to know about a model before talking to it.

    Attributes:
        path: the file (of several shards, the first).
        name: the name inside the file, or the file's own.
        description: what the file says about itself, or "".
        architecture: `general.architecture`.
        num_parameters: numbers in all tensors.
        file_bytes: size of the file, with all its shards.
        tensor_type: the type that holds most bytes, such as "Q4_K".
        context_length: the trained length in tokens; 0 where the file does not tell.
        template: the chat template inside the file, or "".
        license: the license's name or text, or "".
        examples: questions that the model can answer, to show to whoever meets it (`quipu.examples`).
    """

    path: str
    name: str
    description: str
    architecture: str
    num_parameters: int
    file_bytes: int
    tensor_type: str
    context_length: int
    template: str
    license: str
    examples: tuple[str, ...] = ()

    def summary(self) -> dict[str, Any]:
        """The facts without the long texts, for reports."""
        values = dataclasses.asdict(self)
        return {name: value for name, value in values.items() if name not in ("template", "license", "examples")}

    @property
    def label(self) -> str:
        """One line: name, architecture, size."""
        size = f"{self.file_bytes / 1e9:.2f} GB" if self.file_bytes >= 1e8 else f"{self.file_bytes / 1e6:.1f} MB"
        weights = f"{self.parameters}, {self.tensor_type}" if self.num_parameters else "no weights"
        return f"{self.name} ({self.architecture}, {weights}, {size})"

    @property
    def parameters(self) -> str:
        """The number of parameters, rounded: 1.24B, 15.0M, 512K."""
        for unit, size in (("B", 1e9), ("M", 1e6), ("K", 1e3)):
            if self.num_parameters >= size:
                return f"{self.num_parameters / size:.3g}{unit}"
        return str(self.num_parameters)


def describe_model(reader: GGUFReader) -> ModelFacts:
    """The facts about an open file."""
    by_type: Counter[str] = Counter()
    for tensor in reader.tensors.values():
        by_type[tensor.type.name] += tensor.num_bytes
    architecture = str(reader.metadata.get("general.architecture", "unknown"))
    context_length = reader.metadata.get(f"{architecture}.context_length", 0)
    return ModelFacts(
        path=str(reader.path),
        name=str(reader.metadata.get("general.name") or reader.path.stem),
        description=str(reader.metadata.get("general.description") or ""),
        architecture=architecture,
        num_parameters=sum(math.prod(tensor.shape) for tensor in reader.tensors.values()),
        file_bytes=int(reader.file_bytes),
        tensor_type=by_type.most_common(1)[0][0] if by_type else "none",
        context_length=context_length if isinstance(context_length, int) else 0,
        template=str(reader.metadata.get("tokenizer.chat_template") or ""),
        license=str(reader.metadata.get("general.license") or ""),
        examples=_examples(reader.metadata.get("quipu.examples")),
    )


def _examples(value: object) -> tuple[str, ...]:
    """The first examples of a file that fit a line; whatever else is there is left out."""
    if not isinstance(value, StringArray):
        return ()
    found = (value[index] for index in range(min(len(value), _MAX_EXAMPLES)))
    return tuple(text for text in found if 0 < len(text) <= _MAX_EXAMPLE_LENGTH and text.isprintable())
