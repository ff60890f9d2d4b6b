"""What this process may use of the machine: cores and memory, within control groups of both versions."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

_KIB = 1024


def num_usable_cores(root: Path = Path("/")) -> int:
    """Physical cores that this process may run on, within its control group's share of processor time.

    Two hardware threads of a core share its arithmetic units, so they count once.

    Args:
        root: where `proc` and `sys` are; for tests.
    """
    has_affinity = hasattr(os, "sched_getaffinity")
    logical = os.sched_getaffinity(0) if has_affinity else range(os.cpu_count() or 1)
    cores = {
        read_text(root / f"sys/devices/system/cpu/cpu{number}/topology/thread_siblings_list") or str(number)
        for number in logical
    }
    quota = cpu_quota(root)
    return max(1, len(cores) if quota is None else min(len(cores), math.ceil(quota)))


def available_memory_bytes(root: Path = Path("/")) -> int | None:
    """Memory that can be taken without swapping, files in the page cache included; None where the system is silent.

    Args:
        root: where `proc` and `sys` are; for tests.
    """
    amounts = [left for _, left in _cgroup_memory(root)]
    for line in read_text(root / "proc/meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            amounts.append(int(line.split()[1]) * _KIB)
    if not amounts and root == Path("/") and "SC_PHYS_PAGES" in os.sysconf_names:
        amounts.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return min(amounts, default=None)


def cpu_quota(root: Path = Path("/")) -> float | None:
    """Cores' worth of time that the tightest control group around this process allows; None without a limit."""
    return min(_cpu_quotas(root), default=None)


def memory_limit_bytes(root: Path = Path("/")) -> int | None:
    """The lowest memory limit of a control group around this process; None without a limit."""
    return min((limit for limit, _ in _cgroup_memory(root)), default=None)


def read_text(path: Path) -> str:
    """The text of a small file of the system, stripped; empty where there is none."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _cpu_quotas(root: Path) -> Iterator[float]:
    for folder in _cgroup_folders(root, "cpu"):
        words = read_text(folder / "cpu.max").split() or [
            read_text(folder / "cpu.cfs_quota_us"),
            read_text(folder / "cpu.cfs_period_us"),
        ]
        if len(words) == 2 and words[0].isdigit() and words[1].isdigit() and int(words[1]) > 0:
            yield int(words[0]) / int(words[1])


def _cgroup_memory(root: Path) -> Iterator[tuple[int, int]]:
    """(limit, what is left of it) of each control group around this process.

    Pages of files count as free: the kernel gives them back.
    """
    for folder in _cgroup_folders(root, "memory"):
        limit = read_text(folder / "memory.max") or read_text(folder / "memory.limit_in_bytes")
        used = read_text(folder / "memory.current") or read_text(folder / "memory.usage_in_bytes")
        if limit.isdigit() and used.isdigit():
            statistics = dict(
                line.split()[:2] for line in read_text(folder / "memory.stat").splitlines() if " " in line
            )
            files = int(statistics.get("file", statistics.get("total_cache", "0")))
            yield int(limit), max(0, int(limit) - max(0, int(used) - files))


def _cgroup_folders(root: Path, controller: str) -> Iterator[Path]:
    """The control groups of this process: the unified one and version 1's of `controller`, with all above them."""
    base = root / "sys/fs/cgroup"
    yield from (base, base / controller)
    for line in read_text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers == "" or controller in controllers.split(","):
            folder = base / controller if controllers else base
            for part in Path(path.lstrip("/")).parts:
                folder = folder / part
                yield folder
