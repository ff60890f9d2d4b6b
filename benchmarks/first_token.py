"""Seconds from the start of a process to its first token, with the model file in the page cache.

    python benchmarks/first_token.py [-m model.gguf] [-t 2] [-r 7] [--json FILE]

Each run is a process of its own: interpreter, imports, loading, a short prompt, one token. The prompt comes as token
ids and as text; text also needs the vocabulary, and for quipu it is measured through the command line too. llama.cpp is
run from Python as well, with its load-time repacking on, as it is by default.
"""

from __future__ import annotations

import subprocess
import sys
import time

import common
from measured import ratio, spread

TEXT = "The knots on the cord were read by touch, from left to right, and each one"


def time_first_line(command: list[str]) -> float:
    """Seconds from the start of `command` to the first byte on its standard output; to its end, if it writes none.

    A token may have no text: one that ends the generation, or the first half of a character.
    """
    begin = time.perf_counter()
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, bufsize=0)
    assert process.stdout is not None
    process.stdout.read(1)
    seconds = time.perf_counter() - begin
    process.stdout.read()
    if process.wait() != 0:
        raise SystemExit(f"status {process.returncode} from {command}")
    return seconds


def main() -> None:
    parser = common.options("seconds from process start to the first token")
    arguments = parser.parse_args()
    model = common.find_model(arguments)
    size = common.measure_model(model)
    ids = " ".join(map(str, common.random_ids(16, size.vocab_size, seed=0)))
    threads = str(arguments.threads)

    ours = [sys.executable, str(common.WORKERS / "quipu_first_token.py"), str(model), threads]
    theirs = [arguments.llama_python, str(common.WORKERS / "llama_cpp_first_token.py"), str(model), threads]
    shell = [sys.executable, "-m", "quipu", "run", "-m", str(model), "-t", threads, "-c", "512", "-n", "1"]
    commands = {
        "quipu, token ids": [*ours, "ids", ids],
        "quipu, text": [*ours, "text", TEXT],
        "quipu run, text": [*shell, "-no-cnv", "--no-display-prompt", "--temp", "0", "-p", TEXT],
    }
    if not arguments.no_llama:
        commands["llama.cpp, token ids"] = [*theirs, "ids", ids]
        commands["llama.cpp, text"] = [*theirs, "text", TEXT]

    with model.open("rb") as file:  # into the page cache
        while file.read(1 << 24):
            pass
    results: dict[str, list[float]] = {name: [] for name in commands}
    for index in range(-1, arguments.rounds):
        for name, command in commands.items():
            seconds = time_first_line(command)
            if index >= 0:
                results[name].append(seconds)
        print(".", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)

    rows = []
    for name, values in results.items():
        neighbour = f"llama.cpp, {name.rpartition(', ')[2]}"
        compared = f"{ratio(values, results[neighbour]):.3f}" if neighbour in results else "-"
        rows.append([name, spread(values, 3), compared])
    common.report(
        arguments,
        f"First token of a warm file, from process start, {threads} threads",
        ["engine and prompt", "seconds, median (range)", "ratio to llama.cpp"],
        rows,
        model=model,
        engines={},
        notes=["Prompts: 16 token ids, and a text of 15 words."],
        measured={"seconds": results},
    )


if __name__ == "__main__":
    main()
