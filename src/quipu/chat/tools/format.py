"""What a format of tool calls has to bring."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from quipu.chat.tools.calls import Calls
from quipu.chat.tools.definitions import Tool, ToolChoice
from quipu.chat.tools.lark import Lark
from quipu.chat.tools.reader import Reader, Wait


class ToolFormat(ABC):
    """How one family of models writes tool calls. Has no state: parsers share it.

    Attributes:
        name: of the family.
        openings: texts that begin calls wherever they stand.
        first_openings: texts that begin calls only at the start of an answer.
        markers: texts that must not be hidden when tokens are decoded, although they may be control tokens.
        ends_reasoning: an opening ends reasoning that was not closed. Only for openings that mean nothing else.
    """

    name: str
    openings: tuple[str, ...]
    first_openings: tuple[str, ...] = ()
    markers: tuple[str, ...] = ()
    ends_reasoning: bool = False

    @abstractmethod
    def read(self, opening: str, reader: Reader, calls: Calls) -> Wait[None]:
        """Read calls, and the white space after them.

        Args:
            opening: has been read already.
            reader: stands behind it.
            calls: takes what is read. Once a call is whole, only what follows it may become text.

        Raises:
            NotACallError: it is no call.
        """

    @abstractmethod
    def write_grammar(self, lark: Lark, tools: Sequence[Tool], is_parallel: bool) -> str:
        """Add rules for one call of these tools, or several, from the first opening to the end.

        Returns:
            The expression for all of it.
        """

    def triggers(self, tools: Sequence[Tool]) -> tuple[str, ...]:
        """Texts at which the model has begun a call, so that the grammar holds from their first character on."""
        return self.openings[:1]

    def writes(self, text: str) -> bool:
        """Whether calls that the format can read are also written in its own way."""
        return True

    def begun_by(self, prompt: str) -> str:
        """The opening that a rendered prompt ends with; "" where it ends with none."""
        return ""

    def write_whole_grammar(self, lark: Lark, tools: Sequence[Tool], choice: ToolChoice, prompt: str) -> str:
        """Add rules for the whole answer, where calls cannot be told by triggers; "" where they can.

        Args:
            lark: takes the rules.
            tools: those that may be called.
            choice: whether they must be, and how many.
            prompt: the rendered prompt.
        """
        return ""
