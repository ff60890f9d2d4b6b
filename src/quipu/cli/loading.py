"""Opening a model for a verb: the process's priority, and `LLM` with the options given."""

from __future__ import annotations

import os

from quipu.cli.screen import Screen
from quipu.errors import UsageError

# llama.cpp's levels of --prio, as POSIX nice values.
_NICE = {-1: 5, 0: 0, 1: -5, 2: -10, 3: -20}


def set_priority(level: int | None, screen: Screen) -> None:
    """Give the process the priority of `--prio`; a warning where the system does not permit it.

    Raises:
        UsageError: no such level.
    """
    if level is None or level == 0:
        return
    if level not in _NICE:
        raise UsageError(f"--prio must be between -1 (low) and 3 (highest), not {level}")
    try:
        os.setpriority(os.PRIO_PROCESS, 0, _NICE[level])
    except PermissionError:
        screen.warn(f"--prio {level} is not permitted for this user: the priority stays as it is")
