"""Answers that must look like something: JSON, a schema, an expression, a list, a grammar.

    ConstraintSpec -> grammar_source -> llguidance -> GrammarConstraint | LazyConstraint

The engine sees what comes out as `engine.constraining.TokenConstraint`.
"""

from quipu.chat.constraints.compiler import ConstraintCompiler
from quipu.chat.constraints.healing import heal_prompt
from quipu.chat.constraints.limits import ConstraintLimits
from quipu.chat.constraints.matcher import GrammarConstraint
from quipu.chat.constraints.triggers import LazyConstraint
from quipu.chat.constraints.vocabulary import GrammarVocabulary

__all__ = [
    "ConstraintCompiler",
    "ConstraintLimits",
    "GrammarConstraint",
    "GrammarVocabulary",
    "LazyConstraint",
    "heal_prompt",
]
