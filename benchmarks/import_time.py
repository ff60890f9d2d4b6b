"""Seconds that an import adds to a bare interpreter: best of several processes, interleaved.

python benchmarks/import_time.py [RUNS]
"""

from __future__ import annotations

import subprocess
import sys
import time

STATEMENTS = ("pass", "import quipu", "from quipu import LLM")


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    best = dict.fromkeys(STATEMENTS, float("inf"))
    for _ in range(runs):
        for statement in STATEMENTS:
            begin = time.perf_counter()
            subprocess.run([sys.executable, "-c", statement], check=True)
            best[statement] = min(best[statement], time.perf_counter() - begin)
    bare = best.pop("pass")
    print(f"{'bare interpreter':<24}{bare:.3f} s")
    for statement, seconds in best.items():
        print(f"{statement:<24}{seconds - bare:+.3f} s")


if __name__ == "__main__":
    main()
