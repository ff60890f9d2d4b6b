"""From a verb's words to a call of its function: Typer parses, quipu reports errors and lays out the help.

Options with a single dash and several letters, such as llama.cpp's `-ngl` and `-no-cnv`, need no rewriting: Typer's
parser tries a word as a whole before it takes it for a bundle of one-letter options, so declaring them is enough.
Only flags that llama.cpp also lets take a word (`-fa on`, `--think=false`) are rewritten first, by `settle_flags`.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import shutil
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, get_type_hints

import typer
import typer.core
import typer.main

from quipu.cli.verbs import VERBS
from quipu.errors import UsageError

Options = TypeVar("Options")

# Typer exports only this leaf of its parser's errors; its base covers a missing value and an unknown option too.
_ParserError: type[Exception] = typer.BadParameter.__mro__[1]

# Flags that may be followed by a word in llama.cpp or Ollama: the flag -> what stands for "off".
_FLAGS_WITH_WORD: Mapping[str, str] = {
    "-fa": "--no-flash-attn",
    "--flash-attn": "--no-flash-attn",
    "-co": "--no-color",
    "--color": "--no-color",
    "--think": "--no-think",
}
_ON_WORDS = frozenset({"on", "auto", "1", "true", "enabled"})
_OFF_WORDS = frozenset({"off", "0", "false", "disabled"})


@dataclass(frozen=True, slots=True)
class Invocation:
    """A function and the values its options were given."""

    function: Callable[..., Any]
    arguments: Mapping[str, Any]

    def run(self) -> Any:
        return self.function(**self.arguments)


def takes(options: type[Options]) -> Callable[[Callable[[Options], int]], Callable[..., int]]:
    """Give a function of one dataclass the signature of that dataclass's fields, for Typer to read.

    Args:
        options: a dataclass whose fields are annotated with `typer.Option` or `typer.Argument`.
    """
    hints = get_type_hints(options, include_extras=True)
    parameters = [
        inspect.Parameter(
            field.name, inspect.Parameter.KEYWORD_ONLY, annotation=hints[field.name], default=field.default
        )
        for field in dataclasses.fields(options)  # type: ignore[arg-type]
    ]

    def decorate(function: Callable[[Options], int]) -> Callable[..., int]:
        def command(**values: Any) -> int:
            return function(options(**values))

        command.__name__, command.__doc__, command.__module__ = function.__name__, function.__doc__, function.__module__
        command.__annotations__ = dict(hints)
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        return command

    return decorate


def parse(verb: str, words: list[str]) -> Invocation:
    """What `quipu VERB WORDS...` would run.

    Raises:
        UsageError: a word is not an option of this verb, or its value is not of the right kind.
    """
    function = VERBS[verb].load()

    @functools.wraps(function)
    def capture(**values: Any) -> Invocation:
        return Invocation(function, values)

    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    context = {"help_option_names": ["-h", "--help"]}
    app.command(name=verb, cls=_Command, context_settings=context)(capture)
    try:
        result = typer.main.get_command(app).main(settle_flags(words), prog_name=f"quipu {verb}", standalone_mode=False)
    except _ParserError as error:
        message: str = error.format_message()  # type: ignore[attr-defined]
        raise UsageError(f"{message.rstrip('.')}; `quipu help {verb}` lists the options") from None
    return result if isinstance(result, Invocation) else Invocation(lambda: result, {})


def settle_flags(words: list[str]) -> list[str]:
    """Rewrite flags that were given a word: `-fa on` and `--think=true` to the flag, `-fa off` to its opposite.

    Raises:
        UsageError: the word after `=` is neither on nor off.
    """
    settled: list[str] = []
    remaining = list(words)
    while remaining:
        word = remaining.pop(0)
        if word == "--":
            return [*settled, word, *remaining]
        flag, equals, value = word.partition("=")
        if flag not in _FLAGS_WITH_WORD:
            settled.append(word)
            continue
        if not equals and remaining and remaining[0].lower() in _ON_WORDS | _OFF_WORDS:
            value = remaining.pop(0)
        if value.lower() in _OFF_WORDS:
            settled.append(_FLAGS_WITH_WORD[flag])
        elif not value or value.lower() in _ON_WORDS:
            settled.append(flag)
        else:
            raise UsageError(f"{flag} takes on or off, not {value!r}")
    return settled


class _Command(typer.core.TyperCommand):
    """A command whose help shows every name of an option, grouped under the option's panel."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        width = min(shutil.get_terminal_size().columns, 120)
        arguments = " ".join(_names(parameter) for parameter in self.params if _is_argument(parameter))
        formatter.write(f"usage: {ctx.command_path} [OPTIONS] {arguments}\n\n")
        formatter.write(textwrap.fill(" ".join((self.help or "").split("\n\n")[0].split()), width) + "\n")
        panels: dict[str, list[tuple[str, str]]] = {}
        for parameter in sorted(self.get_params(ctx), key=_is_argument, reverse=True):
            if not getattr(parameter, "hidden", False):
                panel = getattr(parameter, "rich_help_panel", None) or ("" if _is_argument(parameter) else "Options")
                panels.setdefault(panel, []).append((_names(parameter), getattr(parameter, "help", None) or ""))
        for panel, rows in panels.items():
            formatter.write(f"\n{panel}:\n" if panel else "\n")
            for names, text in rows:
                formatter.write(_row(names, text, width))


def _is_argument(parameter: Any) -> bool:
    return bool(parameter.param_type_name == "argument")


def _names(parameter: Any) -> str:
    if _is_argument(parameter):
        name = parameter.name.upper()
        return str(parameter.metavar or (name if parameter.required else f"[{name}]"))
    names = ", ".join([*parameter.opts, *parameter.secondary_opts])
    return names if parameter.is_flag else f"{names} {parameter.metavar or 'VALUE'}"


def _row(names: str, text: str, width: int, column: int = 30) -> str:
    lines = textwrap.wrap(text, max(width - column, 20)) or [""]
    head = f"  {names}"
    first = f"{head:<{column}}{lines.pop(0)}" if len(head) < column else head
    return "\n".join([first, *(" " * column + line for line in lines)]) + "\n"
