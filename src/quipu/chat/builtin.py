"""Chat templates by name, for files that carry none. Names are those that llama.cpp's users know, where it has one.

The formats are those that the models' authors published. A template here does not write BOS at the start of a prompt
(`gigachat` apart): the tokenizer adds it where the vocabulary wants one.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files

_FILES = """
alpaca bailing bailing-think bailing2 chatglm3 chatglm4 chatml command-r deepseek deepseek-r1 deepseek2
deepseek3 exaone-moe exaone3 exaone4 falcon3 gemma gigachat glmedge gpt-oss granite grok-2 hunyuan-dense
hunyuan-moe kimi-k2 llama2 llama3 llama4 megrez minicpm mistral-v1 mistral-v3 mistral-v3-tekken
mistral-v7 mistral-v7-tekken monarch openchat orion pangu-embedded phi3 phi4 rwkv-world seed_oss
solar-open vicuna vicuna-orca zephyr
"""

# Name -> file in `templates/`.
BUILTIN_TEMPLATES: Mapping[str, str] = {
    **{name: name for name in _FILES.split()},
    **dict.fromkeys(("qwen", "qwen2", "qwen3"), "chatml"),
    **dict.fromkeys(("llama2-sys", "llama2-sys-bos", "llama2-sys-strip"), "llama2"),
    **dict.fromkeys(("granite-4.0", "granite-4.1"), "granite"),
    "deepseek-v3": "deepseek3",
    "gemma2": "gemma",
    "gemma3": "gemma",
    "glm4": "chatglm4",
    "mistral": "mistral-v3",
    "phi": "phi3",
}


def builtin_template(name: str) -> str:
    """The Jinja text of the template `name`. Raises KeyError where there is none."""
    path = files("quipu.chat") / "templates" / f"{BUILTIN_TEMPLATES[name]}.jinja"
    return path.read_text(encoding="utf-8")
