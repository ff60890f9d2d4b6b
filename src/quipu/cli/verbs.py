"""The verb table: a verb's module is imported only when that verb is used, so `quipu --help` stays quick.

The few other imports of the command line that have to wait are here too.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any


@dataclass(frozen=True, slots=True)
class Late:
    """A function or class whose module is imported when it is needed.

    Attributes:
        module: where it lives.
        name: its name there.
    """

    module: str
    name: str

    def load(self) -> Callable[..., Any]:
        """Import the module and return the function or class.

        Raises:
            ImportError: the module, or one that it imports, is missing.
        """
        value: Callable[..., Any] = getattr(importlib.import_module(self.module), self.name)
        return value


@dataclass(frozen=True, slots=True)
class Verb(Late):
    """One word after `quipu`: a function whose parameters are the verb's options.

    Attributes:
        summary: one line for `quipu help`.
    """

    summary: str


# prompt_toolkit takes 0.2 s to import, and a single answer needs none of it.
TERMINAL = Late("quipu.cli.terminal", "TerminalLines")
# `quipu doctor` must be able to say that the native module does not load.
KERNELS = Late("quipu.bench.kernels", "describe_kernels")
THREADS = Late("quipu.bench.kernels", "describe_threads")


VERBS: Mapping[str, Verb] = MappingProxyType(
    {
        "run": Verb("quipu.cli.run", "run", "talk to a model, or have it complete a prompt"),
        "tokenize": Verb("quipu.cli.tokenize", "tokenize", "show the tokens of a text"),
        "inspect": Verb("quipu.cli.inspect", "inspect", "show what is inside a GGUF file"),
        "convert": Verb("quipu.cli.convert", "convert", "make a GGUF file from a published model"),
        "bench": Verb("quipu.cli.bench", "bench", "measure speed against this machine's memory bandwidth"),
        "doctor": Verb("quipu.cli.doctor", "doctor", "show what this machine offers, and why anything is slow"),
        "help": Verb("quipu.cli.help", "show_help", "show this list, or the options of one verb"),
        "version": Verb("quipu.cli.help", "show_version", "show the version"),
    }
)
