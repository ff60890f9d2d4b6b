"""The command line: `quipu VERB ...`."""

from __future__ import annotations

from quipu.cli.app import main

__all__ = ["main"]
