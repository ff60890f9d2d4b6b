"""Continuing many token sequences at once: requests, pages, scheduler, runner, sampler, and the step that ties them."""

from quipu.engine.embedding_calls import RankedDocument
from quipu.engine.engine import Engine
from quipu.engine.machine import available_memory_bytes, num_usable_cores
from quipu.engine.sampler import Sampler
from quipu.engine.sampling_reference import ReferenceSampler
from quipu.engine.sharing import SharedEngine
from quipu.engine.stream import EventStream

__all__ = [
    "Engine",
    "EventStream",
    "RankedDocument",
    "ReferenceSampler",
    "Sampler",
    "SharedEngine",
    "available_memory_bytes",
    "num_usable_cores",
]
