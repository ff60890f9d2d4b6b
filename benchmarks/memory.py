"""Resident memory while a model runs, beside the size of its file and its KV cache.

    python benchmarks/memory.py [-m model.gguf] [-c 4096] [-t 2] [--json FILE]

Each engine loads the model, reads a prompt of 512 tokens (at most half the context) and generates 16. Then the kernel's
own account of its process is read. Pages of the mapped file are shared by all processes that map it, and can be dropped
at need; anonymous memory is the engine's own. Linux only.
"""

from __future__ import annotations

from pathlib import Path

import common

MIB = 2**20


def read_account(process_id: int) -> dict[str, int]:
    """Bytes of a process that are resident: now, at its highest, and of what kind."""
    fields: dict[str, int] = {}
    for name in ("status", "smaps_rollup"):
        for line in Path(f"/proc/{process_id}/{name}").read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition(":")
            if value.endswith(" kB"):
                fields[key] = int(value.split()[0]) * 1024
    return {
        "resident": fields["Rss"],
        "highest": fields["VmHWM"],
        "anonymous": fields["Anonymous"],
        "file": fields["Rss"] - fields["Anonymous"],
    }


def main() -> None:
    parser = common.options("resident memory beside file and KV cache")
    parser.add_argument("-c", "--ctx-size", type=int, default=4096)
    arguments = parser.parse_args()
    model = common.find_model(arguments)
    size = common.measure_model(model)
    needed = size.file_bytes + size.kv_bytes_per_token * arguments.ctx_size
    prompt = common.random_ids(min(512, arguments.ctx_size // 2), size.vocab_size, seed=0)

    measured: dict[str, dict[str, int]] = {}
    engines = {}
    for name, worker in common.start_workers(arguments, model, ctx_size=arguments.ctx_size).items():
        worker.ask("decode", token_ids=prompt, num_tokens=16)
        measured[name] = read_account(worker.process.pid)
        engines[name] = worker.engine
        worker.close()

    rows = [
        [
            name,
            *(f"{account[kind] / MIB:.0f}" for kind in ("resident", "file", "anonymous", "highest")),
            f"{account['highest'] / needed:.3f}",
        ]
        for name, account in measured.items()
    ]
    common.report(
        arguments,
        f"Resident memory with a context of {arguments.ctx_size} tokens (f16), in MiB",
        ["engine", "resident", "of files", "own", "highest", "highest / (file + KV cache)"],
        rows,
        model=model,
        engines=engines,
        notes=[
            f"File {size.file_bytes / MIB:.0f} MiB, KV cache {(needed - size.file_bytes) / MIB:.0f} MiB when full; "
            f"{len(prompt) + 16} of {arguments.ctx_size} tokens of it were used."
        ],
        measured={"bytes": measured, "file_and_kv_bytes": needed},
    )


if __name__ == "__main__":
    main()
