"""Coverage-guided fuzzing of the GGUF reader with atheris (`pip install atheris`).

    python tests/fuzz/fuzz_gguf.py --seconds 600 [--folder build/fuzz] [--seed 1]

Whatever the bytes, reading them ends in a checked file or in a QuipuError, quickly and with little memory; what was
read can be decoded, and encodes to the same bytes again. Anything else stops the run with a non-zero exit status and
the input saved as `crash-*`, `timeout-*` or `oom-*` in the folder. The folder also keeps the inputs found interesting,
from which the next run starts.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import atheris
import numpy as np

with atheris.instrument_imports(include=["quipu.gguf"]):
    from quipu.errors import QuipuError
    from quipu.gguf import GGMLType, Metadata, NestedArray, StringArray, write_gguf
    from quipu.gguf.encode import encode_value
    from quipu.gguf.header import Header, read_header
    from quipu.gguf.split import find_shards

MAX_INPUT_BYTES = 8192
TIMEOUT_S = 5
RSS_LIMIT_MB = 4096  # of the whole run: atheris itself gathers about 200 bytes per input
# Numbers and names that are worth trying anywhere: limits of integers, special keys.
DICTIONARY = (
    b"GGUF",
    b"general.alignment",
    b"split.count",
    b"split.no",
    *(number.to_bytes(8, "little") for number in (0, 1, 2, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1)),
    *(number.to_bytes(4, "little") for number in (0, 3, 4, 6, 7, 8, 9, 12, 13, 2**32 - 1)),
)


def fuzz_one(data: bytes) -> None:
    """Read `data` as a GGUF file and look at everything in it."""
    try:
        header = read_header("fuzz.gguf", data, np.frombuffer(data, dtype=np.uint8))
    except QuipuError as error:
        check_sentence(error)
        return
    look_at_metadata(header.metadata)
    check_tensors(header, data)
    for key, value in header.metadata.typed().items():
        encoded = encode_value(value)
        assert encoded in data, key


def check_sentence(error: QuipuError) -> None:
    """See that the error can be shown to a user as one line."""
    text = str(error)
    assert text.isprintable(), text
    assert len(text) < 600, text


def look_at_metadata(metadata: Metadata) -> None:
    """Decode every value."""
    try:
        find_shards(Path("fuzz-00001-of-00002.gguf"), metadata)
    except QuipuError as error:
        check_sentence(error)
    for key in metadata:
        assert metadata.type_name(key)
        try:
            look_at_value(metadata[key])
        except QuipuError as error:
            check_sentence(error)


def look_at_value(value: object) -> None:
    """Decode an array completely and see that both ways of decoding agree."""
    if isinstance(value, StringArray):
        texts = value.to_list()
        assert [text.encode("utf-8", "surrogateescape") for text in texts] == value.to_bytes_list()
        assert len(texts) == len(value)
    elif isinstance(value, NestedArray):
        for element in value:
            look_at_value(element)
    elif isinstance(value, np.ndarray):
        assert value.tolist() is not None


def check_tensors(header: Header, data: bytes) -> None:
    """See that the tensors lie within the file, aligned and one behind the other."""
    end = 0
    for tensor in header.tensors:
        assert tensor.offset >= end
        assert tensor.num_rows * tensor.row_bytes == tensor.num_bytes > 0
        end = tensor.offset + tensor.num_bytes
    assert end <= len(data)


def write_seeds(folder: Path) -> None:
    """Small valid files from which the fuzzer starts."""
    numbers = [np.dtype(code).type(1) for code in ("u1", "i1", "u2", "i2", "u4", "i4", "f4", "?", "u8", "i8", "f8")]
    metadata = {f"number.{number.dtype}": number for number in numbers}
    arrays = {f"array.{number.dtype}": np.full(3, number) for number in numbers}
    texts = {"general.name": "a", "tokenizer.ggml.tokens": ["a", "", "b" * 300, "c"], "nested": [["x"], [[1], [2]]]}
    write_gguf(folder / "empty.gguf", {})
    write_gguf(folder / "numbers.gguf", metadata)
    write_gguf(folder / "arrays.gguf", arrays | texts)
    write_gguf(folder / "split.gguf", {"split.no": np.uint16(0), "split.count": np.uint16(2)})
    write_gguf(
        folder / "tensors.gguf",
        {"general.architecture": "llama", "general.alignment": 64, "tokens": ["t"] * 40},
        [
            ("a", np.ones((2, 3), np.float32)),
            ("b", (256, 2), GGMLType.Q4_K, bytes(288)),
            ("c", (32, 1, 2, 2), GGMLType.Q8_0, bytes(34 * 4)),
            ("d", (), GGMLType.F32, bytes(4)),
        ],
        version=2,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Fuzz the GGUF reader.")
    parser.add_argument("--seconds", type=int, default=600, help="how long to run")
    parser.add_argument(
        "--folder", type=Path, default=Path("build/fuzz"), help="for inputs kept between runs, and crashes"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the random numbers; 0 takes one from the clock")
    options = parser.parse_args()
    seeds, corpus = options.folder / "seeds", options.folder / "corpus"
    for folder in (seeds, corpus):
        folder.mkdir(parents=True, exist_ok=True)
    write_seeds(seeds)
    dictionary = options.folder / "dictionary"
    lines = ('"' + "".join(f"\\x{byte:02x}" for byte in word) + '"' for word in DICTIONARY)
    dictionary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    flags = (
        f"-max_total_time={options.seconds}",
        f"-max_len={MAX_INPUT_BYTES}",
        f"-timeout={TIMEOUT_S}",
        f"-rss_limit_mb={RSS_LIMIT_MB}",
        f"-dict={dictionary}",
        f"-seed={options.seed}",
        f"-artifact_prefix={options.folder}/",
        "-print_final_stats=1",
    )
    atheris.Setup([sys.argv[0], *flags, str(corpus), str(seeds)], fuzz_one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
