"""How large a constraint may be, and how much work the library may put into it."""

from __future__ import annotations

from dataclasses import dataclass

from llguidance import LLParserLimits


@dataclass(frozen=True, slots=True)
class ConstraintLimits:
    """Bounds on what one request may ask for.

    Attributes:
        source_bytes: bytes of a schema, grammar or expression, as UTF-8.
        nesting: depth of a schema, of brackets in a grammar or expression.
        subschemas: schemas inside a schema, each counted once however often it is referred to.
        properties: properties of one object.
        patterns: regular expressions that one string may have to match at once: checking that some string matches them
            all takes time that doubles with each.
        enum_values: values in all `enum`s of a schema, or choices of a list.
        repetitions: largest count in a regular expression or grammar, largest `maxItems` and `maxLength`.
        indentation: most spaces or tabs at the beginning of a line of JSON.
        initial_fuel: steps for building the expressions of a grammar; some 50,000 take a millisecond.
        step_fuel: steps of the lexer for one mask; some 14,000 take a millisecond.
        row_items: ways to go on at one place; an optional property takes four.
        step_items: items of the parser for one mask; some 20,000 take a millisecond.
        lexer_states: states that one grammar may need while it is used; 1 to 2 KiB each.
        grammar_symbols: symbols in the grammar.
    """

    source_bytes: int = 256 << 10
    nesting: int = 64
    subschemas: int = 10_000
    properties: int = 1_000
    patterns: int = 6
    enum_values: int = 5_000
    repetitions: int = 10_000
    indentation: int = 40
    initial_fuel: int = 2_000_000
    step_fuel: int = 400_000
    row_items: int = 8_000
    step_items: int = 100_000
    lexer_states: int = 50_000
    grammar_symbols: int = 200_000

    def for_parser(self) -> LLParserLimits:
        """The library's part of the limits."""
        return LLParserLimits(
            initial_lexer_fuel=self.initial_fuel,
            step_lexer_fuel=self.step_fuel,
            max_items_in_row=self.row_items,
            step_max_items=self.step_items,
            max_lexer_states=self.lexer_states,
            max_grammar_size=self.grammar_symbols,
            verbose_errors=False,
        )
