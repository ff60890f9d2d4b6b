"""Which backend computes: the native kernels, unless the environment asks for the plain ones."""

from __future__ import annotations

import os

from quipu.backends.cpu import CPUBackend
from quipu.backends.program import Backend
from quipu.backends.reference import ReferenceBackend
from quipu.errors import UsageError


def choose_backend(
    num_threads: int, *, few_token_threads: int | None = None, owns_cores: bool | None = None
) -> Backend:
    """The CPU backend, or plain numpy where QUIPU_BACKEND=reference asks for it: slow, and easy to believe.

    Args:
        num_threads, few_token_threads, owns_cores: see `CPUBackend`.

    Raises:
        UsageError: the variable has another value.
    """
    name = os.environ.get("QUIPU_BACKEND", "cpu")
    if name not in ("cpu", "reference"):
        raise UsageError(f"QUIPU_BACKEND must be cpu or reference, not {name!r}")
    if name == "reference":
        return ReferenceBackend()
    return CPUBackend(num_threads, few_token_threads=few_token_threads, owns_cores=owns_cores)
