"""From what a request asks for to an object that allows and forbids tokens."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

from llguidance import LLMatcher

from quipu.chat.constraints.grammar import grammar_source
from quipu.chat.constraints.limits import ConstraintLimits
from quipu.chat.constraints.matcher import GrammarConstraint
from quipu.chat.constraints.problems import problem_sentence
from quipu.chat.constraints.triggers import LazyConstraint, Triggers, tokens_across
from quipu.chat.constraints.vocabulary import GrammarVocabulary, TextTokenizer
from quipu.errors import InvalidRequestError
from quipu.types import ConstraintSpec

Constraint = GrammarConstraint | LazyConstraint


class _Compiled(NamedTuple):
    """What is kept of a constraint: a matcher at the beginning, which is copied and never moved."""

    matcher: LLMatcher
    triggers: Triggers | None


class ConstraintCompiler:
    """Compiles the constraints of one model's requests and keeps the latest.

    Any number of threads may use it at once.

    Args:
        tokenizer: the model's.
        vocab_size: rows of the model's embedding.
        limits: bounds on what may be asked for.
        cache_size: how many compiled constraints are kept.
    """

    def __init__(
        self,
        tokenizer: TextTokenizer,
        vocab_size: int,
        *,
        limits: ConstraintLimits | None = None,
        cache_size: int = 32,
    ) -> None:
        self._tokenizer = tokenizer
        self._vocab_size = vocab_size
        self._limits = limits or ConstraintLimits()
        self._parser_limits = self._limits.for_parser()
        self._cache_size = cache_size
        self._lock = threading.Lock()
        self._vocabulary_lock = threading.Lock()
        self._vocabulary: GrammarVocabulary | None = None
        self._compiled: OrderedDict[ConstraintSpec, _Compiled] = OrderedDict()

    @property
    def vocabulary(self) -> GrammarVocabulary:
        """The model's tokens, made on first use: some seconds for a large vocabulary.

        Raises:
            InvalidRequestError: the vocabulary has no token that ends an answer.
        """
        with self._vocabulary_lock:
            if self._vocabulary is None:
                self._vocabulary = GrammarVocabulary(self._tokenizer, self._vocab_size)
            return self._vocabulary

    def compile(self, spec: ConstraintSpec) -> Constraint:
        """A constraint for one sequence.

        Raises:
            InvalidRequestError: the constraint is malformed, too large, matches no text, or cannot be enforced.
        """
        with self._lock:
            compiled = self._compiled.get(spec)
            if compiled is not None:
                self._compiled.move_to_end(spec)
        if compiled is None:
            compiled = self._compile(spec)
            with self._lock:
                self._compiled[spec] = compiled
                self._compiled.move_to_end(spec)
                while len(self._compiled) > self._cache_size:
                    self._compiled.popitem(last=False)
        vocabulary = self.vocabulary

        def begin() -> GrammarConstraint:
            return GrammarConstraint(compiled.matcher.deep_copy(), vocabulary)

        return begin() if compiled.triggers is None else LazyConstraint(begin, compiled.triggers, vocabulary)

    def _compile(self, spec: ConstraintSpec) -> _Compiled:
        source = grammar_source(spec, self._limits, self._problem)
        matcher = self._matcher(source)
        problem = _problem_of(matcher)
        if problem:
            raise InvalidRequestError(f"{spec.field}: {problem}", field=spec.field)
        probe = matcher.deep_copy()
        probe.compute_bitmask()  # only looking for the first token finds that there is none
        problem = _problem_of(probe)
        if problem:
            raise InvalidRequestError(f"{spec.field}: {problem}", field=spec.field)
        if probe.is_stopped() and not probe.is_accepting():
            raise InvalidRequestError(
                f"{spec.field} matches no text at all; nothing could be answered", field=spec.field
            )
        return _Compiled(matcher, self._triggers(spec) if spec.triggers else None)

    def _matcher(self, source: str) -> LLMatcher:
        return LLMatcher(self.vocabulary.library, source, log_level=0, limits=self._parser_limits)

    def _problem(self, source: str) -> str:
        return _problem_of(self._matcher(source))

    def _triggers(self, spec: ConstraintSpec) -> Triggers:
        """A text that is one control token is looked for as that token: it has no text of its own."""
        texts = []
        ids = set()
        for trigger in spec.triggers:
            if isinstance(trigger, int):
                if trigger >= self._vocab_size:
                    raise InvalidRequestError(
                        f"{spec.field}.triggers: token id {trigger} is not among the model's {self._vocab_size} tokens",
                        field=spec.field,
                    )
                ids.add(trigger)
                continue
            encoded = self._tokenizer.encode(trigger, add_special=False, parse_special=True)
            if len(encoded) == 1 and encoded[0] in self.vocabulary.control_ids:
                ids.add(encoded[0])
            else:
                texts.append(trigger.encode("utf-8", "replace"))
        across = tokens_across(texts, self.vocabulary)
        return Triggers(tuple(texts), frozenset(ids), spec.includes_trigger, spec.is_required, across)


def _problem_of(matcher: LLMatcher) -> str:
    """What is wrong with a grammar. A warning is: it tells of something that is not enforced."""
    if matcher.is_error():
        return problem_sentence(matcher.get_error())
    warnings = matcher.get_grammar_warnings()
    return problem_sentence(str(warnings[0])) if warnings else ""


CompileConstraint = Callable[[ConstraintSpec], Constraint]
