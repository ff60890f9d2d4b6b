"""Chat: messages to the text of a prompt, and the text of an answer back to reasoning and content.

Templates come from model files and are hostile until proven otherwise. They are compiled and rendered in `render` only,
in the sandbox of `sandbox`, under the limits of `limits`.
"""

from quipu.chat.builtin import BUILTIN_TEMPLATES, builtin_template
from quipu.chat.capabilities import TemplateCapabilities
from quipu.chat.limits import RenderLimits
from quipu.chat.messages import check_messages, check_tools
from quipu.chat.reasoning import ReasoningDelta, ReasoningParser
from quipu.chat.render import render_template
from quipu.chat.template import ChatTemplate, RenderedPrompt

__all__ = [
    "BUILTIN_TEMPLATES",
    "ChatTemplate",
    "ReasoningDelta",
    "ReasoningParser",
    "RenderLimits",
    "RenderedPrompt",
    "TemplateCapabilities",
    "builtin_template",
    "check_messages",
    "check_tools",
    "render_template",
]
