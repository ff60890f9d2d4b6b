"""`quipu doctor`: what this machine offers, which kernels were chosen, and why anything is slow."""

from __future__ import annotations

import dataclasses
import json
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from quipu import __version__
from quipu.bench.hindrances import Kernels, hindrances
from quipu.bench.machine import Machine, describe_machine
from quipu.cli.verbs import KERNELS, THREADS
from quipu.engine.threads import ThreadChoice
from quipu.engine.topology import Topology, read_topology

_PACKAGES = ("numpy", "tokenizers", "jinja2", "typer", "rich", "prompt-toolkit")
_GIB = 1 << 30


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object instead of a table")] = False,
) -> int:
    """Show the processor's features, the kernels and threads chosen, cores, memory and versions, and whatever slows
    this machine.

    The exit code is 1 where the native module does not load.
    """
    machine, kernels, topology = describe_machine(), _kernels(), read_topology()
    threads: ThreadChoice | None = THREADS.load()() if kernels.load_error is None else None
    found = hindrances(machine, kernels)
    if as_json:
        report = {
            "quipu": __version__,
            "python": platform.python_version(),
            "packages": _versions(),
            "machine": dataclasses.asdict(machine),
            "topology": dataclasses.asdict(topology),
            "kernels": dataclasses.asdict(kernels),
            "threads": None if threads is None else dataclasses.asdict(threads),
            "hindrances": found,
        }
        print(json.dumps(report, indent=2, ensure_ascii=False))
    else:
        _show(machine, kernels, topology, threads, found)
    return 0 if kernels.load_error is None else 1


def _kernels() -> Kernels:
    try:
        kernels: Kernels = KERNELS.load()()
    except ImportError as error:
        return Kernels(None, load_error=str(error))
    return kernels


def _versions() -> dict[str, str | None]:
    versions: dict[str, str | None] = {}
    for name in _PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = None
    return versions


def _show(
    machine: Machine, kernels: Kernels, topology: Topology, threads: ThreadChoice | None, found: list[str]
) -> None:
    console = Console(highlight=False)
    table = Table.grid(padding=(0, 2))
    for name, value in _rows(machine, kernels, topology, threads):
        table.add_row(f"[bold]{name}[/]", value)
    console.print(table)
    console.print()
    if not found:
        console.print("[green]nothing slows this machine[/]")
    for line in found:
        console.print(f"[yellow]slow:[/] {line}", soft_wrap=True)


def _rows(
    machine: Machine, kernels: Kernels, topology: Topology, threads: ThreadChoice | None
) -> list[tuple[str, str]]:
    versions = ", ".join(f"{name} {number or 'missing'}" for name, number in _versions().items())
    forced = f" (forced by QUIPU_INSTRUCTION_SET={kernels.forced})" if kernels.forced else ""
    return [
        ("processor", machine.cpu_model),
        ("features", " ".join(kernels.features) or "unknown"),
        ("kernels", f"{kernels.instruction_set or 'none: the native module does not load'}{forced}"),
        ("kernel sets", _sets(kernels)),
        ("cores", f"{topology.describe()} (of {machine.num_cores} processors, {machine.num_usable_cores} usable)"),
        ("threads", _threads(threads)),
        ("memory", f"{_gib(machine.memory_available_bytes)} available of {_gib(machine.memory_total_bytes)}"),
        ("swap in use", _gib(machine.swap_used_bytes)),
        ("huge pages", machine.transparent_huge_pages or "not offered by this system"),
        ("system", machine.system),
        ("python", f"{platform.python_version()} ({sys.executable})"),
        ("versions", f"quipu {__version__}, {versions}"),
    ]


def _sets(kernels: Kernels) -> str:
    here = " ".join(name for name, supported in kernels.sets if supported)
    elsewhere = " ".join(name for name, supported in kernels.sets if not supported)
    return (here or "unknown") + (f" (not on this processor: {elsewhere})" if elsewhere else "")


def _threads(threads: ThreadChoice | None) -> str:
    if threads is None:
        return "none: the native module does not load"
    return f"{threads.generation} for generation ({threads.reason}), {threads.prompt} for prompts"


def _gib(num_bytes: Any) -> str:
    return "unknown" if num_bytes is None else f"{num_bytes / _GIB:.1f} GiB"
