"""The conversion itself: a declaration is looked up, the header is written, and tensors follow piece by piece."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np

from quipu.convert import bert
from quipu.convert.checkpoint import Checkpoint
from quipu.convert.declaration import Declaration, TensorPlan, tensor_names
from quipu.errors import ModelFileError, UnsupportedModelError, UsageError
from quipu.gguf import GGMLType, GGUFWriter, TensorSpec
from quipu.gguf.encode import WritableValue
from quipu.gguf.metadata import shorten
from quipu.quant import encode

DECLARATIONS: tuple[Declaration, ...] = (bert.DECLARATION,)

OUTPUT_TYPES: Mapping[str, GGMLType] = MappingProxyType(
    {"f32": GGMLType.F32, "f16": GGMLType.F16, "bf16": GGMLType.BF16, "q8_0": GGMLType.Q8_0}
)
"""The types that matrices can be stored in, by the names that llama.cpp uses."""

# Values of `general.file_type`, as llama.cpp numbers them.
_FILE_TYPES: Mapping[GGMLType, int] = MappingProxyType(
    {GGMLType.F32: 0, GGMLType.F16: 1, GGMLType.Q8_0: 7, GGMLType.BF16: 32}
)
_QUANTIZATION_VERSION = 2


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a conversion is.

    Attributes:
        tensor: the one that was just written.
        done_bytes, total_bytes: of the data in the new file.
    """

    tensor: str
    done_bytes: int
    total_bytes: int


@dataclass(frozen=True, slots=True)
class Conversion:
    """What came of it.

    Attributes:
        path: the new file.
        architecture: value of `general.architecture`.
        num_tensors, num_parameters: what it holds.
        num_bytes: size of the file.
        warnings: what the user should know, one sentence each.
    """

    path: Path
    architecture: str
    num_tensors: int
    num_parameters: int
    num_bytes: int
    warnings: tuple[str, ...]


def convert(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    outtype: str = "f16",
    progress: Callable[[Progress], None] | None = None,
) -> Conversion:
    """Write a published model as a GGUF file. The file appears, or is replaced, when it is complete.

    Args:
        source: the folder with config.json, safetensors and tokenizer.
        target: the file to make.
        outtype: how matrices are stored, a name of `OUTPUT_TYPES`; vectors are float32.
        progress: called after every tensor.

    Raises:
        UsageError: an unknown type.
        ModelNotFoundError: the folder, or a file in it, is missing.
        ModelFileError: a file is damaged, or the files contradict each other.
        UnsupportedModelError: an architecture, or a variant of one, that is not known here.
        QuipuError: the new file cannot be written.
    """
    if outtype.lower() not in OUTPUT_TYPES:
        raise UsageError(f"outtype must be one of {', '.join(OUTPUT_TYPES)}, not {outtype!r}")
    matrix_type = OUTPUT_TYPES[outtype.lower()]
    checkpoint = Checkpoint(source)
    declaration = _find_declaration(checkpoint)
    metadata: dict[str, WritableValue] = {
        "general.architecture": declaration.architecture,
        "general.type": "model",
        "general.name": _model_name(checkpoint),
        **declaration.metadata(checkpoint),
        "general.file_type": _FILE_TYPES[matrix_type],
        "general.quantization_version": _QUANTIZATION_VERSION,
        **declaration.vocabulary(checkpoint),
    }
    plan = declaration.tensors(checkpoint)
    names = tensor_names(checkpoint, plan, declaration.num_layers(checkpoint))
    specs = [_spec(checkpoint, target_name, name, matrix_type, plan) for target_name, name in names.items()]
    _write(Path(target), metadata, specs, names, checkpoint, progress)
    num_parameters = sum(math.prod(spec.shape) for spec in specs)
    return Conversion(
        path=Path(target),
        architecture=declaration.architecture,
        num_tensors=len(specs),
        num_parameters=num_parameters,
        num_bytes=os.path.getsize(target),
        warnings=_type_warnings(specs, matrix_type, plan),
    )


def _find_declaration(checkpoint: Checkpoint) -> Declaration:
    classes = checkpoint.config.items("architectures")
    for declaration in DECLARATIONS:
        if any(isinstance(name, str) and name in declaration.classes for name in classes):
            return declaration
    known = sorted(name for declaration in DECLARATIONS for name in declaration.classes)
    raise UnsupportedModelError(
        f"{checkpoint.config.path}: architectures = {shorten(repr(classes))} cannot be converted yet, only "
        f"{', '.join(known)} can; use a GGUF file of this model"
    )


def _model_name(checkpoint: Checkpoint) -> str:
    """The last part of the published name, or else the name of the folder."""
    published = checkpoint.config.text("_name_or_path", "").rstrip("/").rpartition("/")[2]
    return published or checkpoint.folder.resolve().name


def _spec(checkpoint: Checkpoint, target: str, name: str, matrix_type: GGMLType, plan: TensorPlan) -> TensorSpec:
    shape = checkpoint.tensors[name].shape
    if not shape or 0 in shape or len(shape) > 4:
        raise ModelFileError(
            f"{checkpoint.folder}: tensor {shorten(name)} has the shape {list(shape)}; fetch the model again"
        )
    stored = GGMLType.F32 if len(shape) == 1 or target in plan.exact else matrix_type
    if shape[-1] % stored.block_size:
        stored = GGMLType.F16
    return TensorSpec(target, shape[::-1], stored)


def _type_warnings(specs: list[TensorSpec], matrix_type: GGMLType, plan: TensorPlan) -> tuple[str, ...]:
    others = [
        spec.name for spec in specs if len(spec.shape) > 1 and spec.name not in plan.exact and spec.type != matrix_type
    ]
    if not others:
        return ()
    return (
        f"{len(others)} matrices, such as {others[0]}, are stored as F16: their rows are no whole {matrix_type.name} "
        f"blocks of {matrix_type.block_size} values",
    )


def _write(
    target: Path,
    metadata: Mapping[str, WritableValue],
    specs: list[TensorSpec],
    names: Mapping[str, str],
    checkpoint: Checkpoint,
    progress: Callable[[Progress], None] | None,
) -> None:
    total_bytes, done_bytes = sum(spec.num_bytes for spec in specs), 0
    with GGUFWriter(target, metadata, specs) as writer:
        for spec in specs:
            for piece in checkpoint.pieces(names[spec.name]):
                if not np.isfinite(piece).all():
                    raise ModelFileError(
                        f"{checkpoint.folder}: tensor {shorten(names[spec.name])} has values that are not finite; "
                        "fetch the model again"
                    )
                # Pieces are whole blocks: their length is a multiple of every block size, and so is that of a tensor.
                writer.write(spec.name, piece if spec.type == GGMLType.F32 else encode(piece, spec.type))
            done_bytes += spec.num_bytes
            if progress is not None:
                progress(Progress(spec.name, done_bytes, total_bytes))
