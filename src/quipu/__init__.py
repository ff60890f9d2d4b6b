"""quipu: run language models from GGUF files on the hardware you own.

Public names resolve on first use (PEP 562), so `import quipu` itself loads nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from quipu.api import LLM as LLM
    from quipu.api import Completion as Completion
    from quipu.errors import QuipuError as QuipuError
    from quipu.tokenizer import Tokenizer as Tokenizer
    from quipu.types import ConstraintSpec as ConstraintSpec
    from quipu.types import Event as Event
    from quipu.types import RequestOptions as RequestOptions
    from quipu.types import SamplingParams as SamplingParams

__version__ = "0.1.0"

__all__ = [
    "LLM",
    "Completion",
    "ConstraintSpec",
    "Event",
    "QuipuError",
    "RequestOptions",
    "SamplingParams",
    "Tokenizer",
    "__version__",
]

_HOME = {
    "LLM": "quipu.api",
    "Completion": "quipu.api",
    "ConstraintSpec": "quipu.types",
    "Event": "quipu.types",
    "QuipuError": "quipu.errors",
    "RequestOptions": "quipu.types",
    "SamplingParams": "quipu.types",
    "Tokenizer": "quipu.tokenizer",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'quipu' has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
