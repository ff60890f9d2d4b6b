"""What the machine offers: cores, quotas, memory. Read from the system, no measuring.

Everything is read below a `root` folder, so that tests can show a machine that is not there.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from quipu.engine.machine import available_memory_bytes, cpu_quota, memory_limit_bytes, read_text

_KIB = 1024


@dataclass(frozen=True, slots=True)
class Machine:
    """The hardware as this process may use it.

    Attributes:
        system: operating system, release and processor architecture.
        cpu_model: the processor's name, or "unknown".
        num_cores: logical cores that are online.
        num_usable_cores: logical cores this process may run on (its affinity).
        cpu_quota: cores' worth of time that the control group allows, None without a limit.
        memory_total_bytes: installed memory, or the control group's limit where that is lower; None where unknown.
        memory_available_bytes: memory that can be used without swapping; None where unknown.
        swap_used_bytes: what has been swapped out, by any process.
        transparent_huge_pages: the kernel's setting ("always", "madvise", "never"), None where there is none.
        load_average: runnable processes over the last minute; None where the system does not tell.
    """

    system: str
    cpu_model: str
    num_cores: int
    num_usable_cores: int
    cpu_quota: float | None
    memory_total_bytes: int | None
    memory_available_bytes: int | None
    swap_used_bytes: int
    transparent_huge_pages: str | None
    load_average: float | None


def describe_machine(root: Path = Path("/")) -> Machine:
    """Look at the machine.

    Args:
        root: where `proc` and `sys` are.
    """
    memory = _memory_info(root)
    totals = (memory.get("MemTotal"), memory_limit_bytes(root))
    num_cores = os.cpu_count() or 1
    return Machine(
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        cpu_model=_cpu_model(root),
        num_cores=num_cores,
        num_usable_cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else num_cores,
        cpu_quota=cpu_quota(root),
        memory_total_bytes=min((total for total in totals if total is not None), default=None),
        memory_available_bytes=available_memory_bytes(root),
        swap_used_bytes=memory.get("SwapTotal", 0) - memory.get("SwapFree", 0),
        transparent_huge_pages=_chosen(read_text(root / "sys/kernel/mm/transparent_hugepage/enabled")),
        load_average=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    )


def _cpu_model(root: Path) -> str:
    for line in read_text(root / "proc/cpuinfo").splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Model", "cpu model") and value.strip():
            return value.strip()
    if sys.platform == "darwin":
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or "unknown"
    return platform.processor() or "unknown"


def _memory_info(root: Path) -> dict[str, int]:
    """`/proc/meminfo` in bytes."""
    values = {}
    for line in read_text(root / "proc/meminfo").splitlines():
        key, _, rest = line.partition(":")
        number = rest.split()[:1]
        if number and number[0].isdigit():
            values[key] = int(number[0]) * _KIB
    return values


def _chosen(text: str) -> str | None:
    """The bracketed word of a kernel setting such as `always [madvise] never`."""
    words = [word for word in text.split() if word.startswith("[")]
    return words[0].strip("[]") if words else None
