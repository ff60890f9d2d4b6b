"""The processors of made-up machines, read from a fake `/proc` and `/sys`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quipu.engine.topology import (
    FULL_CAPACITY,
    Core,
    Topology,
    apple_cores,
    last_cache_bytes,
    parse_cpu_list,
    read_topology,
)

CPU = "sys/devices/system/cpu"
NODE = "sys/devices/system/node"


def make_root(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n", encoding="utf-8")
    return folder


def processor(number: int, siblings: str, *, package: int = 0, **more: str) -> dict[str, str]:
    """Files of one processor; `more` are files of its folder, with / written as __."""
    folder = f"{CPU}/cpu{number}"
    return {
        f"{folder}/topology/thread_siblings_list": siblings,
        f"{folder}/topology/core_cpus_list": siblings,
        f"{folder}/topology/physical_package_id": str(package),
        **{f"{folder}/{name.replace('__', '/')}": text for name, text in more.items()},
    }


def describe(root: Path, affinity: range | set[int]) -> tuple[int, int, int, int]:
    """Cores, fast cores, most threads, and hardware threads."""
    topology = read_topology(root, affinity=affinity)
    return (
        len(topology.cores),
        topology.num_performance_cores,
        topology.most_threads,
        topology.num_processors,
    )


def hybrid_laptop(**kinds: str) -> dict[str, str]:
    """Two fast cores with two hardware threads each, four efficient ones with one."""
    files = {f"sys/devices/{kind}/cpus": text for kind, text in kinds.items()}
    for number in range(4):
        files |= processor(number, f"{number // 2 * 2}-{number // 2 * 2 + 1}")
    for number in range(4, 8):
        files |= processor(number, str(number))
    return files | {f"{CPU}/online": "0-7"}


def test_hybrid_laptop_that_names_its_kinds(tmp_path: Path) -> None:
    root = make_root(tmp_path, hybrid_laptop(cpu_core="0-3", cpu_atom="4-7"))
    topology = read_topology(root, affinity=range(8))
    assert describe(root, range(8)) == (6, 2, 6, 8)
    assert [core.processors for core in topology.cores] == [(0, 1), (2, 3), (4,), (5,), (6,), (7,)]
    assert [core.is_efficient for core in topology.cores] == [False] * 2 + [True] * 4
    assert topology.thread_candidates() == (2, 3, 6)
    assert topology.describe() == "6 cores, 2 fast and 4 efficient, 8 hardware threads"


def test_hybrid_laptop_with_a_third_kind(tmp_path: Path) -> None:
    root = make_root(tmp_path, hybrid_laptop(cpu_core="0-3", cpu_atom="4-5", cpu_lowpower="6-7"))
    topology = read_topology(root, affinity=range(8))
    assert [core.capacity for core in topology.cores] == [1024, 1024, 600, 600, 400, 400]


def test_hybrid_laptop_told_by_clock_rates(tmp_path: Path) -> None:
    """Favoured cores clock a little higher; they are not another kind."""
    files = hybrid_laptop()
    for number, clock in enumerate([5_200_000] * 2 + [5_000_000] * 2 + [3_800_000] * 4):
        files[f"{CPU}/cpu{number}/cpufreq/cpuinfo_max_freq"] = str(clock)
    assert describe(make_root(tmp_path, files), range(8)) == (6, 2, 6, 8)


def test_only_the_efficient_cores_of_a_hybrid(tmp_path: Path) -> None:
    """What is slow is so beside the cores that this process may use."""
    root = make_root(tmp_path, hybrid_laptop(cpu_core="0-3", cpu_atom="4-7"))
    assert describe(root, {4, 5, 6, 7}) == (4, 4, 4, 4)


def test_big_and_little(tmp_path: Path) -> None:
    files: dict[str, str] = {}
    for number, capacity in enumerate([290] * 4 + [870] * 3 + [1024]):
        files |= processor(number, str(number), cpu_capacity=str(capacity))
    topology = read_topology(make_root(tmp_path, files), affinity=range(8))
    assert [core.processors[0] for core in topology.cores] == [7, 4, 5, 6, 0, 1, 2, 3]
    assert topology.num_performance_cores == 4
    assert topology.thread_candidates() == (2, 4, 8)


def test_equal_capacities_leave_the_clock_to_tell(tmp_path: Path) -> None:
    files: dict[str, str] = {}
    for number in range(4):
        clock = {"cpufreq__cpuinfo_max_freq": "2000000" if number % 2 else "3500000"}
        files |= processor(number, str(number), cpu_capacity="1024", **clock)
    assert describe(make_root(tmp_path, files), range(4)) == (4, 2, 4, 4)


def test_two_sockets_with_two_threads_per_core(tmp_path: Path) -> None:
    files = {f"{CPU}/online": "0-63", f"{NODE}/online": "0-1"}
    files |= {
        f"{NODE}/node{node}/cpulist": f"{16 * node}-{16 * node + 15},{32 + 16 * node}-{47 + 16 * node}"
        for node in (0, 1)
    }
    for number in range(64):
        core = number % 32
        files |= processor(number, f"{core},{core + 32}", package=core // 16)
    topology = read_topology(make_root(tmp_path, files), affinity=range(64))
    assert (len(topology.cores), topology.num_packages, topology.num_nodes) == (32, 2, 2)
    assert [core.node for core in topology.cores] == [0] * 16 + [1] * 16
    assert topology.thread_candidates() == (2, 4, 8, 16, 32)
    assert topology.describe() == "32 cores, 64 hardware threads, 2 sockets, 2 memory nodes"


@pytest.mark.parametrize(
    ("text", "quota", "most"),
    [("max 100000", None, 8), ("150000 100000", 1.5, 2), ("100000 100000", 1.0, 1), ("20000 100000", 0.2, 1)],
)
def test_container_with_a_quota(tmp_path: Path, text: str, quota: float | None, most: int) -> None:
    root = make_root(tmp_path, {f"{CPU}/online": "0-7", "proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": text})
    topology = read_topology(root, affinity=range(8))
    assert (topology.quota, topology.most_threads) == (quota, most)
    assert topology.owns_cores(most) == (quota is None or quota >= most)
    assert not topology.owns_cores(9)


def test_the_tightest_quota_of_the_hierarchy_counts(tmp_path: Path) -> None:
    root = make_root(
        tmp_path,
        {
            "proc/self/cgroup": "0::/slice/pod/container",
            "sys/fs/cgroup/slice/cpu.max": "600000 100000",
            "sys/fs/cgroup/slice/pod/cpu.max": "250000 100000",
            "sys/fs/cgroup/slice/pod/container/cpu.max": "max 100000",
        },
    )
    assert read_topology(root, affinity=range(8)).most_threads == 3


def test_first_version_of_control_groups(tmp_path: Path) -> None:
    root = make_root(
        tmp_path,
        {
            "proc/self/cgroup": "3:cpu,cpuacct:/docker/x\n2:memory:/docker/x\n0::/",
            "sys/fs/cgroup/cpu,cpuacct/docker/x/cpu.cfs_quota_us": "-1",
            "sys/fs/cgroup/cpu/docker/cpu.cfs_quota_us": "350000",
            "sys/fs/cgroup/cpu/docker/cpu.cfs_period_us": "100000",
            "sys/fs/cgroup/cpu/docker/x/cpu.cfs_quota_us": "-1",
            "sys/fs/cgroup/cpu/docker/x/cpu.cfs_period_us": "100000",
        },
    )
    topology = read_topology(root, affinity=range(8))
    assert (topology.quota, topology.most_threads) == (3.5, 4)
    assert topology.describe() == "8 cores, time of 3.5 cores allowed"


def test_affinity_of_one_core(tmp_path: Path) -> None:
    root = make_root(tmp_path, processor(0, "0-1") | processor(1, "0-1"))
    topology = read_topology(root, affinity={1})
    assert [core.processors for core in topology.cores] == [(1,)]
    assert (topology.most_threads, topology.thread_candidates()) == (1, (1,))


def test_cores_that_are_offline_do_not_count(tmp_path: Path) -> None:
    files = {f"{CPU}/online": "0,2-3"}
    for number in range(4):
        files |= processor(number, str(number))
    assert describe(make_root(tmp_path, files), range(4)) == (3, 3, 3, 3)


def test_missing_files(tmp_path: Path) -> None:
    topology = read_topology(tmp_path, affinity=range(4))
    assert topology == Topology(tuple(Core((number,)) for number in range(4)))
    assert last_cache_bytes(range(4), tmp_path) is None
    assert read_topology(tmp_path, affinity=()).most_threads == 1


@pytest.mark.parametrize("garbage", ["", "\0", "-", "x", "-5", "99999999999999999999", "0-99999999999", "3,,-1", "²"])
def test_garbage(tmp_path: Path, garbage: str) -> None:
    """No file of the system makes it fail, and every processor stays usable."""
    files = {f"{CPU}/online": garbage, f"{NODE}/online": garbage, f"{NODE}/node0/cpulist": garbage}
    files |= {"proc/self/cgroup": garbage, "sys/fs/cgroup/cpu.max": f"{garbage} {garbage}"}
    files |= {"sys/devices/cpu_core/cpus": garbage, "sys/devices/cpu_atom/cpus": garbage}
    for number in range(4):
        files |= processor(number, garbage, cpu_capacity=garbage, cpufreq__cpuinfo_max_freq=garbage)
        files[f"{CPU}/cpu{number}/topology/physical_package_id"] = garbage
        files[f"{CPU}/cpu{number}/cache/index0/level"] = garbage
        files[f"{CPU}/cpu{number}/cache/index0/size"] = garbage
    root = make_root(tmp_path, files)
    topology = read_topology(root, affinity=range(4))
    assert topology.num_processors in (
        4,
        1,
    )  # 1: all four are said to be hardware threads of one core, or one is online
    assert 1 <= topology.most_threads <= 4
    assert last_cache_bytes(range(4), root) is None


@given(text=st.text(alphabet="0123456789,-x \n", max_size=40))
def test_lists_never_fail(text: str) -> None:
    assert all(0 <= number < 1 << 16 for number in parse_cpu_list(text))


@given(numbers=st.sets(st.integers(0, 300)))
def test_lists_as_linux_writes_them(numbers: set[int]) -> None:
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and parts[-1][-1] == number - 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    text = ",".join(f"{part[0]}-{part[-1]}" if len(part) > 1 else str(part[0]) for part in parts)
    assert parse_cpu_list(text) == numbers


@given(
    affinity=st.sets(st.integers(0, 31), min_size=1),
    threads_per_core=st.sampled_from([1, 2, 4]),
    quota=st.none() | st.floats(0.01, 64),
)
def test_every_processor_belongs_to_one_core(
    tmp_path_factory: pytest.TempPathFactory, affinity: set[int], threads_per_core: int, quota: float | None
) -> None:
    files = {}
    for number in range(32):
        first = number // threads_per_core * threads_per_core
        files[f"{CPU}/cpu{number}/topology/thread_siblings_list"] = f"{first}-{first + threads_per_core - 1}"
    if quota is not None:
        files["sys/fs/cgroup/cpu.max"] = f"{int(quota * 100000)} 100000"
    topology = read_topology(make_root(tmp_path_factory.mktemp("root"), files), affinity=affinity)
    assert sorted(number for core in topology.cores for number in core.processors) == sorted(affinity)
    assert len(topology.cores) == len({number // threads_per_core for number in affinity})
    assert 1 <= topology.most_threads <= len(topology.cores)
    candidates = topology.thread_candidates()
    assert candidates == tuple(sorted(set(candidates)))
    assert candidates[-1] == topology.most_threads
    assert candidates[0] >= min(2, topology.most_threads)


def test_caches_that_are_shared_count_once(tmp_path: Path) -> None:
    files = {}
    for number in range(8):
        for index, (level, size, shared) in enumerate(
            [(1, "32K", str(number)), (2, "512K", str(number)), (3, "32M", "0-3" if number < 4 else "4-7")]
        ):
            folder = f"{CPU}/cpu{number}/cache/index{index}"
            files |= {f"{folder}/level": str(level), f"{folder}/size": size, f"{folder}/shared_cpu_list": shared}
    root = make_root(tmp_path, files)
    assert last_cache_bytes(range(8), root) == 64 << 20
    assert last_cache_bytes({1, 2}, root) == 32 << 20


@pytest.mark.parametrize(
    ("answers", "fast", "slow"),
    [
        ({"hw.perflevel0.physicalcpu": "8", "hw.perflevel1.physicalcpu": "4"}, 8, 4),
        ({"hw.perflevel0.physicalcpu": "6"}, 6, 0),
        ({"hw.physicalcpu": "4"}, 4, 0),
        ({}, 16, 0),
        ({"hw.perflevel0.physicalcpu": "many"}, 16, 0),
    ],
)
def test_macs(answers: dict[str, str], fast: int, slow: int) -> None:
    cores = apple_cores(16, lambda name: answers.get(name, ""))
    assert [core.is_efficient for core in cores] == [False] * fast + [True] * slow


def test_this_machine() -> None:
    topology = read_topology()
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    assert 1 <= topology.most_threads <= len(topology.cores) <= len(allowed)
    assert topology.cores[0].capacity == FULL_CAPACITY
