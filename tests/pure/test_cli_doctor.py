"""What the machine offers, read from a made-up `/proc` and `/sys`, and what slows it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from quipu.bench.hindrances import Kernels, hindrances
from quipu.bench.machine import Machine, describe_machine
from quipu.cli import main
from quipu.cli.verbs import Late

GIB = 1 << 30
GOOD = Machine(
    system="Linux 6.1 x86_64",
    cpu_model="Some Processor",
    num_cores=8,
    num_usable_cores=8,
    cpu_quota=None,
    memory_total_bytes=32 * GIB,
    memory_available_bytes=20 * GIB,
    swap_used_bytes=0,
    transparent_huge_pages="madvise",
    load_average=0.5,
)
AVX2 = Kernels("avx2", ("avx2", "fma", "f16c"), sets=[("scalar", True), ("avx2", True), ("avx512", False)])


def make_root(folder: Path, files: dict[str, str]) -> Path:
    """A root folder with these files in it."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


MEMINFO = "MemTotal: 16777216 kB\nMemAvailable: 8388608 kB\nSwapTotal: 2097152 kB\nSwapFree: 1048576 kB\n"


def test_machine_without_limits(tmp_path: Path) -> None:
    root = make_root(
        tmp_path,
        {
            "proc/cpuinfo": "processor : 0\nmodel name\t: Fast CPU 9000\n",
            "proc/meminfo": MEMINFO,
            "proc/self/cgroup": "0::/\n",
            "sys/fs/cgroup/cpu.max": "max 100000\n",
            "sys/kernel/mm/transparent_hugepage/enabled": "always [madvise] never\n",
        },
    )
    machine = describe_machine(root)
    assert machine.cpu_model == "Fast CPU 9000"
    assert machine.cpu_quota is None
    assert (machine.memory_total_bytes, machine.memory_available_bytes) == (16 * GIB, 8 * GIB)
    assert machine.swap_used_bytes == GIB
    assert machine.transparent_huge_pages == "madvise"


def test_limits_of_the_control_groups_above_count(tmp_path: Path) -> None:
    root = make_root(
        tmp_path,
        {
            "proc/meminfo": MEMINFO,
            "proc/self/cgroup": "0::/pod/container\n",
            "sys/fs/cgroup/pod/cpu.max": "150000 100000\n",
            "sys/fs/cgroup/pod/container/cpu.max": "max 100000\n",
            "sys/fs/cgroup/pod/memory.max": str(4 * GIB),
            "sys/fs/cgroup/pod/memory.current": str(GIB),
            "sys/fs/cgroup/pod/container/memory.max": "max\n",
        },
    )
    machine = describe_machine(root)
    assert machine.cpu_quota == 1.5
    assert (machine.memory_total_bytes, machine.memory_available_bytes) == (4 * GIB, 3 * GIB)


def test_first_generation_of_control_groups(tmp_path: Path) -> None:
    root = make_root(
        tmp_path,
        {
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "50000",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": str(2 * GIB),
            "sys/fs/cgroup/memory/memory.usage_in_bytes": str(GIB),
        },
    )
    machine = describe_machine(root)
    assert machine.cpu_quota == 0.5
    assert (machine.memory_total_bytes, machine.memory_available_bytes) == (2 * GIB, GIB)


def test_system_that_tells_nothing(tmp_path: Path) -> None:
    machine = describe_machine(tmp_path)
    assert (machine.memory_total_bytes, machine.transparent_huge_pages, machine.swap_used_bytes) == (None, None, 0)
    assert machine.num_cores >= machine.num_usable_cores >= 1


def test_this_machine() -> None:
    machine = describe_machine()
    assert machine.num_cores >= 1
    assert hindrances(GOOD, AVX2) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"cpu_quota": 2.0}, "allows 2 of 8 cores"),
        ({"num_usable_cores": 4}, "may run on 4 of 8 cores"),
        ({"load_average": 7.5}, "other work keeps 7.5 of 8 cores busy"),
        ({"swap_used_bytes": GIB}, "1.0 GiB are swapped out"),
        ({"memory_available_bytes": GIB // 2}, "only 0.5 GiB of memory"),
        ({"cpu_model": "QEMU Virtual CPU version 2.5+"}, "it is emulated"),
    ],
)
def test_hindrances_of_the_machine(change: dict[str, object], words: str) -> None:
    (line,) = hindrances(dataclasses.replace(GOOD, **change), AVX2)  # type: ignore[arg-type]
    assert words in line


@pytest.mark.parametrize(
    ("kernels", "words"),
    [
        (Kernels("scalar"), "no AVX2"),
        (Kernels("scalar", ("avx2",), "scalar"), "unset it"),
        (Kernels("avx2", ("avx2",), "avx2"), "chooses the kernels by hand"),
        (Kernels(None, load_error="no such file"), "the native module does not load (no such file)"),
    ],
)
def test_hindrances_of_the_kernels(kernels: Kernels, words: str) -> None:
    (line,) = hindrances(GOOD, kernels)
    assert words in line


def test_doctor_lists_the_kernel_sets(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("quipu.cli.doctor._kernels", lambda: AVX2)
    main(["doctor", "--json"])
    assert json.loads(capsys.readouterr().out)["kernels"]["sets"] == [
        ["scalar", True],
        ["avx2", True],
        ["avx512", False],
    ]
    main(["doctor"])
    assert "scalar avx2 (not on this processor: avx512)" in " ".join(capsys.readouterr().out.split())


def test_doctor_without_the_native_module(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("quipu.cli.doctor.KERNELS", Late("quipu.no_such_module", "describe_kernels"))
    assert main(["doctor", "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert "no_such_module" in report["kernels"]["load_error"]
    assert report["hindrances"][0].startswith("the native module does not load")
    assert main(["doctor"]) == 1
    assert "none: the native module does not load" in capsys.readouterr().out
