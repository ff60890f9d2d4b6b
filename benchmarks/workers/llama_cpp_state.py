"""Making the saved state of one llama.cpp sequence longer, so that a long cache need not be computed.

The state is what `llama_state_seq_get_data` gives: a header, the position of every token, then for each layer the type
and row size of its keys with one row per token, then the same for the values. All numbers are little-endian.
"""

from __future__ import annotations

import struct

_HEADER = struct.Struct("<IiII")  # magic number, sequence, streams, tokens
_MAGIC = 0xAF143CD8
_TOKEN = struct.Struct("<iIi")  # position, number of sequences, sequence
_LAYERS = struct.Struct("<II")  # whether values are transposed, layers
_MATRIX = struct.Struct("<iQ")  # type, bytes per row


def lengthen(state: memoryview, num_tokens: int) -> bytearray | None:
    """The state of `num_tokens` tokens that repeat the rows of `state`; None where it is not laid out as above."""
    try:
        return _lengthen(state, num_tokens)
    except struct.error:
        return None


def _lengthen(state: memoryview, num_tokens: int) -> bytearray | None:
    magic, sequence, num_streams, num_saved = _HEADER.unpack_from(state)
    offset = _HEADER.size
    tokens = [_TOKEN.unpack_from(state, offset + _TOKEN.size * index) for index in range(num_saved)]
    if (magic, num_streams) != (_MAGIC, 1) or tokens != [(index, 1, sequence) for index in range(num_saved)]:
        return None
    offset += _TOKEN.size * num_saved
    is_transposed, num_layers = _LAYERS.unpack_from(state, offset)
    if is_transposed:
        return None
    longer = bytearray(_HEADER.pack(magic, sequence, 1, num_tokens))
    for position in range(num_tokens):
        longer += _TOKEN.pack(position, 1, sequence)
    longer += _LAYERS.pack(0, num_layers)
    offset += _LAYERS.size
    repeats, rest = divmod(num_tokens, num_saved)
    for _ in range(2 * num_layers):
        _, row_bytes = _MATRIX.unpack_from(state, offset)
        longer += state[offset : offset + _MATRIX.size]
        offset += _MATRIX.size
        rows = bytes(state[offset : offset + row_bytes * num_saved])
        longer += rows * repeats + rows[: row_bytes * rest]
        offset += row_bytes * num_saved
    return longer if offset == len(state) else None
