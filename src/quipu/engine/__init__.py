"""Continuing many token sequences at once: requests, pages, scheduler, runner, sampler, and the step that ties them."""

from quipu.engine.embedding_calls import RankedDocument
from quipu.engine.engine import Engine
from quipu.engine.machine import available_memory_bytes
from quipu.engine.sampler import Sampler
from quipu.engine.sampling_reference import ReferenceSampler
from quipu.engine.sequence_cache import CacheOptions
from quipu.engine.sharing import SharedEngine
from quipu.engine.stream import EventStream
from quipu.engine.threads import ThreadChoice, ThreadRate, choose_threads
from quipu.engine.topology import Core, Topology, read_topology

__all__ = [
    "CacheOptions",
    "Core",
    "Engine",
    "EventStream",
    "RankedDocument",
    "ReferenceSampler",
    "Sampler",
    "SharedEngine",
    "ThreadChoice",
    "ThreadRate",
    "Topology",
    "available_memory_bytes",
    "choose_threads",
    "read_topology",
]
