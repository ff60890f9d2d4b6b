"""The library's messages as sentences that say what to do."""

from __future__ import annotations

import re

# (what a message contains, what it means to the author of the constraint)
_SENTENCES = (
    ("NoExtension", "there is no text at all that could come next; look for a rule that never ends"),
    (
        "oneOf constraints are not supported",
        'the schemas of "oneOf" may overlap; tell them apart by a required '
        'property with a different "const" in each, or use "anyOf"',
    ),
    ("circular references with sibling keys", 'a recursive "$ref" cannot have other keywords beside it'),
    (
        "only supported when all keys listed",
        '"minProperties" and "maxProperties" cannot be enforced beside optional "properties"',
    ),
    ("are not disjoint", 'the expressions of "patternProperties" may match the same key; make them exclusive'),
    ("look-around", "look-ahead, look-behind and \\b in regular expressions cannot be enforced"),
    ("lookarounds", "look-ahead, look-behind and \\b in regular expressions cannot be enforced"),
    ("backreferences", "back references in regular expressions cannot be enforced"),
    ("too deeply nested", "it is nested too deeply; make it flatter"),
    ("initial lexer configuration (grammar) too big", "it is too complex; make it smaller"),
    ("grammar size", "it is too large; make it smaller"),
)
_LONGEST = 300


def problem_sentence(message: str) -> str:
    """One line for what the library said, at most a few hundred characters."""
    for part, sentence in _SENTENCES:
        if part in message:
            return sentence
    line = " ".join(re.split(r"<state>", message, maxsplit=1)[0].split())
    line = line.removeprefix("Unsatisfiable schema: ")
    return line if len(line) <= _LONGEST else line[: _LONGEST - 3] + "..."
