"""Which native code this process has: what it found, what it chose."""

from __future__ import annotations

import os

from quipu import _native
from quipu.bench.hindrances import Kernels


def describe_kernels() -> Kernels:
    """Ask the native module."""
    forced = os.environ.get("QUIPU_INSTRUCTION_SET") or None
    return Kernels(_native.instruction_set(), tuple(_native.cpu_features()), forced, _native.instruction_sets())
