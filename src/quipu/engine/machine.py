"""What this process may use of the machine: cores and memory, within control groups of both versions."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

_KIB = 1024
_MOST_DIGITS = 20  # of 64 bits


def available_memory_bytes(root: Path = Path("/")) -> int | None:
    """Memory that can be taken without swapping, files in the page cache included; None where the system is silent.

    Args:
        root: where `proc` and `sys` are; for tests.
    """
    amounts = [left for _, left in _cgroup_memory(root)]
    for line in read_text(root / "proc/meminfo").splitlines():
        name, number, *_ = [*line.split(), "", ""]
        if name == "MemAvailable:" and is_number(number):
            amounts.append(int(number) * _KIB)
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


def is_number(text: str) -> bool:
    """Whether the system wrote a whole number, as far as any of its numbers goes."""
    return text.isascii() and text.isdecimal() and len(text) <= _MOST_DIGITS


def _cpu_quotas(root: Path) -> Iterator[float]:
    for folder in _cgroup_folders(root, "cpu"):
        words = read_text(folder / "cpu.max").split() or [
            read_text(folder / "cpu.cfs_quota_us"),
            read_text(folder / "cpu.cfs_period_us"),
        ]
        if len(words) == 2 and all(is_number(word) and int(word) > 0 for word in words):
            yield int(words[0]) / int(words[1])


def _cgroup_memory(root: Path) -> Iterator[tuple[int, int]]:
    """(limit, what is left of it) of each control group around this process.

    Pages of files count as free: the kernel gives them back.
    """
    for folder in _cgroup_folders(root, "memory"):
        limit = read_text(folder / "memory.max") or read_text(folder / "memory.limit_in_bytes")
        used = read_text(folder / "memory.current") or read_text(folder / "memory.usage_in_bytes")
        if is_number(limit) and is_number(used):
            statistics = dict(
                words for line in read_text(folder / "memory.stat").splitlines() if len(words := line.split()) == 2
            )
            files = statistics.get("file", statistics.get("total_cache", ""))
            yield int(limit), max(0, int(limit) - max(0, int(used) - (int(files) if is_number(files) else 0)))


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
