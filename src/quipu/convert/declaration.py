"""What the conversion of one architecture consists of: one `Declaration` each, in a file of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from quipu.convert.checkpoint import Checkpoint
from quipu.errors import ModelFileError, UnsupportedModelError
from quipu.gguf.encode import WritableValue
from quipu.gguf.metadata import shorten

_LAYER = "{layer}"


@dataclass(frozen=True, slots=True)
class TensorPlan:
    """Which tensors are written, and from what. `{layer}` in a name stands for the number of a layer.

    Attributes:
        renamed: published name -> name in the GGUF file. Several published names may share one, where spellings differ.
        ignored: beginnings of published names that the GGUF file leaves out, because nothing reads them.
        exact: names in the GGUF file of matrices that are float32 whatever type is asked for.
    """

    renamed: Mapping[str, str]
    ignored: tuple[str, ...] = ()
    exact: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Declaration:
    """How one architecture is converted.

    Attributes:
        architecture: value of `general.architecture`.
        classes: the names in `architectures` of config.json that it covers.
        metadata: the keys of the model, without those of the tokenizer; it refuses what the architecture does not do.
        vocabulary: the keys of the tokenizer.
        tensors: which tensors there are.
        num_layers: how many layers.
    """

    architecture: str
    classes: frozenset[str]
    metadata: Callable[[Checkpoint], dict[str, WritableValue]]
    vocabulary: Callable[[Checkpoint], dict[str, WritableValue]]
    tensors: Callable[[Checkpoint], TensorPlan]
    num_layers: Callable[[Checkpoint], int]


def with_biases(modules: Mapping[str, str]) -> dict[str, str]:
    """Names of tensors from names of modules that have a weight and a bias."""
    return {f"{name}.{part}": f"{target}.{part}" for name, target in modules.items() for part in ("weight", "bias")}


def tensor_names(checkpoint: Checkpoint, plan: TensorPlan, num_layers: int) -> dict[str, str]:
    """Name in the GGUF file -> published name, for every tensor that is written, layer by layer.

    Raises:
        ModelFileError: a tensor is missing, or two have the same place.
        UnsupportedModelError: a tensor has no place in this architecture.
    """
    places = _places(plan.renamed, num_layers)
    found: dict[str, str] = {}
    for name in checkpoint.tensors:
        target = places.get(name)
        if target is None and not name.startswith(plan.ignored):
            raise UnsupportedModelError(
                f"{checkpoint.folder}: tensor {shorten(name)} has no place in this architecture; this version of quipu "
                "does not know this variant of the model"
            )
        if target is not None and found.setdefault(target, name) != name:
            raise ModelFileError(
                f"{checkpoint.folder}: {found[target]!r} and {name!r} are the same tensor; fetch the model again"
            )
    for published, target in places.items():
        if target not in found:
            raise ModelFileError(f"{checkpoint.folder}: tensor {published!r} is missing; fetch the whole model")
    return {target: found[target] for target in places.values()}


def _places(renamed: Mapping[str, str], num_layers: int) -> dict[str, str]:
    """`renamed` with the numbers of layers put in, in the order of the file: what no layer has comes first."""
    places = {published: target for published, target in renamed.items() if _LAYER not in published}
    for layer in range(num_layers):
        for published, target in renamed.items():
            if _LAYER in published:
                places[published.replace(_LAYER, str(layer))] = target.replace(_LAYER, str(layer))
    return places
