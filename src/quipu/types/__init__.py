"""Values shared by three or more packages. All are frozen; anything used by fewer lives elsewhere."""

from quipu.types.constraint import ConstraintKind, ConstraintSpec, Whitespace
from quipu.types.events import (
    ChatEvent,
    Completion,
    Event,
    FinishReason,
    Reuse,
    ReuseLimit,
    Timings,
    TokenLogprobs,
    ToolCall,
    ToolCallDelta,
    Usage,
)
from quipu.types.request import MOST_CHOICES, MOST_DRAFTS, MOST_PRIORITY, Pooling, Request, RequestOptions, Speculation
from quipu.types.sampling import DEFAULT_SAMPLERS, SAMPLERS, SamplingParams, parse_samplers

__all__ = [
    "DEFAULT_SAMPLERS",
    "MOST_CHOICES",
    "MOST_DRAFTS",
    "MOST_PRIORITY",
    "SAMPLERS",
    "ChatEvent",
    "Completion",
    "ConstraintKind",
    "ConstraintSpec",
    "Event",
    "FinishReason",
    "Pooling",
    "Request",
    "RequestOptions",
    "Reuse",
    "ReuseLimit",
    "SamplingParams",
    "Speculation",
    "Timings",
    "TokenLogprobs",
    "ToolCall",
    "ToolCallDelta",
    "Usage",
    "Whitespace",
    "parse_samplers",
]
