"""The reference backend: every op in plain numpy, exact where the fast ones may round.

It is the oracle that other backends are compared with, and the place to look up what an op means. Activations stay
float32 and are never quantized; weights are dequantized each time they are used, a slice at a time, so that a large
model needs no more memory than its file. Sums that are cheap to make in float64 are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from quipu.backends.program import (
    Batch,
    KVSpec,
    KVStorage,
    Op,
    Program,
    RopeParams,
    Weight,
    cache_row_bytes,
    embed_limits,
    padded_length,
)
from quipu.gguf.types import GGMLType
from quipu.quant import dequantize, encode

Array = NDArray[np.float32]

_SLICE_VALUES = 1 << 24  # of a weight, dequantized at a time: 64 MiB of float32


class ReferenceKVStorage:
    """KV pages as plain arrays of stored bytes.

    Attributes:
        keys, values: per layer uint8 [num_pages, page_size, num_kv_heads, row bytes], each row a key or value encoded
            as its cache type. The memory is touched only when a page is first written.
    """

    layout = "reference-1"

    def __init__(self, spec: KVSpec, num_pages: int) -> None:
        self.spec = spec
        self.num_pages = num_pages
        shape = (num_pages, spec.page_size, spec.num_kv_heads)
        k_bytes = cache_row_bytes(spec.k_type, spec.key_length)
        v_bytes = cache_row_bytes(spec.v_type, spec.value_length)
        self.keys = [np.zeros((*shape, k_bytes), np.uint8) for _ in range(spec.num_layers)]
        self.values = [np.zeros((*shape, v_bytes), np.uint8) for _ in range(spec.num_layers)]

    def read_page(self, page: int) -> NDArray[np.uint8]:
        """A copy of a page: uint8 [spec.bytes_per_page]."""
        return np.concatenate([array[page].reshape(-1) for array in (*self.keys, *self.values)])

    def write_page(self, page: int, data: NDArray[np.uint8]) -> None:
        """Set a page to bytes of `read_page`."""
        if data.shape != (self.spec.bytes_per_page,):
            raise ValueError(f"a page has {self.spec.bytes_per_page} bytes, not {data.shape}")
        begin = 0
        for array in (*self.keys, *self.values):
            end = begin + array[page].size
            array[page] = data[begin:end].reshape(array[page].shape)
            begin = end

    def copy_page(self, source: int, target: int) -> None:
        """Set page `target` to what page `source` holds."""
        for array in (*self.keys, *self.values):
            array[target] = array[source]


class ReferenceBackend:
    """Runs programs with numpy, op by op."""

    name = "reference"
    max_uniform_tokens = 1  # numpy's matrix product chooses its order of sums by the shape

    def __init__(self, *, weight_cache_bytes: int = 0) -> None:
        """
        Args:
            weight_cache_bytes: how much dequantized weight each compiled program may keep; once it is full, further
                weights are dequantized at each use. Meant for tests that run tiny models many times.
        """
        self.weight_cache_bytes = weight_cache_bytes

    def compile(self, program: Program, *, max_tokens: int) -> ReferenceExecutable:
        """Wrap `program`; there is nothing to prepare."""
        return ReferenceExecutable(program, max_tokens, self.weight_cache_bytes)

    def create_kv_storage(self, spec: KVSpec, num_pages: int) -> ReferenceKVStorage:
        """Allocate `num_pages` pages."""
        return ReferenceKVStorage(spec, num_pages)


class ReferenceExecutable:
    """A program that is interpreted at each run."""

    def __init__(self, program: Program, max_tokens: int, weight_cache_bytes: int) -> None:
        self._program = program
        self._max_tokens = max_tokens
        self._weights = _WeightReader(weight_cache_bytes)
        tables = [op.weights[0] for op in program.ops if op.name == "embed"]
        self._vocab_size = min(table.shape[0] for table in tables if table is not None)
        self._embed_limits = embed_limits(program)

    def run(self, batch: Batch, kv: KVStorage) -> Array:
        """Execute one step and return logits float32 [O, vocab].

        Raises:
            ValueError: an index of the batch is out of range; checked before anything is written.
        """
        assert isinstance(kv, ReferenceKVStorage)
        _check_batch(batch, kv, self._vocab_size, self._max_tokens)
        self._embed_limits.check(batch)
        step = _Step(batch, kv, self._weights)
        values: dict[int, Array] = {}
        for op in self._program.ops:
            results = step.compute(op, [values[value.index] for value in op.inputs])
            for value, result in zip(op.outputs, results, strict=True):
                assert result.shape[1] == value.width
                values[value.index] = result
        return values[self._program.result.index]


class _WeightReader:
    """Dequantizes weights, and keeps the first ones as far as the budget goes."""

    def __init__(self, budget_bytes: int) -> None:
        self._budget_bytes = budget_bytes
        self._kept: dict[str, Array] = {}

    def slices(self, weight: Weight) -> Iterator[tuple[slice, Array]]:
        """The rows of `weight` in slices: (which rows, float32 [rows, cols])."""
        kept = self._kept.get(weight.name)
        num_values = weight.shape[0] * weight.shape[1]
        if kept is None and 4 * num_values <= self._budget_bytes:
            self._budget_bytes -= 4 * num_values
            kept = self._kept[weight.name] = dequantize(weight.data, weight.type)
        if kept is not None:
            yield slice(0, len(kept)), kept
            return
        rows_at_once = max(1, _SLICE_VALUES // weight.shape[1])
        for start in range(0, weight.shape[0], rows_at_once):
            rows = slice(start, min(start + rows_at_once, weight.shape[0]))
            yield rows, dequantize(weight.data[rows], weight.type)

    def vector(self, weight: Weight) -> Array:
        """A norm weight or bias, float32 [n]."""
        return next(self.slices(weight))[1].reshape(-1)

    def rows(self, weight: Weight, indices: NDArray[np.int32]) -> Array:
        """Single rows, float32 [n, cols]."""
        return dequantize(weight.data[indices], weight.type)


class _Step:
    """One run: the op of each name, applied to arrays [rows, width]."""

    def __init__(self, batch: Batch, kv: ReferenceKVStorage, weights: _WeightReader) -> None:
        self._batch = batch
        self._kv = kv
        self._weights = weights

    def compute(self, op: Op, inputs: list[Array]) -> list[Array]:
        """The outputs of `op`."""
        match op.name:
            case "embed":
                return [self._embed(*op.weights)]
            case "rms_norm":
                weight = self._weights.vector(_present(op.weights[0]))
                return [rms_norm(inputs[0], weight, op.attributes["epsilon"])]
            case "layer_norm":
                weight, bias = (self._weights.vector(_present(vector)) for vector in op.weights)
                return [layer_norm(inputs[0], weight, bias, op.attributes["epsilon"])]
            case "linear":
                return self._linear(op, inputs)
            case "swiglu_linear":
                gate, up = (self._product(inputs[0], _present(weight)) for weight in op.weights)
                return [swiglu(gate, up)]
            case "moe":
                return [self._moe(op, *inputs)]
            case "activation":
                return [ACTIVATIONS[op.attributes["function"]](inputs[0].astype(np.float64)).astype(np.float32)]
            case "swiglu":
                return [swiglu(inputs[0], inputs[1])]
            case "rope":
                return [rotate(inputs[0], self._batch.positions, op.attributes["head_dim"], op.attributes["rope"])]
            case "attention":
                return [self._attention(op, *inputs)]
            case "add":
                return [inputs[0] + inputs[1]]
            case "select_outputs":
                return [inputs[0][self._batch.output_rows]]

    def _embed(self, table: Weight | None, positions: Weight | None, types: Weight | None) -> Array:
        batch = self._batch
        rows = self._weights.rows(_present(table), batch.token_ids)
        if types is not None:
            token_types = np.zeros_like(batch.token_ids) if batch.token_types is None else batch.token_types
            rows += self._weights.rows(types, token_types)
        if positions is not None:
            rows += self._weights.rows(positions, batch.positions)
        return rows

    def _linear(self, op: Op, inputs: list[Array]) -> list[Array]:
        count = op.attributes["num_weights"]
        results = []
        for weight, bias in zip(op.weights[:count], op.weights[count:], strict=True):
            result = self._product(inputs[0], _present(weight))
            if bias is not None:
                result += self._weights.vector(bias)
            results.append(result)
        if len(inputs) > 1:
            results[0] += inputs[1]
        return results

    def _moe(self, op: Op, x: Array, residual: Array | None = None) -> Array:
        router, *stacked = op.weights[:4]
        shared, shared_router = op.weights[4:7], op.weights[7]
        logits = self._product(x, _present(router))
        ids, weights = choose_experts(logits, op.attributes["num_used"], normalize=op.attributes["normalize"])
        weights *= op.attributes["scale"]
        output = np.zeros(x.shape, np.float64)
        for expert in range(logits.shape[1]):
            tokens, places = np.nonzero(ids == expert)
            if len(tokens):
                matrices = [expert_of(_present(weight), expert, logits.shape[1]) for weight in stacked]
                output[tokens] += weights[tokens, places, None] * self._expert(x[tokens], *matrices)
        if shared[0] is not None:
            share = self._expert(x, *map(_present, shared)).astype(np.float64)
            if shared_router is not None:
                share *= 1.0 / (1.0 + np.exp(-self._product(x, shared_router).astype(np.float64)))
            output += share
        return (output if residual is None else output + residual).astype(np.float32)

    def _expert(self, x: Array, gate: Weight, up: Weight, down: Weight) -> Array:
        return self._product(swiglu(self._product(x, gate), self._product(x, up)), down)

    def _product(self, x: Array, weight: Weight) -> Array:
        """x [n, cols] @ W.T -> [n, rows]."""
        result = np.empty((len(x), weight.shape[0]), np.float32)
        for rows, values in self._weights.slices(weight):
            result[:, rows] = x @ values.T
        return result

    def _attention(self, op: Op, q: Array, k: Array, v: Array) -> Array:
        layer, num_heads, num_kv_heads = (op.attributes[name] for name in ("layer", "num_heads", "num_kv_heads"))
        batch, spec = self._batch, self._kv.spec
        assert (num_kv_heads, k.shape[1] // num_kv_heads) == (spec.num_kv_heads, spec.key_length)
        keys, values = self._kv.keys[layer], self._kv.values[layer]
        (sinks,) = op.weights
        output = np.empty((len(q), num_heads * spec.value_length), np.float32)
        for sequence, length in enumerate(batch.kv_lengths):
            tokens = slice(batch.query_starts[sequence], batch.query_starts[sequence + 1])
            positions = batch.positions[tokens]
            pages = batch.page_tables[sequence, positions // spec.page_size]
            slots = positions % spec.page_size
            keys[pages, slots] = _encode_heads(k[tokens].reshape(-1, num_kv_heads, spec.key_length), spec.k_type)
            values[pages, slots] = _encode_heads(v[tokens].reshape(-1, num_kv_heads, spec.value_length), spec.v_type)
            used = batch.page_tables[sequence, : -(-int(length) // spec.page_size)]
            output[tokens] = attend(
                q[tokens].reshape(-1, num_heads, spec.key_length),
                _decode_heads(keys[used], spec.k_type, spec.key_length)[:length],
                _decode_heads(values[used], spec.v_type, spec.value_length)[:length],
                positions,
                op.attributes["scale"],
                window=op.attributes["window"],
                softcap=op.attributes["softcap"],
                causal=op.attributes["causal"],
                sinks=None if sinks is None else self._weights.vector(sinks),
            )
        return output


def _encode_heads(heads: Array, kv_type: GGMLType) -> NDArray[np.uint8]:
    """float32 [n, KV heads, length] as stored rows, padded to whole blocks."""
    missing = padded_length(kv_type, heads.shape[2]) - heads.shape[2]
    return encode(np.pad(heads, ((0, 0), (0, 0), (0, missing))), kv_type)


def _decode_heads(pages: NDArray[np.uint8], kv_type: GGMLType, length: int) -> Array:
    """Stored pages [n, page size, KV heads, row bytes] as float32 [n * page size, KV heads, length]."""
    return dequantize(pages.reshape(-1, *pages.shape[2:]), kv_type)[..., :length]


def _present(weight: Weight | None) -> Weight:
    assert weight is not None
    return weight


def rms_norm(x: Array, weight: Array, epsilon: float) -> Array:
    """x / sqrt(mean(x^2) + epsilon) * weight over groups of len(weight) columns (arXiv:1910.07467)."""
    groups = x.reshape(len(x), x.shape[1] // len(weight), len(weight)).astype(np.float64)
    scale = 1.0 / np.sqrt(np.mean(np.square(groups), axis=-1, keepdims=True) + epsilon)
    normalized: Array = (groups * scale * weight).astype(np.float32)
    return normalized.reshape(x.shape)


def layer_norm(x: Array, weight: Array, bias: Array, epsilon: float) -> Array:
    """(x - mean) / sqrt(variance + epsilon) * weight + bias over each row (arXiv:1607.06450)."""
    centred = x - x.mean(axis=-1, keepdims=True, dtype=np.float64)
    scale = 1.0 / np.sqrt(np.mean(np.square(centred), axis=-1, keepdims=True) + epsilon)
    normalized: Array = (centred * scale * weight + bias).astype(np.float32)
    return normalized


def gelu(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """x times the normal distribution function (arXiv:1606.08415)."""
    result: NDArray[np.float64] = 0.5 * x * (1.0 + _erf(x * math.sqrt(0.5)))
    return result


def gelu_tanh(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """The approximation of gelu by a hyperbolic tangent, of the same paper."""
    return 0.5 * x * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))


_erf = np.vectorize(math.erf, otypes=[np.float64])

ACTIVATIONS: Mapping[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = MappingProxyType(
    {"gelu": gelu, "gelu_tanh": gelu_tanh, "tanh": np.tanh}
)


def swiglu(gate: Array, up: Array) -> Array:
    """silu(gate) * up, with silu(x) = x / (1 + exp(-x)) (arXiv:2002.05202)."""
    # exp of the magnitude never overflows; both branches are the same function.
    decay = np.exp(-np.abs(gate))
    sigmoid = np.where(gate >= 0, 1.0, decay) / (1.0 + decay)
    return (gate * sigmoid * up).astype(np.float32)


def choose_experts(logits: Array, num_used: int, *, normalize: bool) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """The experts of each token and their weights, both [n, num_used], likeliest first.

    Args:
        logits: float32 [n, experts].
        num_used: experts per token.
        normalize: whether a token's weights sum to 1; otherwise they are probabilities among all experts.
    """
    ids = np.argsort(-logits, axis=1, kind="stable")[:, :num_used]
    weights = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    weights /= weights.sum(axis=1, keepdims=True)
    chosen = np.take_along_axis(weights, ids, axis=1)
    return ids, chosen / chosen.sum(axis=1, keepdims=True) if normalize else chosen


def expert_of(stacked: Weight, expert: int, num_experts: int) -> Weight:
    """One expert's rows of a stacked weight."""
    rows = stacked.shape[0] // num_experts
    data = stacked.data[expert * rows : (expert + 1) * rows]
    return Weight(f"{stacked.name}[{expert}]", stacked.type, (rows, stacked.shape[1]), data)


def rotate(x: Array, positions: NDArray[np.int32], head_dim: int, rope: RopeParams) -> Array:
    """Rotate the first `rope.num_rotated` dimensions of each head of x [n, heads * head_dim]."""
    angles = positions.astype(np.float64)[:, None] * rope.inverse_frequencies.astype(np.float64)
    cos = (np.cos(angles) * rope.magnitude)[:, None, :]
    sin = (np.sin(angles) * rope.magnitude)[:, None, :]
    output = x.reshape(len(x), x.shape[1] // head_dim, head_dim).copy()
    half = rope.num_rotated // 2
    if rope.pairing == "norm":
        first, second = slice(0, rope.num_rotated, 2), slice(1, rope.num_rotated, 2)
    else:
        first, second = slice(0, half), slice(half, rope.num_rotated)
    a, b = output[..., first].astype(np.float64), output[..., second].astype(np.float64)
    output[..., first] = a * cos - b * sin
    output[..., second] = a * sin + b * cos
    return output.reshape(x.shape)


def attend(
    q: Array,
    keys: Array,
    values: Array,
    positions: NDArray[np.int32],
    scale: float,
    *,
    window: int | None = None,
    softcap: float | None = None,
    sinks: Array | None = None,
    causal: bool = True,
) -> Array:
    """Attention of one sequence.

    Args:
        q: float32 [n, heads, key length].
        keys: float32 [length, KV heads, key length]; row p is the token at position p.
        values: float32 [length, KV heads, value length].
        positions: int32 [n], of the queries; each sees the keys up to its own position, or without `causal` all.
        scale: multiplies q @ k.
        window: a query sees this many tokens up to its own; None: all.
        softcap: scores become softcap * tanh(score / softcap).
        sinks: float32 [heads], logits that take part in the softmax and have no value.

    Returns:
        float32 [n, heads * value length].
    """
    num_queries, num_heads, key_length = q.shape
    length, num_kv_heads, value_length = values.shape
    group_size = num_heads // num_kv_heads
    grouped = q.reshape(num_queries, num_kv_heads, group_size, key_length)
    scores = np.einsum("nkgd,lkd->kgnl", grouped, keys, optimize=True).astype(np.float64) * scale
    if softcap is not None:
        scores = np.tanh(scores / softcap) * softcap
    if causal:
        distance = positions[:, None] - np.arange(length)
        scores[..., (distance < 0) | (distance >= (length if window is None else window))] = -math.inf
    highest = scores.max(axis=-1, keepdims=True)
    sink = None if sinks is None else sinks.astype(np.float64).reshape(num_kv_heads, group_size, 1, 1)
    if sink is not None:
        highest = np.maximum(highest, sink)
    weights = np.exp(scores - highest)
    weights /= weights.sum(axis=-1, keepdims=True) + (0.0 if sink is None else np.exp(sink - highest))
    mixed: NDArray[np.float64] = np.einsum("kgnl,lkd->nkgd", weights, values.astype(np.float64), optimize=True)
    return mixed.astype(np.float32).reshape(num_queries, num_heads * value_length)


def _check_batch(batch: Batch, kv: ReferenceKVStorage, vocab_size: int, max_tokens: int) -> None:
    num_tokens, num_sequences = len(batch.token_ids), len(batch.kv_lengths)
    if not 0 < num_tokens <= max_tokens:
        raise ValueError(f"the batch has {num_tokens} tokens, the program was compiled for 1 to {max_tokens}")
    if len(batch.positions) != num_tokens or len(batch.query_starts) != num_sequences + 1:
        raise ValueError("the arrays of the batch disagree about the number of tokens or sequences")
    if batch.query_starts[0] != 0 or batch.query_starts[-1] != num_tokens or (np.diff(batch.query_starts) < 1).any():
        raise ValueError("query_starts does not rise from 0 to the number of tokens")
    _check_range("token_ids", batch.token_ids, vocab_size)
    _check_range("output_rows", batch.output_rows, num_tokens)
    if (np.diff(batch.output_rows) <= 0).any():
        raise ValueError("output_rows is not ascending")
    for sequence, length in enumerate(batch.kv_lengths):
        num_new = batch.query_starts[sequence + 1] - batch.query_starts[sequence]
        positions = batch.positions[batch.query_starts[sequence] : batch.query_starts[sequence + 1]]
        if length < num_new or (positions != np.arange(length - num_new, length)).any():
            raise ValueError(f"the positions of sequence {sequence} do not end at its kv_length {length}")
        num_pages = -(-int(length) // kv.spec.page_size)
        if num_pages > batch.page_tables.shape[1]:
            raise ValueError(f"sequence {sequence} needs {num_pages} pages, its table has {batch.page_tables.shape[1]}")
        _check_range("page_tables", batch.page_tables[sequence, :num_pages], kv.num_pages)


def _check_range(name: str, values: NDArray[np.int32], limit: int) -> None:
    if len(values) and not (values.min() >= 0 and values.max() < limit):
        raise ValueError(f"{name} holds values from {values.min()} to {values.max()}, but they must be below {limit}")
