"""Print the innermost loops of compiled kernels that multiply, and fail where a dense one spills vectors to the stack.

    python tools/inspect_kernels.py [--print] [--measured SET] [--objdump aarch64-linux-gnu-objdump] OBJECT...

For each such loop: the function, how many instructions it has, how many of them multiply or broadcast, and how many
places on the stack it stores a vector to and loads the whole of it from. `--print` adds the instructions. A loop is
dense if a sixth of it or more multiplies; in the kernels of a set named by `--measured` spills are printed only, since
its speed is known. It also fails where an object defines a weak function: the linker keeps one copy for all instruction
sets, which could be one that this processor cannot run. Written for kernels of instruction sets that no machine at hand
has: what cannot be measured can at least be read.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

# What multiplies in a hot loop, on x86 and on ARM.
_MULTIPLY = re.compile(r"^(vpdpbusd|vpmaddubsw|vdpbf16ps|tdp\w+|vfn?m(add|sub)\w+ps|sdot|smmla|smull2?|fmla)$")
_ADDRESS = re.compile(r"^\s*([0-9a-f]+):\t(.*)$")
# Vectors on the stack. What reads a part of one reads an array that was meant to be in memory.
_X86_STACK = re.compile(r"-?(?:0x[0-9a-f]+)?\(%r[sb]p[^)]*\)")
_X86_STORE = re.compile(r"^vmov\S*\s+%[xyz]mm\d+,(" + _X86_STACK.pattern + ")$")
_X86_PART = re.compile(r"broadcast|^vmov(ddup|s[sd]|[dq]) |^vpmov[sz]x|^vpinsr|\{1to|^v?(cvt|mul|add)s[sd]")
_ARM_STACK = re.compile(r"^(st|ld)[rpu]\w*\s+q\d+, (q\d+, )?\[sp(?:, #(-?\d+))?\]$")


@dataclass(frozen=True)
class Instruction:
    """One line of a disassembly."""

    address: int
    text: str

    @property
    def mnemonic(self) -> str:
        words = self.text.split()
        return words[1] if len(words) > 1 and words[0] in ("rep", "lock", "{vex}") else words[0]

    @property
    def target(self) -> int | None:
        """Where a jump goes; None for anything else."""
        if not re.match(r"^(j\w+|b(\.\w+)?|cbn?z|tbn?z)$", self.mnemonic):
            return None
        found = re.search(r"\b([0-9a-f]+) <", self.text)
        return int(found.group(1), 16) if found else None


def disassemble(objdump: str, path: str) -> dict[str, list[Instruction]]:
    """Functions of an object file, by demangled name."""
    listing = subprocess.run(
        [objdump, "-d", "-C", "--no-show-raw-insn", path], check=True, capture_output=True, text=True
    ).stdout
    functions: dict[str, list[Instruction]] = {}
    current: list[Instruction] = []
    for line in listing.splitlines():
        if line.endswith(">:"):
            current = functions.setdefault(line.split(" ", 1)[1][1:-2], [])
        elif found := _ADDRESS.match(line):
            current.append(Instruction(int(found.group(1), 16), found.group(2)))
    return functions


def innermost_loops(function: list[Instruction]) -> list[list[Instruction]]:
    """Bodies between a backward jump and its target that hold no other such body and multiply."""
    index = {instruction.address: i for i, instruction in enumerate(function)}
    spans = {
        (index[target], i)
        for i, instruction in enumerate(function)
        if (target := instruction.target) is not None and target <= instruction.address and target in index
    }
    inner = [s for s in spans if not any(o != s and s[0] <= o[0] and o[1] <= s[1] for o in spans)]
    bodies = [function[first : last + 1] for first, last in sorted(inner)]
    return [body for body in bodies if any(_MULTIPLY.match(i.mnemonic) for i in body)]


def count_spills(body: list[Instruction]) -> int:
    """Places on the stack that a loop stores a vector to and loads it from."""
    stored: set[str] = set()
    loaded: set[str] = set()
    for instruction in body:
        text = instruction.text.split(" #")[0].strip()
        if arm := _ARM_STACK.match(text):
            offset = int(arm.group(3) or 0)
            places = {str(offset)} | ({str(offset + 16)} if arm.group(2) else set())
            (stored if arm.group(1) == "st" else loaded).update(places)
        elif x86 := _X86_STORE.match(text):
            stored.add(x86.group(1))
        elif not _X86_PART.search(text):
            loaded.update(_X86_STACK.findall(text))
    return len(stored & loaded)


def weak_functions(objdump: str, path: str) -> list[str]:
    """Functions that the linker may take from another object file."""
    table = subprocess.run([objdump, "-t", "-C", path], check=True, capture_output=True, text=True).stdout
    return [line.split("\t")[-1] for line in table.splitlines() if re.search(r"^\S+\s+.?w.{4}F ", line)]


def report(objdump: str, path: str, print_code: bool, may_spill: bool) -> bool:
    """Print what was found; False if something is wrong."""
    good = True
    for name in weak_functions(objdump, path):
        print(f"{path}: weak function {name}")
        good = False
    for name, function in disassemble(objdump, path).items():
        for body in innermost_loops(function):
            multiply = sum(bool(_MULTIPLY.match(i.mnemonic)) for i in body)
            broadcast = sum("broadcast" in i.mnemonic or "{1to" in i.text or i.mnemonic == "ld1r" for i in body)
            spills = count_spills(body)
            short = re.sub(r"quipu::|\(anonymous namespace\)::|\(.*", "", name)
            print(f"{short}: {len(body)} instructions, {multiply} multiply, {broadcast} broadcast, {spills} spill")
            if print_code:
                print("".join(f"    {i.text}\n" for i in body))
            good = good and (may_spill or spills == 0 or 6 * multiply < len(body))
    return good


def main() -> int:
    """0 if all is well."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("objects", nargs="+")
    parser.add_argument("--objdump", default="objdump")
    parser.add_argument("--print", action="store_true", dest="print_code")
    parser.add_argument("--measured", metavar="SET")
    options = parser.parse_args()
    good = [
        report(options.objdump, path, options.print_code, Path(path).parent.name == options.measured)
        for path in options.objects
    ]
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
