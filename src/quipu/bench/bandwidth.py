"""How fast this machine reads memory: the limit of generation, which reads all weights for every token."""

from __future__ import annotations

from dataclasses import dataclass

from quipu import _native
from quipu.errors import EngineError

_BUFFER_BYTES = 1 << 30  # far beyond any cache


@dataclass(frozen=True, slots=True)
class Bandwidth:
    """The best of several ways to read a large buffer with all threads.

    Attributes:
        bytes_per_second: what the fastest way reached.
        method: its name.
        by_method: every way tried, with the bytes per second it reached.
        num_threads: threads that read.
        num_bytes: size of the buffer.
    """

    bytes_per_second: float
    method: str
    by_method: dict[str, float]
    num_threads: int
    num_bytes: int


def measure_bandwidth(num_threads: int, *, available_bytes: int | None = None, repeats: int = 3) -> Bandwidth:
    """Measure it; takes about a second.

    Args:
        num_threads: threads that read at the same time.
        available_bytes: free memory; the buffer takes at most a quarter of it.
        repeats: passes over the buffer per method, of which the best counts.

    Raises:
        EngineError: the native module offers no method.
    """
    num_bytes = _BUFFER_BYTES if available_bytes is None else min(_BUFFER_BYTES, available_bytes // 4)
    measured = _native.measure_read_bandwidth(num_threads, num_bytes, repeats)
    if not measured:
        raise EngineError("the native module offers no way to measure the memory bandwidth; reinstall quipu-llm")
    by_method = {method: float(value) for method, value in measured}
    best = max(by_method, key=lambda method: by_method[method])
    return Bandwidth(by_method[best], best, by_method, num_threads, num_bytes)
