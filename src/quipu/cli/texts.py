"""Texts as people type them on a command line: escapes, and files of text."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import TextIO

from quipu.errors import UsageError

_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\", "'": "'", '"': '"'}


def unescape(text: str) -> str:
    r"""Replace \n, \t, \r, \\, \', \" and \xHH; any other backslash stays as it is."""
    out: list[str] = []
    position = 0
    while position < len(text):
        following = text[position + 1 : position + 2]
        digits = text[position + 2 : position + 4]
        if text[position] != "\\":
            out.append(text[position])
            position += 1
        elif following in _ESCAPES and following:
            out.append(_ESCAPES[following])
            position += 2
        elif following == "x" and len(digits) == 2 and all(digit in "0123456789abcdefABCDEF" for digit in digits):
            out.append(chr(int(digits, 16)))
            position += 4
        else:
            out.append("\\")
            position += 1
    return "".join(out)


def read_text(path: str) -> str:
    """The content of a UTF-8 text file.

    Raises:
        UsageError: the file is missing, not readable or not UTF-8.
    """
    try:
        return Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not UTF-8 text; convert it first") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}; check the path") from None


def standard_input() -> TextIO:
    """Standard input as UTF-8, where other bytes are errors: some locales let them pass in disguise."""
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(encoding="utf-8", errors="strict")
    return sys.stdin


def checked_text(text: str) -> str:
    """`text` from the command line, which holds bytes that are not UTF-8 in disguise.

    Raises:
        UsageError: there are such bytes.
    """
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise UsageError("the text on the command line is not UTF-8; convert it first")
    return text
