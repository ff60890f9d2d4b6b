"""Why this machine computes more slowly than it could, in sentences that say what to do."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from quipu.bench.machine import Machine

_GIB = 1 << 30
_SWAP_WORTH_NAMING_BYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class Kernels:
    """The native code at hand.

    Attributes:
        instruction_set: the chosen set, such as "avx2" or "scalar"; None where the native module does not load.
        features: processor features that were found.
        forced: the value of QUIPU_INSTRUCTION_SET, None where it is not set.
        sets: every set of this build, the best last: its name, and whether this processor runs it.
        load_error: why the native module does not load; None where it does.
    """

    instruction_set: str | None
    features: Sequence[str] = ()
    forced: str | None = None
    sets: Sequence[tuple[str, bool]] = ()
    load_error: str | None = None


def hindrances(machine: Machine, kernels: Kernels) -> list[str]:
    """What makes generation slow here, most harmful first; empty where nothing does."""
    found = []
    if kernels.load_error is not None:
        found.append(
            f"the native module does not load ({kernels.load_error}); reinstall quipu-llm: nothing runs without it"
        )
    found += _processor(machine, kernels)
    found += _cores(machine)
    found += _memory(machine)
    if hasattr(sys, "gettotalrefcount"):
        found.append("this Python is a debug build; use a release build")
    return found


def _processor(machine: Machine, kernels: Kernels) -> list[str]:
    found = []
    emulator = next((name for name in ("QEMU", "VirtualApple") if name in machine.cpu_model), None)
    if emulator is not None:
        found.append(
            f"the processor calls itself {machine.cpu_model!r}: it is emulated or hides its features; "
            "run a build for the real processor, or let the virtual machine pass the host's processor through"
        )
    if kernels.instruction_set == "scalar":
        if kernels.forced == "scalar":
            found.append("QUIPU_INSTRUCTION_SET=scalar forces plain kernels, many times slower; unset it")
        else:
            found.append("the processor offers no AVX2 with FMA and F16C, so plain kernels are used, many times slower")
    elif kernels.forced:
        found.append(
            f"QUIPU_INSTRUCTION_SET={kernels.forced} chooses the kernels by hand; unset it to have the fastest"
        )
    return found


def _cores(machine: Machine) -> list[str]:
    found = []
    if machine.cpu_quota is not None and machine.cpu_quota < machine.num_usable_cores:
        found.append(
            f"the control group allows {machine.cpu_quota:g} of {machine.num_usable_cores} cores; quipu takes "
            "no more threads than that feeds: raise the limit (such as `docker run --cpus`)"
        )
    if machine.num_usable_cores < machine.num_cores:
        found.append(
            f"this process may run on {machine.num_usable_cores} of {machine.num_cores} cores (its affinity); "
            "see `taskset` or the container's settings"
        )
    if machine.load_average is not None and machine.load_average > 0.5 * machine.num_usable_cores + 0.5:
        found.append(
            f"other work keeps {machine.load_average:.1f} of {machine.num_usable_cores} cores busy (load of the last "
            "minute); every thread waits for the slowest, so stop it or use fewer threads"
        )
    return found


def _memory(machine: Machine) -> list[str]:
    found = []
    if machine.swap_used_bytes > _SWAP_WORTH_NAMING_BYTES:
        found.append(
            f"{machine.swap_used_bytes / _GIB:.1f} GiB are swapped out; a model that does not stay in memory is read "
            "from the disk for every token: close programs or use a smaller file"
        )
    if machine.memory_available_bytes is not None and machine.memory_available_bytes < _GIB:
        found.append(
            f"only {machine.memory_available_bytes / _GIB:.1f} GiB of memory are available; most models need more"
        )
    return found
