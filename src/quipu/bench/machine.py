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

from quipu.engine.machine import available_memory_bytes

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
    amounts = [memory["MemTotal"]] if "MemTotal" in memory else []
    amounts += _cgroup_memory_limits(root)
    num_cores = os.cpu_count() or 1
    return Machine(
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        cpu_model=_cpu_model(root),
        num_cores=num_cores,
        num_usable_cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else num_cores,
        cpu_quota=_cpu_quota(root),
        memory_total_bytes=min(amounts, default=None),
        memory_available_bytes=available_memory_bytes(root),
        swap_used_bytes=memory.get("SwapTotal", 0) - memory.get("SwapFree", 0),
        transparent_huge_pages=_chosen(_read(root / "sys/kernel/mm/transparent_hugepage/enabled")),
        load_average=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    )


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None


def _cpu_model(root: Path) -> str:
    for line in (_read(root / "proc/cpuinfo") or "").splitlines():
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
    for line in (_read(root / "proc/meminfo") or "").splitlines():
        key, _, rest = line.partition(":")
        number = rest.split()[:1]
        if number and number[0].isdigit():
            values[key] = int(number[0]) * _KIB
    return values


def _cgroup_folders(root: Path) -> list[Path]:
    """The unified control group of this process and those above it, innermost first."""
    base = root / "sys/fs/cgroup"
    for line in (_read(root / "proc/self/cgroup") or "").splitlines():
        if line.startswith("0::"):
            folder = base / line[3:].strip().lstrip("/")
            return [folder, *(parent for parent in folder.parents if parent == base or base in parent.parents)]
    return [base]


def _cpu_quota(root: Path) -> float | None:
    quotas = []
    for folder in _cgroup_folders(root):
        words = (_read(folder / "cpu.max") or "").split()
        if len(words) == 2 and words[0].isdigit() and words[1].isdigit() and int(words[1]):
            quotas.append(int(words[0]) / int(words[1]))
    legacy = root / "sys/fs/cgroup/cpu"
    quota, period = _read(legacy / "cpu.cfs_quota_us"), _read(legacy / "cpu.cfs_period_us")
    if quota and period and quota.strip().isdigit() and period.strip().isdigit() and int(period):
        quotas.append(int(quota) / int(period))
    return min(quotas, default=None)


def _cgroup_memory_limits(root: Path) -> list[int]:
    files = [folder / "memory.max" for folder in _cgroup_folders(root)]
    texts = [_read(file) for file in [*files, root / "sys/fs/cgroup/memory/memory.limit_in_bytes"]]
    return [int(text) for text in texts if text is not None and text.strip().isdigit()]


def _chosen(text: str | None) -> str | None:
    """The bracketed word of a kernel setting such as `always [madvise] never`."""
    words = [word for word in (text or "").split() if word.startswith("[")]
    return words[0].strip("[]") if words else None
