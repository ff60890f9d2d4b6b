"""`quipu help` and `quipu version`. Imports nothing, so that both answer at once."""

from __future__ import annotations

from quipu import __version__
from quipu.cli.verbs import VERBS
from quipu.errors import UsageError

_HEAD = """\
usage: quipu VERB [OPTIONS]

Run language models from GGUF files on the hardware you own.

verbs:
"""

_TAIL = """
quipu run MODEL.gguf                   an interactive chat
quipu run MODEL.gguf -p "Hello"        one answer
quipu help VERB                        the options of one verb
QUIPU_DEBUG=1 quipu ...                a traceback where an error is unexpected
"""


def show_help(words: list[str]) -> int:
    """Print the verbs, or the options of the verb named in `words`.

    Raises:
        UsageError: no such verb.
    """
    if words and words[0] in VERBS and VERBS[words[0]].module != __name__:
        from quipu.cli.command import parse

        code = parse(words[0], ["--help"]).run()
        return int(code or 0)
    if words and words[0] not in VERBS:
        raise UsageError(f"there is no verb {words[0]!r}; `quipu help` lists them")
    width = max(map(len, VERBS)) + 2
    print(_HEAD + "".join(f"  {name:<{width}}{verb.summary}\n" for name, verb in VERBS.items()) + _TAIL, end="")
    return 0


def show_version(words: list[str]) -> int:
    """Print the version.

    Raises:
        UsageError: `words` is not empty.
    """
    if words:
        raise UsageError("`quipu version` takes no arguments")
    print(f"quipu {__version__}")
    return 0
