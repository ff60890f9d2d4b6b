"""Token healing: a prompt that ends inside of a token that the model would have used.

"The answer is " ends with a space that belongs to the next word in most vocabularies: " yes" is one token, and after a
lone space "yes" is an unlikely one. So the last tokens are taken off the prompt, and the answer has to begin with
their text, by whatever tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from quipu.chat.constraints.compiler import ConstraintCompiler
from quipu.types import ConstraintSpec

_MOST_TOKENS = 4


def heal_prompt(
    prompt_token_ids: Sequence[int], constraint: ConstraintSpec, compiler: ConstraintCompiler
) -> tuple[tuple[int, ...], ConstraintSpec]:
    """The prompt without the tokens to be written again, and the constraint that begins with their text.

    Both are returned as they are where no token of the vocabulary goes on from the end of the prompt into what the
    constraint allows, or where the answer is not constrained from its beginning.

    Args:
        prompt_token_ids: the prompt, made from text that may go on within a word.
        constraint: what the answer must look like.
        compiler: of the model.

    Raises:
        InvalidRequestError: as `ConstraintCompiler.compile`.
    """
    unchanged = tuple(prompt_token_ids), constraint
    if constraint.triggers or constraint.prefix:
        return unchanged
    vocabulary = compiler.vocabulary
    start = compiler.compile(constraint)
    end = b""
    healed = unchanged
    for num_taken in range(1, min(_MOST_TOKENS, len(prompt_token_ids) - 1) + 1):
        token_id = prompt_token_ids[-num_taken]
        data = vocabulary.token_bytes(token_id) if token_id < vocabulary.size else b""
        if not data:
            break  # a control token: text ends here
        end = data + end
        rests = (vocabulary.token_bytes(token)[len(end) :] for token in vocabulary.extensions_of(end))
        if any(start.validate(ids := vocabulary.tokenize(rest)) == len(ids) for rest in rests):
            try:
                prefix = end.decode()
            except UnicodeDecodeError:
                continue  # half a character
            healed = tuple(prompt_token_ids[:-num_taken]), replace(constraint, prefix=prefix)
    return healed
