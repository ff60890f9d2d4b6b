"""Templates that show tool calls, and what calls look like in them."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from chat_samples import template_paths, user

from quipu.chat import ChatTemplate

# The format, and whether several calls of one answer can be shown.
FORMAT_OF = {
    "Apertus-8B-Instruct": ("apertus", True),
    "ByteDance-Seed-OSS": ("seed", True),
    "CohereForAI-c4ai-command-r-plus-tool_use": ("cohere-action", True),
    "CohereForAI-c4ai-command-r7b-12-2024-tool_use": ("cohere", True),
    "GLM-4.6": ("glm", True),
    "GigaChat3-10B-A1.8B": ("gigachat", False),
    "Kimi-K2-Instruct": ("kimi", True),
    "Kimi-K2-Thinking": ("kimi", True),
    "MiMo-VL": ("hermes", True),
    "MiniMax-M1": ("minimax-m1", True),
    "MiniMax-M2": ("minimax-m2", True),
    "Mistral-Small-3.2-24B-Instruct-2506": ("mistral", True),
    "NVIDIA-Nemotron-3-Nano-30B-A3B-BF16": ("qwen3-coder", True),
    "NousResearch-Hermes-2-Pro-Llama-3-8B-tool_use": ("hermes", True),
    "Qwen-QwQ-32B": ("hermes", True),
    "Qwen-Qwen2.5-7B-Instruct": ("hermes", True),
    "Qwen-Qwen3-0.6B": ("hermes", True),
    "Qwen3-Coder": ("qwen3-coder", True),
    "StepFun3.5-Flash": ("qwen3-coder", True),
    "deepseek-ai-DeepSeek-R1-Distill-Llama-8B": ("deepseek-v3", True),
    "deepseek-ai-DeepSeek-R1-Distill-Qwen-32B": ("deepseek-v3", True),
    "deepseek-ai-DeepSeek-V3.1": ("deepseek-v3.1", True),
    "deepseek-ai-DeepSeek-V4": ("deepseek-v4", True),
    "fireworks-ai-llama-3-firefunction-v2": ("firefunction", True),
    "google-gemma-4-31B-it-interleaved": ("gemma", True),
    "ibm-granite-granite-4.0": ("hermes", True),
    "meetkai-functionary-medium-v3.1": ("functionary-v3.1", True),
    "meetkai-functionary-medium-v3.2": ("functionary-v3.2", True),
    "meta-llama-Llama-3.1-8B-Instruct": ("llama", False),
    "meta-llama-Llama-3.2-3B-Instruct": ("llama", False),
    "meta-llama-Llama-3.3-70B-Instruct": ("llama", False),
    "mistralai-Mistral-Nemo-Instruct-2407": ("mistral-list", True),
    "moonshotai-Kimi-K2": ("kimi", True),
    "openai-gpt-oss-120b": ("harmony", False),
    "poolside-Laguna-XS-2.1": ("glm", True),
    "poolside-Laguna-XS.2": ("glm", True),
    "unsloth-Apriel-1.5": ("apriel", True),
    "unsloth-mistral-Devstral-Small-2507": ("mistral", True),
}
# The texts that end a turn: tokens that end the generation, which the engine does not show.
ENDS = (
    "<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<EOS>", "<|end_of_text|>", "<｜end▁of▁sentence｜>", "<seed:eos>",
    "<|END_OF_TURN_TOKEN|>", "[e~[", "<end_of_sentence>", "<turn|>", "<|message_sep|>\n\n", "\n<|end|>", "<|call|>",
    "<|observation|>", "<|START_OF_TURN_TOKEN|>", "\n</assistant>",
)  # fmt: skip
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather.",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "Where."},
                "days": {"type": "integer", "description": "How many."},
            },
            "required": ["city"],
        },
    },
}
# No descriptions, an object that is open, a name with a dot.
SEARCH = {
    "type": "function",
    "function": {
        "name": "web_search",
        "parameters": {
            "type": "object",
            "properties": {"filters": {"type": "object"}, "query": {"type": "string"}},
        },
    },
}
TOOLS = [WEATHER, SEARCH]
CITY = 'Zürich <"&>\\ </tool_call> {😀}\nline 2'
RESULT = "Qzresult"
FIRST = ("get_weather", {"city": CITY, "days": 2})
SECOND = ("web_search", {"filters": {"lang": "de", "n": [1, 2.5]}, "query": "a: b"})


def paths() -> list[Path]:
    return [path for path in template_paths() if path.stem in FORMAT_OF]


@cache
def template(path: Path) -> ChatTemplate:
    return ChatTemplate(path.read_text(encoding="utf-8"), bos_token="<BOS>", eos_token="<EOS>")


def call(name: str, arguments: dict[str, Any], call_id: str) -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def calls_text(
    chosen: ChatTemplate, calls: list[tuple[str, dict[str, Any]]], tools: list[dict[str, Any]] = TOOLS
) -> tuple[str, str]:
    """The prompt for a question, and how the template shows an answer that makes these calls, up to its end."""
    question = [user("QUESTION")]
    prompt = chosen.render(question, tools=tools).text
    answer = {"role": "assistant", "content": None}
    answer["tool_calls"] = [call(*one, call_id=f"call0000{i}") for i, one in enumerate(calls)]  # type: ignore[assignment]
    shown = chosen.render([*question, answer], tools=tools, add_generation_prompt=False).text
    start = shown.index("QUESTION") + len("QUESTION")
    format_ = chosen.tool_format
    places = [place for opening in format_.openings if (place := shown.find(opening, start)) >= 0]
    if format_.name == "harmony":
        places = [shown.index(" to=functions.", start)]
    elif format_.name == "llama":
        places = [shown.index('{"name"', start)]
    text = shown[min(places) :]
    ends = [place for end in ENDS if (place := text.find(end, len(format_.openings[0]))) >= 0]
    text = (text[: min(ends)] if ends else text).rstrip()
    if chosen.tool_format.name == "deepseek-v3" and "<｜tool▁calls▁end｜>" not in text:
        text += "<｜tool▁calls▁end｜>"  # which the template of one distilled model forgets after a single call
    if format_.begun_by(prompt):
        text = text.removeprefix(format_.openings[0])
    return prompt, text
