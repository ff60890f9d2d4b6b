"""Seconds that an import adds to a bare interpreter: best of several processes, interleaved.

python benchmarks/import_time.py [-r 15] [--json FILE]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

from common import write_json

STATEMENTS = ("pass", "import quipu", "from quipu import LLM")


def main() -> None:
    parser = argparse.ArgumentParser(
        description="seconds that an import adds", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("-r", "--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything measured to FILE")
    arguments = parser.parse_args()
    best = dict.fromkeys(STATEMENTS, float("inf"))
    for _ in range(arguments.rounds):
        for statement in STATEMENTS:
            begin = time.perf_counter()
            subprocess.run([sys.executable, "-c", statement], check=True)
            best[statement] = min(best[statement], time.perf_counter() - begin)
    bare = best.pop("pass")
    print(f"{'bare interpreter':<24}{bare:.3f} s")
    for statement, seconds in best.items():
        print(f"{statement:<24}{seconds - bare:+.3f} s")
    if arguments.json:
        added = {statement: seconds - bare for statement, seconds in best.items()}
        write_json(arguments.json, {}, {"title": "Imports", "bare_seconds": bare, "added_seconds": added})


if __name__ == "__main__":
    main()
