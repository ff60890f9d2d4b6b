"""`quipu tokenize`: how a model's vocabulary cuts a text."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from quipu.cli.builtin import resolve_model
from quipu.errors import UsageError
from quipu.tokenizer import Tokenizer


def tokenize(
    text: Annotated[str | None, typer.Argument(help="The text to tokenize.", show_default=False)] = None,
    *,
    model: Annotated[str, typer.Option("-m", "--model", help="A GGUF file; one without weights will do.")],
    prompt: Annotated[str | None, typer.Option("-p", "--prompt", help="The text to tokenize.")] = None,
    file: Annotated[Path | None, typer.Option("-f", "--file", help="Read the text from this UTF-8 file.")] = None,
    stdin: Annotated[bool, typer.Option("--stdin", help="Read the text from standard input.")] = False,
    ids: Annotated[bool, typer.Option("--ids", help="Print only the ids, as a list.")] = False,
    no_bos: Annotated[bool, typer.Option("--no-bos", help="Do not add the tokens that begin and end a text.")] = False,
    parse_special: Annotated[
        bool,
        typer.Option("--parse-special/--no-parse-special", help="Recognise the texts of control tokens."),
    ] = True,
    show_count: Annotated[bool, typer.Option("--show-count", help="Also print the number of tokens.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Print the tokens of a text: one line each, with id and piece.

    Raises:
        UsageError: there is no text, more than one, or it is not UTF-8.
        ModelNotFoundError, ModelFileError, TokenizerError: the file or its vocabulary cannot be used.
    """
    content = _read_text(text, prompt, file, stdin)
    tokenizer = Tokenizer.from_gguf(resolve_model(model))
    token_ids = tokenizer.encode(content, add_special=not no_bos, parse_special=parse_special)
    for warning in tokenizer.warnings:
        typer.echo(f"warning: {warning}", err=True)
    if as_json:
        typer.echo(_as_json(tokenizer, token_ids))
        return
    if ids:
        typer.echo(json.dumps(token_ids))
    else:
        for token_id in token_ids:
            typer.echo(f"{token_id:6d} -> '{_piece(tokenizer, token_id)}'")
    if show_count:
        typer.echo(f"Total number of tokens: {len(token_ids)}")


def _read_text(text: str | None, prompt: str | None, file: Path | None, stdin: bool) -> str:
    given = [source for source in (text, prompt, file) if source is not None]
    if len(given) + stdin != 1:
        raise UsageError("give the text once: as an argument, with --prompt, with --file or with --stdin")
    if text is not None or prompt is not None:
        return text if text is not None else prompt or ""
    name = "standard input" if file is None else str(file)
    try:
        data = sys.stdin.buffer.read() if file is None else file.read_bytes()
    except OSError as error:
        raise UsageError(f"{name} cannot be read ({error.strerror}); give the path of a text file") from error
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"{name} is not UTF-8 text (byte {error.start}); convert it first") from error


def _piece(tokenizer: Tokenizer, token_id: int) -> str:
    """The text of one token; bytes of an unfinished character are shown as escapes."""
    return tokenizer.token_bytes(token_id).decode("utf-8", "backslashreplace")


def _as_json(tokenizer: Tokenizer, token_ids: list[int]) -> str:
    tokens = [{"id": token_id, "piece": _piece(tokenizer, token_id)} for token_id in token_ids]
    return json.dumps({"count": len(tokens), "tokens": tokens, "warnings": tokenizer.warnings}, ensure_ascii=False)
