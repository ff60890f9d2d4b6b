"""The processors that this process may use: cores and their speeds, memory nodes, and the time it is allowed.

Everything is read below a `root` folder, so that tests can show a machine that is not there. Missing or senseless files
count as absent: in doubt every processor is a core of its own, as fast as the others.

Sources: Documentation/ABI/testing/sysfs-devices-system-cpu and Documentation/admin-guide/cputopology.rst of Linux.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from quipu.engine.machine import cpu_quota, is_number, read_text

FULL_CAPACITY = 1024  # of the fastest core, as Linux counts

# A slower core than this, as a share of the fastest, is an efficiency core. Turbo clocks and favoured cores differ by
# less; the efficiency cores of Intel's hybrids reach 0.5 to 0.75, the small ones of ARM 0.25 to 0.5.
_PERFORMANCE_SHARE = 0.78
# Where Linux names the kinds of a hybrid and not their speeds (`/sys/devices/cpu_atom`).
_KIND_CAPACITIES = {"cpu_core": FULL_CAPACITY, "cpu_atom": 600, "cpu_lowpower": 400}
_MOST_PROCESSORS = 1 << 16
_MIB = 1 << 20
_KIB = 1 << 10


@dataclass(frozen=True, slots=True)
class Core:
    """A physical core.

    Attributes:
        processors: numbers of its hardware threads that this process may use, ascending.
        capacity: its speed in 1024ths of the fastest core's.
        node: the memory node it belongs to.
        package: the socket it sits in.
    """

    processors: tuple[int, ...]
    capacity: int = FULL_CAPACITY
    node: int = 0
    package: int = 0

    @property
    def is_efficient(self) -> bool:
        """Whether it is built to save power rather than to be fast."""
        return self.capacity < _PERFORMANCE_SHARE * FULL_CAPACITY


@dataclass(frozen=True, slots=True)
class Topology:
    """The cores that this process may use, the fastest first.

    Attributes:
        cores: at least one.
        quota: cores' worth of time that the control groups allow; None without a limit.
    """

    cores: tuple[Core, ...]
    quota: float | None = None

    @property
    def num_processors(self) -> int:
        """Hardware threads."""
        return sum(len(core.processors) for core in self.cores)

    @property
    def num_performance_cores(self) -> int:
        return sum(not core.is_efficient for core in self.cores)

    @property
    def num_nodes(self) -> int:
        return len({core.node for core in self.cores})

    @property
    def num_packages(self) -> int:
        return len({core.package for core in self.cores})

    @property
    def most_threads(self) -> int:
        """One thread for each core, no more than the quota feeds: two hardware threads share the arithmetic of a core,
        and threads beyond the quota only use it up sooner."""
        return len(self.cores) if self.quota is None else max(1, min(len(self.cores), math.ceil(self.quota)))

    def owns_cores(self, num_threads: int) -> bool:
        """Whether so many threads have a core and all of its time each. If not, waiting threads must not spin."""
        return num_threads <= len(self.cores) and (self.quota is None or num_threads <= self.quota)

    def thread_candidates(self) -> tuple[int, ...]:
        """Numbers of threads worth measuring for generation, ascending: halves of all cores and of the fast ones.

        Generation is bound by memory, which a part of the cores saturates; more only meet more often.
        """
        counts = set()
        for most in (self.most_threads, min(self.num_performance_cores, self.most_threads)):
            while most > 1:
                counts.add(most)
                most = (most + 1) // 2
        return tuple(sorted(counts)) or (1,)

    def describe(self) -> str:
        """In words, for people."""
        parts = [f"{len(self.cores)} {'core' if len(self.cores) == 1 else 'cores'}"]
        slow = len(self.cores) - self.num_performance_cores
        if slow:
            parts.append(f"{self.num_performance_cores} fast and {slow} efficient")
        if self.num_processors > len(self.cores):
            parts.append(f"{self.num_processors} hardware threads")
        if self.num_packages > 1:
            parts.append(f"{self.num_packages} sockets")
        if self.num_nodes > 1:
            parts.append(f"{self.num_nodes} memory nodes")
        if self.quota is not None:
            parts.append(f"time of {self.quota:g} cores allowed")
        return ", ".join(parts)


def read_topology(root: Path = Path("/"), *, affinity: Collection[int] | None = None) -> Topology:
    """Look at the machine.

    Args:
        root: where `proc` and `sys` are.
        affinity: processors that this process may run on; None asks the system.
    """
    folder = root / "sys/devices/system/cpu"
    allowed = set(_own_affinity() if affinity is None else affinity)
    online = parse_cpu_list(read_text(folder / "online"))
    usable = sorted(allowed & online or allowed) or [0]
    if sys.platform == "darwin" and root == Path("/"):
        return Topology(apple_cores(len(usable), _ask_sysctl))
    capacities = _capacities(root, usable)
    nodes = _memory_nodes(root)
    left = set(usable)
    cores = []
    for number in usable:
        if number not in left:
            continue
        siblings = _siblings(folder / f"cpu{number}/topology", number) & left
        left -= siblings
        package = read_text(folder / f"cpu{number}/topology/physical_package_id")
        cores.append(
            Core(
                tuple(sorted(siblings)),
                max(capacities[sibling] for sibling in siblings),
                nodes.get(number, 0),
                int(package) if is_number(package) else 0,
            )
        )
    return Topology(tuple(sorted(cores, key=lambda core: (-core.capacity, core.processors))), cpu_quota(root))


def last_cache_bytes(processors: Collection[int], root: Path = Path("/")) -> int | None:
    """All last-level caches that the processors reach, each counted once; None where the system does not tell."""
    total, seen = 0, set[int]()
    for number in processors:
        if number in seen:
            continue
        levels = []
        for index in range(6):
            cache = root / f"sys/devices/system/cpu/cpu{number}/cache/index{index}"
            level, size = read_text(cache / "level"), read_text(cache / "size")
            unit = {"K": _KIB, "M": _MIB}.get(size[-1:])
            if is_number(level) and is_number(size[:-1]) and unit:
                shared = parse_cpu_list(read_text(cache / "shared_cpu_list")) | {number}
                levels.append((int(level), int(size[:-1]) * unit, shared))
        if levels:
            _, num_bytes, shared = max(levels, key=lambda found: found[:2])
            total += num_bytes
            seen |= shared
    return total or None


def parse_cpu_list(text: str) -> set[int]:
    """The numbers of a list as Linux writes it, `0-3,8,10-11`. What is no number or far too large is left out."""
    numbers: set[int] = set()
    for part in text.split(","):
        first, dash, last = (word.strip() for word in part.partition("-"))
        if not is_number(first) or (dash and not is_number(last)):
            continue
        numbers.update(range(int(first), min(int(last if dash else first) + 1, _MOST_PROCESSORS)))
    return numbers


def apple_cores(num_cores: int, ask: Callable[[str], str]) -> tuple[Core, ...]:
    """Cores of a Mac, which hides everything but how many there are of each level.

    Args:
        num_cores: in all, where the levels are unknown (Intel).
        ask: the value of a name of `sysctl`, empty where it has none.
    """
    levels = [ask(f"hw.perflevel{level}.physicalcpu") for level in range(2)]
    if not is_number(levels[0]) or int(levels[0]) == 0:
        physical = ask("hw.physicalcpu")
        fast, slow = (int(physical) if is_number(physical) and int(physical) else num_cores), 0
    else:
        fast, slow = int(levels[0]), int(levels[1]) if is_number(levels[1]) else 0
    capacities = [FULL_CAPACITY] * fast + [_KIND_CAPACITIES["cpu_atom"]] * slow
    return tuple(Core((number,), capacity) for number, capacity in enumerate(capacities))


def _own_affinity() -> Collection[int]:
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return range(os.cpu_count() or 1)


def _ask_sysctl(name: str) -> str:
    try:
        done = subprocess.run(["sysctl", "-n", name], capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip()


def _siblings(folder: Path, number: int) -> set[int]:
    for name in ("core_cpus_list", "thread_siblings_list"):
        siblings = parse_cpu_list(read_text(folder / name))
        if number in siblings:
            return siblings
    return {number}


def _capacities(root: Path, usable: Collection[int]) -> Mapping[int, int]:
    """Processor -> capacity, from the first source that tells them apart; all are alike where none does."""
    folder = root / "sys/devices/system/cpu"
    kinds: dict[int, int] = {}
    for kind, capacity in _KIND_CAPACITIES.items():
        kinds |= dict.fromkeys(parse_cpu_list(read_text(root / f"sys/devices/{kind}/cpus")), capacity)
    for name in ("cpu_capacity", "", "cpufreq/cpuinfo_max_freq", "acpi_cppc/highest_perf"):
        speeds = {}
        for number in usable:
            text = read_text(folder / f"cpu{number}" / name) if name else str(kinds.get(number, ""))
            if not is_number(text) or int(text) == 0:
                break
            speeds[number] = int(text)
        if len(speeds) == len(usable) and len(set(speeds.values())) > 1:
            fastest = max(speeds.values())
            return {number: max(1, speed * FULL_CAPACITY // fastest) for number, speed in speeds.items()}
    return dict.fromkeys(usable, FULL_CAPACITY)


def _memory_nodes(root: Path) -> Mapping[int, int]:
    """Processor -> memory node."""
    folder = root / "sys/devices/system/node"
    nodes: dict[int, int] = {}
    for node in sorted(parse_cpu_list(read_text(folder / "online"))):
        nodes |= dict.fromkeys(parse_cpu_list(read_text(folder / f"node{node}/cpulist")), node)
    return nodes
