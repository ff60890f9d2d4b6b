"""Options that say what an answer must look like, with llama.cpp's names."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Annotated

import typer

from quipu.cli.texts import checked_text, read_text
from quipu.errors import UsageError
from quipu.types import ConstraintSpec

_constraint = partial(typer.Option, rich_help_panel="Form of the answer")

# What llama.cpp takes as the sign of a Lark grammar where it expects GBNF.
_LARK_SIGN = "%llguidance"


@dataclass(frozen=True, kw_only=True)
class ConstraintOptions:
    """What every answer must look like."""

    json_schema: Annotated[
        str | None,
        _constraint("-j", "--json-schema", metavar="SCHEMA", help="JSON that this schema allows; {} for any JSON"),
    ] = None
    json_schema_file: Annotated[
        str | None,
        _constraint("-jf", "--json-schema-file", metavar="FILE", help="JSON that the schema in a file allows"),
    ] = None
    grammar: Annotated[
        str | None,
        _constraint(
            "--grammar", metavar="GRAMMAR", help="text of a GBNF grammar, or of a Lark one that begins with %llguidance"
        ),
    ] = None
    grammar_file: Annotated[
        str | None,
        _constraint("--grammar-file", metavar="FILE", help="text of the grammar in a file"),
    ] = None
    regex: Annotated[
        str | None,
        _constraint("--regex", metavar="EXPRESSION", help="text that the regular expression matches from end to end"),
    ] = None

    def constraint(self) -> ConstraintSpec | None:
        """What the options ask for; None where they ask for nothing.

        Raises:
            UsageError: more than one is given, or a file cannot be read.
        """
        given = {
            "--json-schema": self.json_schema,
            "--json-schema-file": self.json_schema_file,
            "--grammar": self.grammar,
            "--grammar-file": self.grammar_file,
            "--regex": self.regex,
        }
        names = [name for name, value in given.items() if value is not None]
        if len(names) > 1:
            raise UsageError(f"{names[0]} and {names[1]} contradict each other; give one of them")
        if not names:
            return None
        name, value = names[0], given[names[0]]
        assert value is not None
        text = read_text(value) if name.endswith("-file") else checked_text(value)
        if name.startswith("--json"):
            return ConstraintSpec.json_schema(text, field=name)
        if name == "--regex":
            return ConstraintSpec.regex(text, field=name)
        if text.lstrip().startswith(_LARK_SIGN):
            return ConstraintSpec.lark(text, field=name)
        return ConstraintSpec.gbnf(text, field=name)
