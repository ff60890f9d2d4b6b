"""`main`: find the verb, run it, and turn whatever goes wrong into one line and an exit code."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence

from quipu.cli.verbs import VERBS
from quipu.errors import QuipuError, UsageError, exit_code

_INTERRUPTED = 130  # 128 + SIGINT, as shells report it
_BROKEN_PIPE = 141  # 128 + SIGPIPE


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code.

    Args:
        arguments: the words after `quipu`; None takes them from the process.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that cannot show a character shows a question mark
    try:
        code = dispatch(words)
        sys.stdout.flush()  # here, so that a closed pipe is noticed while it can still be handled
        return code
    except QuipuError as error:
        report(str(error))
        return exit_code(error)
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        # The interpreter flushes stdout once more when it exits; give it a place where that succeeds.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _BROKEN_PIPE
    except Exception as error:  # the outermost frame: nobody above could handle anything
        if os.environ.get("QUIPU_DEBUG", "0") not in ("", "0"):
            raise
        report(f"{type(error).__name__}: {error} (unexpected; QUIPU_DEBUG=1 shows where)")
        return 1


def dispatch(words: list[str]) -> int:
    """Run the verb that `words` begin with and return its exit code.

    Raises:
        UsageError: there is no such verb, or its options are wrong.
    """
    if not words or words[0] in ("-h", "--help"):
        words = ["help", *words[1:]]
    elif words[0] in ("-V", "--version"):
        words = ["version"]
    name, rest = words[0], words[1:]
    if name not in VERBS:
        raise UsageError(f"there is no verb {name!r}{_suggestion(name)}; `quipu help` lists them")
    verb = VERBS[name]
    if verb.module == "quipu.cli.help":  # kept free of Typer, whose import alone takes longer than the help should
        code = verb.load()(rest)
    else:
        from quipu.cli.command import parse

        code = parse(name, rest).run()
    return int(code or 0)


def report(message: str) -> None:
    """Write `error: message` to standard error as one line, red on a terminal."""
    line = "error: " + " ".join(message.split())
    if sys.stderr.isatty() and not os.environ.get("NO_COLOR"):
        line = f"\x1b[31m{line}\x1b[0m"
    print(line, file=sys.stderr)


def _suggestion(name: str) -> str:
    import difflib

    close = difflib.get_close_matches(name, VERBS, n=1, cutoff=0.5)
    return f", but there is {close[0]!r}" if close else ""
