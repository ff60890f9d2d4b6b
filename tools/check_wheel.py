"""Check a built wheel: one stable-ABI wheel per platform, with everything that a user needs inside.

python tools/check_wheel.py dist/*.whl
"""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

MODELS = ("quipu/data/tiny-chat-Q8_0.gguf", "quipu/data/tiny-draft-Q8_0.gguf")
REQUIRED = ("quipu/__init__.py", "quipu/py.typed", *MODELS)
REFUSED_PARTS = ("tests", "native", "tools", "benchmarks", "__pycache__", "build")


def check(path: Path) -> Iterator[str]:
    """Complaints about one wheel file."""
    _, _, python_tag, abi_tag, platform_tag = path.stem.split("-")
    if (python_tag, abi_tag) != ("cp310", "abi3"):
        yield f"the tag is {python_tag}-{abi_tag}, expected cp310-abi3"
    if platform_tag == "any":
        yield "the platform tag is 'any', although the wheel holds machine code"
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        yield from (f"{name} is missing" for name in REQUIRED if name not in names)
        if not any(name.startswith("quipu/_native.abi3.") for name in names):
            yield "the native module quipu/_native.abi3 is missing"
        if not any(name.endswith("licenses/LICENSE") for name in names):
            yield "the licence is missing"
        for name in names:
            top = name.split("/")[0]
            if top in REFUSED_PARTS or "__pycache__" in name:
                yield f"{name} does not belong into the wheel"
        entry_points = [archive.read(name).decode() for name in names if name.endswith("entry_points.txt")]
        if not any("quipu = quipu.cli:main" in text for text in entry_points):
            yield "the quipu command is missing"


def main() -> int:
    paths = [Path(argument) for argument in sys.argv[1:]]
    if len(paths) != 1:
        print(f"check_wheel: expected one wheel, got {len(paths)}")
        return 1
    complaints = list(check(paths[0]))
    for complaint in complaints:
        print(f"{paths[0].name}: {complaint}")
    print(f"check_wheel: {paths[0].name}, {paths[0].stat().st_size / 1e6:.1f} MB, {len(complaints)} complaint(s)")
    return 1 if complaints else 0


if __name__ == "__main__":
    raise SystemExit(main())
