"""Every error that quipu shows to a user, and what it means to a shell and to an HTTP client.

QuipuError                      root; anything below is one sentence that says what to do
├── UsageError                  a flag, an argument or an API parameter is wrong
│   ├── InvalidRequestError     a value in a request is out of range (names the field)
│   └── ContextLengthError      the prompt does not fit the context (names both numbers)
├── ModelNotFoundError          no such file or model
├── ModelFileError              the GGUF file is damaged, hostile or incomplete
├── UnsupportedModelError       a valid file that needs what quipu does not have (names it)
├── TokenizerError              the vocabulary is inconsistent, or its pre-tokenizer unknown
├── TemplateError               the chat template is invalid, refused the messages, or was stopped
├── StateFileError              a saved sequence is missing, damaged, or of another model
├── InsufficientMemoryError     what is needed does not fit what is free (names both)
└── EngineError                 an internal failure that ended the request
"""

from __future__ import annotations


class QuipuError(Exception):
    """Root of all errors meant for users. Its text is one sentence that says what to do."""


class UsageError(QuipuError):
    """A flag, an argument or an API parameter is wrong."""


class InvalidRequestError(UsageError):
    """A value of a request is out of range.

    Attributes:
        field: the name of the offending field, as the caller wrote it.
    """

    def __init__(self, message: str, *, field: str = "") -> None:
        super().__init__(message)
        self.field = field


class ContextLengthError(UsageError):
    """The prompt does not fit into the context.

    Attributes:
        num_prompt_tokens: tokens in the prompt.
        ctx_size: tokens that the context holds.
        field: "prompt".
    """

    field = "prompt"

    def __init__(self, num_prompt_tokens: int, ctx_size: int) -> None:
        super().__init__(
            f"the prompt has {num_prompt_tokens} tokens but the context holds {ctx_size}; "
            "shorten the prompt or raise --ctx-size"
        )
        self.num_prompt_tokens = num_prompt_tokens
        self.ctx_size = ctx_size


class ModelNotFoundError(QuipuError):
    """No such file or model."""


class ModelFileError(QuipuError):
    """The GGUF file is damaged, hostile or incomplete."""


class UnsupportedModelError(QuipuError):
    """A valid file that needs something quipu does not have."""


class TokenizerError(QuipuError):
    """The vocabulary is inconsistent, or its pre-tokenizer is unknown."""


class TemplateError(QuipuError):
    """The chat template is invalid, refused the messages, or exceeded its limits."""


class StateFileError(QuipuError):
    """The file with the saved state of a sequence is missing, damaged, or of another model."""


class InsufficientMemoryError(QuipuError):
    """What is needed does not fit into what is free.

    Attributes:
        needed_bytes: bytes the operation needs.
        available_bytes: bytes that are free.
    """

    def __init__(self, message: str, *, needed_bytes: int, available_bytes: int) -> None:
        super().__init__(message)
        self.needed_bytes = needed_bytes
        self.available_bytes = available_bytes


class EngineError(QuipuError):
    """An internal failure that ended the request."""


# The first class that matches wins: (class, exit code of the command line, HTTP status).
_STATUS: tuple[tuple[type[QuipuError], int, int], ...] = (
    (UsageError, 2, 400),
    (ModelNotFoundError, 1, 404),
    (ModelFileError, 1, 422),
    (UnsupportedModelError, 1, 501),
    (TokenizerError, 1, 422),
    (TemplateError, 1, 400),
    (StateFileError, 1, 422),
    (InsufficientMemoryError, 1, 503),
    (QuipuError, 1, 500),
)


def exit_code(error: QuipuError) -> int:
    """The exit status of the command line for `error`: 1 the job failed, 2 wrong usage."""
    return next(code for kind, code, _ in _STATUS if isinstance(error, kind))


def http_status(error: QuipuError) -> int:
    """The HTTP status for `error`."""
    return next(status for kind, _, status in _STATUS if isinstance(error, kind))
