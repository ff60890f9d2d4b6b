"""`python -m quipu` is the same as the command `quipu`."""

from __future__ import annotations

import sys

from quipu.cli import main

if __name__ == "__main__":
    sys.exit(main())
