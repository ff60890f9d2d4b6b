"""Built-in templates against the formats that the models' authors published, written out by hand."""

from __future__ import annotations

from datetime import datetime
from importlib.resources import files

import pytest
from chat_samples import assistant, system, user

from quipu.chat import BUILTIN_TEMPLATES, ChatTemplate

CONVERSATION = [system("S"), user("Q1"), assistant("A1"), user("Q2")]
END = "<｜end▁of▁sentence｜>"

# Without the BOS that the tokenizer puts first. EOS is </s>.
EXPECTED = {
    "alpaca": "S\n\n### Instruction:\nQ1\n\n### Response:\nA1</s>\n\n### Instruction:\nQ2\n\n### Response:\n",
    "bailing": "<role>SYSTEM</role>S<role>HUMAN</role>Q1<role>ASSISTANT</role>A1<role>HUMAN</role>Q2<role>ASSISTANT</role>",
    "bailing-think": "<role>SYSTEM</role>S<role>HUMAN</role>Q1<role>ASSISTANT</role>A1<role>HUMAN</role>Q2"
    "<role>ASSISTANT</role><think>",
    "bailing2": "<role>SYSTEM</role>S<|role_end|><role>HUMAN</role>Q1<|role_end|><role>ASSISTANT</role>A1<|role_end|>"
    "<role>HUMAN</role>Q2<|role_end|><role>ASSISTANT</role>",
    "chatglm3": "[gMASK]sop<|system|>\n S<|user|>\n Q1<|assistant|>\n A1<|user|>\n Q2<|assistant|>",
    "chatglm4": "[gMASK]<sop><|system|>\nS<|user|>\nQ1<|assistant|>\nA1<|user|>\nQ2<|assistant|>\n",
    "chatml": "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nQ1<|im_end|>\n<|im_start|>assistant\nA1<|im_end|>\n"
    "<|im_start|>user\nQ2<|im_end|>\n<|im_start|>assistant\n",
    "command-r": "<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>S<|END_OF_TURN_TOKEN|>"
    "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>Q1<|END_OF_TURN_TOKEN|>"
    "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>A1<|END_OF_TURN_TOKEN|>"
    "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>Q2<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>",
    "deepseek": "S### Instruction:\nQ1\n### Response:\nA1\n<|EOT|>\n### Instruction:\nQ2\n### Response:\n",
    "deepseek2": f"S\n\nUser: Q1\n\nAssistant: A1{END}User: Q2\n\nAssistant:",
    "deepseek3": f"S<｜User｜>Q1<｜Assistant｜>A1{END}<｜User｜>Q2<｜Assistant｜>",
    "deepseek-r1": f"S<｜User｜>Q1<｜Assistant｜>A1{END}<｜User｜>Q2<｜Assistant｜><think>\n",
    "exaone3": "[|system|]S[|endofturn|]\n[|user|]Q1\n[|assistant|]A1[|endofturn|]\n[|user|]Q2\n[|assistant|]",
    "exaone4": "[|system|]\nS[|endofturn|]\n[|user|]\nQ1[|endofturn|]\n[|assistant|]\nA1[|endofturn|]\n[|user|]\nQ2[|endofturn|]\n"
    "[|assistant|]\n<think>\n\n</think>\n\n",
    "exaone-moe": "<|system|>\nS<|endofturn|>\n<|user|>\nQ1<|endofturn|>\n<|assistant|>\nA1<|endofturn|>\n<|user|>\nQ2<|endofturn|>\n"
    "<|assistant|>\n",
    "falcon3": "<|system|>\nS\n<|user|>\nQ1\n<|assistant|>\nA1</s>\n<|user|>\nQ2\n<|assistant|>\n",
    "gemma": "<start_of_turn>user\nS\n\nQ1<end_of_turn>\n<start_of_turn>model\nA1<end_of_turn>\n"
    "<start_of_turn>user\nQ2<end_of_turn>\n<start_of_turn>model\n",
    "gigachat": "<s>S<|message_sep|>user<|role_sep|>Q1<|message_sep|>available functions<|role_sep|>[]<|message_sep|>"
    "assistant<|role_sep|>A1<|message_sep|>user<|role_sep|>Q2<|message_sep|>available functions<|role_sep|>[]<|message_sep|>"
    "assistant<|role_sep|>",
    "glmedge": "<|system|>\nS<|user|>\nQ1<|assistant|>\nA1<|user|>\nQ2<|assistant|>",
    "gpt-oss": "<|start|>system<|message|>You are ChatGPT, a large language model trained by OpenAI.\nKnowledge cutoff: 2024-06\n"
    "Current date: 2025-03-09\n\nReasoning: medium\n\n"
    "# Valid channels: analysis, commentary, final. Channel must be included for every message.<|end|>"
    "<|start|>developer<|message|># Instructions\n\nS\n\n<|end|><|start|>user<|message|>Q1<|end|>"
    "<|start|>assistant<|channel|>final<|message|>A1<|end|><|start|>user<|message|>Q2<|end|><|start|>assistant",
    "granite": "<|start_of_role|>system<|end_of_role|>S<|end_of_text|>\n<|start_of_role|>user<|end_of_role|>Q1<|end_of_text|>\n"
    "<|start_of_role|>assistant<|end_of_role|>A1<|end_of_text|>\n<|start_of_role|>user<|end_of_role|>Q2<|end_of_text|>\n"
    "<|start_of_role|>assistant<|end_of_role|>",
    "grok-2": "System: S<|separator|>\n\nHuman: Q1<|separator|>\n\nAssistant: A1<|separator|>\n\nHuman: Q2<|separator|>\n\nAssistant:",
    "hunyuan-dense": "S<｜hy_place▁holder▁no▁3｜><｜hy_User｜>Q1<｜hy_Assistant｜>A1<｜hy_place▁holder▁no▁2｜><｜hy_User｜>Q2<｜hy_Assistant｜>",
    "hunyuan-moe": "<|startoftext|>S<|extra_4|><|startoftext|>Q1<|extra_0|>A1<|eos|><|startoftext|>Q2<|extra_0|>",
    "kimi-k2": "<|im_system|>system<|im_middle|>S<|im_end|><|im_user|>user<|im_middle|>Q1<|im_end|>"
    "<|im_assistant|>assistant<|im_middle|>A1<|im_end|><|im_user|>user<|im_middle|>Q2<|im_end|>"
    "<|im_assistant|>assistant<|im_middle|>",
    "llama2": "[INST] <<SYS>>\nS\n<</SYS>>\n\nQ1 [/INST] A1 </s><s>[INST] Q2 [/INST]",
    "llama3": "<|start_header_id|>system<|end_header_id|>\n\nS<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nQ1<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\nA1<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nQ2<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n",
    "llama4": "<|header_start|>system<|header_end|>\n\nS<|eot|><|header_start|>user<|header_end|>\n\nQ1<|eot|>"
    "<|header_start|>assistant<|header_end|>\n\nA1<|eot|><|header_start|>user<|header_end|>\n\nQ2<|eot|>"
    "<|header_start|>assistant<|header_end|>\n\n",
    "megrez": "<|role_start|>system<|role_end|>S<|turn_end|><|role_start|>user<|role_end|>Q1<|turn_end|>"
    "<|role_start|>assistant<|role_end|>A1<|turn_end|><|role_start|>user<|role_end|>Q2<|turn_end|>"
    "<|role_start|>assistant<|role_end|>",
    "minicpm": "S<用户>Q1<AI>A1<用户>Q2<AI>",
    "mistral-v1": " [INST] S\n\nQ1 [/INST] A1</s> [INST] Q2 [/INST]",
    "mistral-v3": "[INST] S\n\nQ1[/INST] A1</s>[INST] Q2[/INST]",
    "mistral-v3-tekken": "[INST]S\n\nQ1[/INST]A1</s>[INST]Q2[/INST]",
    "mistral-v7": "[SYSTEM_PROMPT] S[/SYSTEM_PROMPT][INST] Q1[/INST] A1</s>[INST] Q2[/INST]",
    "mistral-v7-tekken": "[SYSTEM_PROMPT]S[/SYSTEM_PROMPT][INST]Q1[/INST]A1</s>[INST]Q2[/INST]",
    "monarch": "system\nS</s>\n<s>user\nQ1</s>\n<s>assistant\nA1</s>\n<s>user\nQ2</s>\n<s>assistant\n",
    "openchat": "S<|end_of_turn|>GPT4 Correct User: Q1<|end_of_turn|>GPT4 Correct Assistant: A1<|end_of_turn|>"
    "GPT4 Correct User: Q2<|end_of_turn|>GPT4 Correct Assistant:",
    "orion": "Human: S\n\nQ1\n\nAssistant: </s>A1</s>Human: Q2\n\nAssistant: </s>",
    "pangu-embedded": "[unused9]系统：S[unused10][unused9]用户：Q1[unused10][unused9]助手：A1[unused10][unused9]用户：Q2[unused10][unused9]助手：",
    "phi3": "<|system|>\nS<|end|>\n<|user|>\nQ1<|end|>\n<|assistant|>\nA1<|end|>\n<|user|>\nQ2<|end|>\n<|assistant|>\n",
    "phi4": "<|im_start|>system<|im_sep|>S<|im_end|><|im_start|>user<|im_sep|>Q1<|im_end|><|im_start|>assistant<|im_sep|>A1<|im_end|>"
    "<|im_start|>user<|im_sep|>Q2<|im_end|><|im_start|>assistant<|im_sep|>",
    "rwkv-world": "System: S\n\nUser: Q1\n\nAssistant: A1\n\nUser: Q2\n\nAssistant:",
    "seed_oss": "<seed:bos>system\nS<seed:eos><seed:bos>user\nQ1<seed:eos><seed:bos>assistant\nA1<seed:eos><seed:bos>user\nQ2<seed:eos>"
    "<seed:bos>assistant\n",
    "solar-open": "<|begin|>system<|content|>S<|end|><|begin|>user<|content|>Q1<|end|><|begin|>assistant<|content|>A1<|end|>"
    "<|begin|>user<|content|>Q2<|end|><|begin|>assistant",
    "vicuna": "S USER: Q1 ASSISTANT: A1</s>USER: Q2 ASSISTANT:",
    "vicuna-orca": "SYSTEM: S\nUSER: Q1\nASSISTANT: A1</s>\nUSER: Q2\nASSISTANT:",
    "zephyr": "<|system|>\nS</s>\n<|user|>\nQ1</s>\n<|assistant|>\nA1</s>\n<|user|>\nQ2</s>\n<|assistant|>\n",
}  # fmt: skip
WITHOUT_SYSTEM = {
    "alpaca": "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\nQ\n\n### Response:\n",
    "bailing2": "<role>SYSTEM</role>detailed thinking off<|role_end|><role>HUMAN</role>Q<|role_end|><role>ASSISTANT</role>",
    "exaone3": "[|system|][|endofturn|]\n[|user|]Q\n[|assistant|]",
    "llama2": "[INST] Q [/INST]",
    "mistral-v3": "[INST] Q[/INST]",
    "vicuna": "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, "
    "and polite answers to the user's questions. USER: Q ASSISTANT:",
}  # fmt: skip


def builtin(name: str) -> ChatTemplate:
    return ChatTemplate.from_metadata({}, override=name, bos_token="<s>", eos_token="</s>")


@pytest.mark.parametrize("name", sorted({*BUILTIN_TEMPLATES.values()}))
def test_published_formats(name: str) -> None:
    rendered = builtin(name).render(CONVERSATION, now=datetime(2025, 3, 9))
    assert rendered.text == EXPECTED[name]
    assert bool(rendered.warnings) == (name in ("gemma", "orion"))  # which have no system message
    assert rendered.starts_with_bos == (name == "gigachat")


@pytest.mark.parametrize("name", sorted(WITHOUT_SYSTEM))
def test_conversations_without_a_system_message(name: str) -> None:
    assert builtin(name).render([user("Q")]).text == WITHOUT_SYSTEM[name]


def test_names_and_files_agree() -> None:
    present = {path.name for path in (files("quipu.chat") / "templates").iterdir()}
    assert present == {f"{name}.jinja" for name in BUILTIN_TEMPLATES.values()}


@pytest.mark.parametrize("name", ["chatml", "llama2", "llama3", "gemma", "mistral", "deepseek", "phi", "qwen3"])
def test_familiar_names(name: str) -> None:
    assert builtin(name).name == name


def test_exaone4_thinks_when_asked() -> None:
    assert builtin("exaone4").render([user("Q")], enable_thinking=True).text.endswith("[|assistant|]\n<think>\n")


def test_deepseek_r1_forgets_old_reasoning() -> None:
    messages = [user("Q"), assistant("<think>hm</think>A"), user("R")]
    assert (
        builtin("deepseek-r1").render(messages).text
        == f"<｜User｜>Q<｜Assistant｜>A{END}<｜User｜>R<｜Assistant｜><think>\n"
    )
