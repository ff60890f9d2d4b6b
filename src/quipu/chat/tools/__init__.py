"""Tool calls: from what a model writes to calls, from tools to grammars, and back into a conversation.

Each family of models has a format of its own, and a file or a row of a table here. Which one a model uses is found by
rendering its template (`families`).
"""

from quipu.chat.tools.calls import ToolDelta
from quipu.chat.tools.definitions import Tool, ToolChoice, read_tool_choice, read_tools
from quipu.chat.tools.families import FORMATS, format_named_in, format_of_calls
from quipu.chat.tools.format import ToolFormat
from quipu.chat.tools.grammar import Reasoning, ToolGrammar, write_tool_grammar
from quipu.chat.tools.ids import CallIds
from quipu.chat.tools.parser import ToolParser

__all__ = [
    "FORMATS",
    "CallIds",
    "Reasoning",
    "Tool",
    "ToolChoice",
    "ToolDelta",
    "ToolFormat",
    "ToolGrammar",
    "ToolParser",
    "format_named_in",
    "format_of_calls",
    "read_tool_choice",
    "read_tools",
    "write_tool_grammar",
]
