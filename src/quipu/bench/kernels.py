"""Which native code this process has: what it found, what it chose."""

from __future__ import annotations

import os

from quipu import _native
from quipu.backends.cpu import measure_threads
from quipu.bench.hindrances import Kernels
from quipu.engine.threads import ThreadChoice, choose_threads
from quipu.engine.topology import read_topology


def describe_kernels() -> Kernels:
    """Ask the native module."""
    forced = os.environ.get("QUIPU_INSTRUCTION_SET") or None
    return Kernels(_native.instruction_set(), tuple(_native.cpu_features()), forced, _native.instruction_sets())


def describe_threads() -> ThreadChoice:
    """The numbers of threads that a model would get now, measured where they have to be.

    Raises:
        UsageError: QUIPU_THREADS is out of range.
    """
    return choose_threads(read_topology(), measure_threads)
