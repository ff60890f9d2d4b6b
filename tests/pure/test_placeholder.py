"""The placeholder model is an ordinary file, and answers every chat with its one sentence."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pytest

from quipu.backends.program import Batch, Recorder
from quipu.backends.reference import ReferenceBackend
from quipu.gguf import GGMLType, GGUFReader
from quipu.models import load_model
from quipu.tokenizer import Tokenizer

SCRIPT = Path(__file__).parents[2] / "tools" / "placeholder.py"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """The script's names, and the file it writes."""
    names = runpy.run_path(str(SCRIPT))
    path = tmp_path_factory.mktemp("placeholder") / "tiny.gguf"
    names["write_placeholder_model"](path)
    return names, path


def test_it_is_small_and_says_what_it_is(written: tuple[dict[str, Any], Path]) -> None:
    _, path = written
    assert path.stat().st_size < 2_000_000
    with GGUFReader(path) as reader:
        assert "placeholder" in reader.metadata["general.name"]


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "user", "content": "hi"}],
        [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Ünïcode \n\n and 12 + 3?\n"}],
        [{"role": "user", "content": "I am"}, {"role": "assistant", "content": "x"}, {"role": "user", "content": ""}],
    ],
)
def test_the_greedy_answer_is_the_sentence(
    written: tuple[dict[str, Any], Path], messages: list[dict[str, str]]
) -> None:
    names, path = written
    with GGUFReader(path) as reader:
        model, tokenizer = load_model(reader), Tokenizer.from_gguf(reader)
        template = jinja2.Template(str(reader.metadata["tokenizer.chat_template"]))
    prompt = template.render(messages=messages, add_generation_prompt=True)
    new = tokenizer.encode(prompt, add_special=False, parse_special=True)
    backend = ReferenceBackend()
    executable = backend.compile(model.record(Recorder()), max_tokens=256)
    kv = backend.create_kv_storage(model.kv_spec(GGMLType.F32, GGMLType.F32, 64), 8)
    done, answer = 0, []
    while not answer or answer[-1] not in tokenizer.end_of_generation_ids:
        assert len(answer) < 100
        batch = Batch(
            token_ids=np.array(new, np.int32),
            positions=np.arange(done, done + len(new), dtype=np.int32),
            query_starts=np.array([0, len(new)], np.int32),
            kv_lengths=np.array([done + len(new)], np.int32),
            page_tables=np.arange(8, dtype=np.int32)[np.newaxis],
            output_rows=np.array([len(new) - 1], np.int32),
        )
        done += len(new)
        new = [int(executable.run(batch, kv)[0].argmax())]
        answer += new
    assert tokenizer.decode(answer[:-1]) == "".join(names["SENTENCE"])
