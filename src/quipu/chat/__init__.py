"""Chat: messages to the text of a prompt, and the text of an answer back to reasoning, content and tool calls.

Templates come from model files and are hostile until proven otherwise. They are compiled and rendered in `render` only,
in the sandbox of `sandbox`, under the limits of `limits`.
"""

from quipu.chat.answer import Answer, AnswerDelta, AnswerParser
from quipu.chat.builtin import BUILTIN_TEMPLATES, builtin_template
from quipu.chat.capabilities import TemplateCapabilities
from quipu.chat.limits import RenderLimits
from quipu.chat.messages import check_messages, check_tools
from quipu.chat.prompts import ChatEncoder, ChatPrompt, OfferedTools, encode_prompt
from quipu.chat.reasoning import ReasoningDelta, ReasoningParser
from quipu.chat.render import render_template
from quipu.chat.template import ChatTemplate, RenderedPrompt
from quipu.chat.tools import Tool, ToolChoice, ToolGrammar, ToolParser, read_tool_choice, read_tools

__all__ = [
    "BUILTIN_TEMPLATES",
    "Answer",
    "AnswerDelta",
    "AnswerParser",
    "ChatEncoder",
    "ChatPrompt",
    "ChatTemplate",
    "OfferedTools",
    "ReasoningDelta",
    "ReasoningParser",
    "RenderLimits",
    "RenderedPrompt",
    "TemplateCapabilities",
    "Tool",
    "ToolChoice",
    "ToolGrammar",
    "ToolParser",
    "builtin_template",
    "check_messages",
    "check_tools",
    "encode_prompt",
    "read_tool_choice",
    "read_tools",
    "render_template",
]
