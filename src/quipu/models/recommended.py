"""How a model's authors recommend to sample from it: the `general.sampling.*` keys of its file."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from quipu.errors import InvalidRequestError
from quipu.types import SamplingParams

_PREFIX = "general.sampling."
# Names are those of the GGUF specification; each stands for a field of SamplingParams.
_FIELDS: Mapping[str, str] = MappingProxyType(
    {
        "sequence": "samplers",
        "temp": "temperature",
        "top_k": "top_k",
        "top_p": "top_p",
        "min_p": "min_p",
        "xtc_probability": "xtc_probability",
        "xtc_threshold": "xtc_threshold",
        "penalty_last_n": "repeat_last_n",
        "penalty_repeat": "repeat_penalty",
        "mirostat": "mirostat",
        "mirostat_tau": "mirostat_tau",
        "mirostat_eta": "mirostat_eta",
    }
)


def recommended_sampling(metadata: Mapping[str, Any]) -> tuple[SamplingParams, tuple[str, ...]]:
    """The defaults of a file's requests, and warnings about recommendations that were not followed.

    Args:
        metadata: of the file. Keys it does not have keep the defaults of `SamplingParams`.
    """
    values: dict[str, Any] = {}
    warnings: list[str] = []
    for key, value in metadata.items():
        if not key.startswith(_PREFIX):
            continue
        name = key.removeprefix(_PREFIX)
        if name in _FIELDS:
            field = _FIELDS[name]
            try:
                SamplingParams(**{field: value})
            except InvalidRequestError as error:
                warnings.append(f"the file recommends what cannot be ({key}: {error}), so the default is used")
                continue
            values[field] = value
        else:
            warnings.append(f"the file recommends {key}, which is not available yet, so it has no effect")
    try:
        return SamplingParams(**values), tuple(warnings)
    except InvalidRequestError as error:  # values that do not go together
        warnings.append(f"the file's recommendations contradict each other ({error}), so the defaults are used")
        return SamplingParams(), tuple(warnings)
