"""Options: from words to values, for the lines of public guides and for everything around them."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quipu.backends import program
from quipu.cli.bench import BenchOptions
from quipu.cli.command import parse, settle_flags
from quipu.cli.load_options import CACHE_TYPES
from quipu.cli.run_options import Mode, RunOptions
from quipu.cli.sampling_options import parse_logit_bias
from quipu.cli.texts import read_text, unescape
from quipu.errors import UsageError
from quipu.types import SamplingParams

GUIDES = Path(__file__).resolve().parents[1] / "data" / "guides_run.txt"


def typed(words: str) -> RunOptions:
    """The options of `quipu run WORDS`, as a shell splits them."""
    return run_options(*shlex.split(words))


def run_options(*words: str) -> RunOptions:
    """The options of `quipu run WORDS`."""
    return RunOptions(**parse("run", list(words)).arguments)


def guide_lines() -> dict[str, list[str]]:
    """Every guide line, and its words after `quipu`."""
    lines = GUIDES.read_text(encoding="utf-8").splitlines()
    return {line: shlex.split(line)[1:] for line in lines if line and not line.startswith("#")}


# Guide line (its beginning, after `quipu`) -> (mode, fields of the options that differ from the defaults).
# The mode supposes a model with a chat template and nothing on standard input.
EXPECTED = {
    "run -m M.gguf -co -cnv": (
        Mode.CONVERSE,
        {
            "model": "M.gguf",
            "color": True,
            "conversation": True,
            "prompt": "你是一个python编程专家",
            "num_predict": 512,
        },
    ),
    "run -m M.gguf -p": (
        Mode.ANSWER,
        {"model": "M.gguf", "prompt": "I believe the meaning of life is", "num_predict": 512},
    ),
    "run -m M.gguf -cnv --chat-template": (
        Mode.CONVERSE,
        {"model": "M.gguf", "conversation": True, "chat_template": "gemma"},
    ),
    "run --model M-00001-of-00003.gguf --cache-type-k": (
        Mode.COMPLETE,
        {
            "model": "M-00001-of-00003.gguf",
            "cache_type_k": "q4_0",
            "threads": 64,
            "priority": 2,
            "temperature": 0.6,
            "ctx_size": 512,
            "seed": 3407,
            "gpu_layers": "0",
            "conversation": False,
            "prompt": "<｜User｜>你好，好久不见，请介绍下你自己。<｜Assistant｜>",
        },
    ),
    "run --model M-00001-of-00003.gguf --ctx-size": (
        Mode.CONVERSE,
        {"model": "M-00001-of-00003.gguf", "ctx_size": 512, "gpu_layers": "35"},
    ),
    'run --model M.gguf -p "User': (
        Mode.ANSWER,
        {
            "model": "M.gguf",
            "prompt": r"User: ...\nAssistant:",
            "num_predict": 512,
            "temperature": 0.7,
            "top_p": 0.9,
            "repeat_penalty": 1.1,
            "escape": True,
        },
    ),
    'run --model M.gguf -p "Hello"': (
        Mode.ANSWER,
        {"model": "M.gguf", "prompt": "Hello", "num_predict": 512, "threads": 8},
    ),
    "run --model M.gguf --gpu-layers": (
        Mode.CONVERSE,
        {"model": "M.gguf", "gpu_layers": "999", "tensor_split": "24,24"},
    ),
    "run --meta": (Mode.CONVERSE, {"model": "M.gguf", "meta": True}),
    "run -mu": (
        Mode.CONVERSE,
        {
            "model_url": "https://example.com/M.gguf",
            "interactive": True,
            "num_predict": 64,
            "ctx_size": 4096,
            "multiline_input": True,
            "threads": 8,
            "gpu_layers": "8",
        },
    ),
    "run -m M.gguf --file": (
        Mode.CONVERSE,
        {"model": "M.gguf", "file": "prompt.txt", "interactive_first": True, "color": True},
    ),
    "run deepseek-r1:1.5b": (Mode.CONVERSE, {"words": ["deepseek-r1:1.5b"]}),
    "run M.gguf --verbose": (Mode.CONVERSE, {"words": ["M.gguf"], "verbose": True}),
}


def test_every_guide_line_is_expected() -> None:
    run_lines = [line for line in guide_lines() if line.startswith("quipu run")]
    for line in run_lines:
        assert sum(line.startswith(f"quipu {start}") for start in EXPECTED) == 1, line
    assert len(run_lines) == len(EXPECTED)


@pytest.mark.parametrize("start", EXPECTED)
def test_guide_line_means_what_the_guide_expects(start: str) -> None:
    mode, values = EXPECTED[start]
    words = next(words for line, words in guide_lines().items() if line.startswith(f"quipu {start}"))
    options = run_options(*words[1:])
    assert options == RunOptions(**values)  # type: ignore[arg-type]
    has_prompt = options.prompt is not None or options.file is not None
    assert options.mode(has_prompt=has_prompt, has_template=True) is mode


def test_guide_line_of_bench() -> None:
    words = next(words for line, words in guide_lines().items() if line.startswith("quipu bench"))
    options = BenchOptions(**parse("bench", words[1:]).arguments)
    assert options == BenchOptions(model="M.gguf", n_prompt="512", n_gen="128")
    assert options.tests() == ([512], [128])


def test_short_names_of_several_letters() -> None:
    options = typed(
        "M -ngl 8 -ctk f32 -ctv f16 -sys S -st -i -e -mli -no-cnv -if -ub 64 -b 128 -n64 --ctx-size=256 -fa -ts 1,2 "
        "two words"
    )
    assert options == RunOptions(
        words=["M", "two", "words"],
        gpu_layers="8",
        cache_type_k="f32",
        cache_type_v="f16",
        system="S",
        single_turn=True,
        interactive=True,
        escape=True,
        multiline_input=True,
        conversation=False,
        interactive_first=True,
        ubatch_size=64,
        batch_size=128,
        num_predict=64,
        ctx_size=256,
        flash_attn=True,
        tensor_split="1,2",
    )


@pytest.mark.parametrize(
    ("words", "settled"),
    [
        ("-fa on -c 1", "-fa -c 1"),
        ("--flash-attn off", "--no-flash-attn"),
        ("-co --think=false x", "-co --no-think x"),
        ("--think=true --color auto", "--think --color"),
        ("-fa -- -fa on", "-fa -- -fa on"),
        ("-p --think", "-p --think"),
    ],
)
def test_flags_may_take_a_word(words: str, settled: str) -> None:
    assert settle_flags(words.split()) == settled.split()


def test_flag_with_another_word_is_refused() -> None:
    with pytest.raises(UsageError, match="--think takes on or off, not 'deep'"):
        settle_flags(["--think=deep"])


@pytest.mark.parametrize(
    ("words", "has_prompt", "has_template", "mode"),
    [
        ("", False, True, Mode.CONVERSE),
        ("", True, True, Mode.ANSWER),
        ("", True, False, Mode.COMPLETE),
        ("--system S", True, False, Mode.ANSWER),
        ("-cnv", True, True, Mode.CONVERSE),
        ("-no-cnv", True, True, Mode.COMPLETE),
        ("-no-cnv", False, True, Mode.CONVERSE),
        ("-i", True, True, Mode.CONVERSE),
        ("-if", True, False, Mode.CONVERSE),
        ("-mli", False, True, Mode.CONVERSE),
        ("-cnv -st", True, True, Mode.ANSWER),
        ("-st", False, True, Mode.CONVERSE),
        ("-no-cnv -st", True, True, Mode.COMPLETE),
    ],
)
def test_mode(words: str, has_prompt: bool, has_template: bool, mode: Mode) -> None:
    assert typed(words).mode(has_prompt=has_prompt, has_template=has_template) is mode


@pytest.mark.parametrize(
    ("words", "mode", "has_template", "raw"),
    [
        ("", Mode.CONVERSE, True, False),
        ("", Mode.CONVERSE, False, True),
        ("-cnv", Mode.CONVERSE, False, False),
        ("-no-cnv", Mode.CONVERSE, True, True),
        ("", Mode.ANSWER, True, False),
        ("", Mode.COMPLETE, False, True),
    ],
)
def test_raw_text(words: str, mode: Mode, has_template: bool, raw: bool) -> None:
    assert typed(words).is_raw(mode, has_template=has_template) is raw


def test_model_comes_first_unless_m_names_it() -> None:
    assert run_options("M", "a", "b").model_and_words() == ("M", ["a", "b"])
    assert run_options("-m", "M", "a", "b").model_and_words() == ("M", ["a", "b"])
    with pytest.raises(UsageError, match="name a model"):
        run_options("-p", "x").model_and_words()
    with pytest.raises(UsageError, match=r"fetch https://x/M\.gguf and give the file with -m"):
        run_options("-mu", "https://x/M.gguf").model_and_words()


def test_prompt_is_put_together_in_order(tmp_path: Path) -> None:
    file = tmp_path / "prompt.txt"
    file.write_text("from\\n file\n", encoding="utf-8")
    options = run_options("-p", r"a\tb", "-f", str(file), "-e")
    assert options.prompt_text(["c", "d"], "piped\n") == "a\tb\nfrom\\n file\nc d\npiped"
    assert run_options("-f", str(file)).prompt_text([], "") == "from\\n file"
    assert run_options().prompt_text([], "piped") == "piped"
    assert run_options("-p", r"a\tb").prompt_text([], "") == r"a\tb"
    assert run_options("-p", "").prompt_text([], "") == ""
    assert run_options().prompt_text([], "") is None


def test_system_and_template_from_files(tmp_path: Path) -> None:
    file = tmp_path / "text"
    file.write_text("{{ messages }}", encoding="utf-8")
    assert run_options("-sysf", str(file)).system_text() == "{{ messages }}"
    assert run_options("-sys", r"a\nb", "-e").system_text() == "a\nb"
    assert run_options("--chat-template", str(file)).template() == "{{ messages }}"
    assert run_options("--chat-template-file", str(file)).template() == "{{ messages }}"
    assert run_options("--chat-template", "chatml").template() == "chatml"
    assert run_options().template() is None
    with pytest.raises(UsageError, match="not both"):
        run_options("-sys", "a", "-sysf", str(file)).system_text()
    with pytest.raises(UsageError, match="not both"):
        run_options("--chat-template", "a", "--chat-template-file", str(file)).template()


def test_unreadable_texts(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        read_text(str(tmp_path / "missing"))
    (tmp_path / "latin").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="is not UTF-8"):
        read_text(str(tmp_path / "latin"))


def test_sampling_options_reach_the_parameters() -> None:
    options = typed(
        "-n 7 --temp 0.5 --top-k 3 --top-p 0.9 --min-p 0.1 --typical 0.8 --repeat-penalty 1.1 --repeat-last-n 9 "
        "--presence-penalty 0.2 --frequency-penalty 0.3 -s 5 -r END --stop '###' --logit-bias 4-inf --ignore-eos"
    )
    assert options.sampling_params() == SamplingParams(
        max_tokens=7,
        temperature=0.5,
        top_k=3,
        top_p=0.9,
        min_p=0.1,
        typical_p=0.8,
        repeat_penalty=1.1,
        repeat_last_n=9,
        presence_penalty=0.2,
        frequency_penalty=0.3,
        seed=5,
        stop=("END", "###"),
        logit_bias={4: float("-inf")},
        ignore_eos=True,
    )
    assert run_options().sampling_params() == SamplingParams()
    assert run_options("-n", "-1", "-s", "-1").sampling_params() == SamplingParams()


def test_options_of_further_steps_reach_the_parameters() -> None:
    options = typed(
        "--samplers top-k;temp --min-keep 2 --min-tokens 3 --top-nsigma 1.5 --xtc-probability 0.4 --xtc-threshold 0.2 "
        "--dynatemp-range 0.3 --dynatemp-exp 2 --dry-multiplier 0.8 --dry-base 1.5 --dry-allowed-length 4 "
        "--dry-penalty-last-n -1 --dry-sequence-breaker none --dry-sequence-breaker '\\n' "
        "--mirostat 2 --mirostat-lr 0.2 --mirostat-ent 3 --adaptive-target -0.5 --adaptive-decay 0.5"
    )
    assert options.sampling_params() == SamplingParams(
        samplers=("top_k", "temperature"),
        min_keep=2,
        min_tokens=3,
        top_n_sigma=1.5,
        xtc_probability=0.4,
        xtc_threshold=0.2,
        dynatemp_range=0.3,
        dynatemp_exponent=2.0,
        dry_multiplier=0.8,
        dry_base=1.5,
        dry_allowed_length=4,
        dry_penalty_last_n=-1,
        dry_sequence_breakers=("\n",),
        mirostat=2,
        mirostat_eta=0.2,
        mirostat_tau=3.0,
        adaptive_target=-0.5,
        adaptive_decay=0.5,
    )
    assert run_options("--sampling-seq", "kt").sampling_params().samplers == ("top_k", "temperature")
    assert run_options("--dry-sequence-breaker", "none").sampling_params().dry_sequence_breakers == ()
    with pytest.raises(UsageError, match="not both"):
        typed("--samplers top_k --sampler-seq k").sampling_params()
    with pytest.raises(UsageError, match="samplers"):
        typed("--samplers top_k;magic").sampling_params()


@pytest.mark.parametrize("words", ["-n -3", "--top-p 2", "--temp nan", "--logit-bias 4", "--logit-bias x+1"])
def test_sampling_values_out_of_range(words: str) -> None:
    with pytest.raises(UsageError):
        typed(words).sampling_params()


@given(st.integers(0, 2**31), st.floats(-1e6, 1e6, allow_nan=False).map(lambda value: round(value, 4)))
def test_logit_bias_is_read_back(token_id: int, bias: float) -> None:
    assert parse_logit_bias(f"{token_id}{bias:+.4f}") == (token_id, pytest.approx(bias))


def test_load_options_reach_the_model() -> None:
    options = typed("-c 4096 -t 8 -b 512 -ub 128 -ctk f32 -ctv f32")
    assert options.llm_arguments() == {
        "ctx_size": 4096,
        "threads": 8,
        "batch_size": 512,
        "ubatch_size": 128,
        "kv_type": "f32",
    }
    assert run_options("-c", "0", "-t", "-1", "-tb", "-1").llm_arguments() == {}
    assert typed("-tb 6").llm_arguments() == {"threads_batch": 6}
    assert typed("-t 2 --threads-batch 6").llm_arguments() == {"threads": 2, "threads_batch": 6}
    assert run_options("-ctk", "f32").llm_arguments() == {"kv_type": ("f32", "f16")}
    assert [kv_type.name.lower() for kv_type in program.CACHE_TYPES] == list(CACHE_TYPES)
    for name in CACHE_TYPES:
        assert run_options("-ctk", name, "-ctv", name.upper()).llm_arguments() == {"kv_type": name}
    for words in ("-c -5", "-t -2", "-tb -2", "-b 0", "-ub -1", "-ctk q9", "-ngl many"):
        with pytest.raises(UsageError):
            typed(words).llm_arguments()


def test_cache_options_reach_the_model() -> None:
    words = "--kv-size 2GiB --no-cache-prompt -cram 64 --cache-folder /pages --context-shift --keep -1"
    assert typed(words).llm_arguments() == {
        "kv_size": "2GiB",
        "prefix_cache": False,
        "cache_bytes": 64 << 20,
        "cache_folder": Path("/pages"),
        "context_shift": True,
        "keep": -1,
    }
    assert typed("-cram -1").llm_arguments()["cache_bytes"] > 1 << 50
    assert typed("--context-shift").llm_arguments() == {"context_shift": True, "keep": 0}
    assert typed("--prompt-cache x --prompt-cache-all").llm_arguments() == {}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--keep 4", "give both"),
        ("--context-shift --keep -2", "--keep must be"),
        ("--prompt-cache-ro", "--prompt-cache FILE"),
        ("--prompt-cache x --no-cache-prompt", "needs the prefix cache"),
        ("--prompt-cache x -cram 0", "needs the prefix cache"),
        ("-cram -2", "--cache-ram must be"),
    ],
)
def test_cache_options_that_contradict_each_other(words: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        typed(words).llm_arguments()


def test_options_without_effect_warn_once_each() -> None:
    options = typed("-ngl 99 -ts 24,24 -ctk q4_0 -ctv Q8_0 --mlock --no-mmap -fa")
    warnings = options.warnings()
    assert len(warnings) == 4
    assert all("\n" not in line for line in warnings)
    assert options.llm_arguments() == {"kv_type": ("q4_0", "q8_0")}
    assert run_options("-ngl", "0", "-ctk", "f16", "-fa").warnings() == []


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (r"a\nb\tc", "a\nb\tc"),
        (r"\\n", r"\n"),
        (r"\x41\x4", r"A\x4"),
        (r"\q\ ", r"\q\ "),
        ("\\", "\\"),
        (r"\'\"", "'\""),
    ],
)
def test_escapes(typed: str, meant: str) -> None:
    assert unescape(typed) == meant


@given(st.text())
def test_escaping_is_undone(text: str) -> None:
    assert unescape(text.replace("\\", "\\\\").replace("\n", "\\n")) == text


@pytest.mark.parametrize("words", ["-p x", "-n 1.5", "-p 0 -n 0", "-r 0", "-n -1"])
def test_bench_refuses_counts(words: str) -> None:
    options = BenchOptions(**parse("bench", words.split()).arguments)
    with pytest.raises(UsageError):
        options.tests()


def test_bench_formats() -> None:
    assert BenchOptions(**parse("bench", ["--json"]).arguments).format() == "json"
    assert BenchOptions(**parse("bench", ["-o", "md"]).arguments).format() == "md"
    with pytest.raises(UsageError):
        BenchOptions(output="sql").format()
    assert BenchOptions(n_prompt="0,128,512", n_gen="0").tests() == ([128, 512], [])
