"""Programs: model code records coarse ops; a backend compiles the record once and replays it every step.

Nothing here computes. A `Recorder` checks shapes while model code runs and appends `Op`s to a `Program`. Row counts
are symbolic: a value has `rows` "tokens" (every token of the step) or "outputs" (the tokens whose results are wanted);
the counts themselves, positions, page tables and ids arrive with each run, in a `Batch`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from quipu.gguf.types import GGMLType

Rows = Literal["tokens", "outputs"]
Activation = Literal["gelu", "gelu_tanh", "tanh"]


@dataclass(frozen=True, slots=True)
class Weight:
    """A tensor of the model file, as stored.

    Attributes:
        name: the GGUF tensor name, such as `blk.3.attn_q.weight`.
        type: how its blocks are encoded.
        shape: logical shape (rows, cols); a vector is (1, cols).
        data: uint8 [rows, row bytes], a read-only view of the mapped file.
    """

    name: str
    type: GGMLType
    shape: tuple[int, int]
    data: NDArray[np.uint8]

    @property
    def num_bytes(self) -> int:
        return self.data.size


@dataclass(frozen=True, slots=True)
class ExpertWeights:
    """The matrices of SwiGLU feed-forwards of equal shape, one expert's rows after another's.

    Shapes: gate and up [experts * inner, width], down [experts * width, inner].
    """

    gate: Weight
    up: Weight
    down: Weight


@dataclass(frozen=True, slots=True)
class MixtureWeights:
    """A mixture of experts (arXiv:2101.03961, with several experts per token as in arXiv:2401.04088).

    Attributes:
        router: [experts, width]; its products are the experts' logits.
        experts: those that the router chooses from.
        shared: one expert that every token uses, or None.
        shared_router: [1, width]; the shared expert is multiplied by the sigmoid of its product. None: by 1.
    """

    router: Weight
    experts: ExpertWeights
    shared: ExpertWeights | None = None
    shared_router: Weight | None = None

    @property
    def all(self) -> tuple[Weight | None, ...]:
        """Every weight: the router, the experts' three, the shared expert's three and its router."""
        stacked, shared = self.experts, self.shared
        matrices = (None, None, None) if shared is None else (shared.gate, shared.up, shared.down)
        return (self.router, stacked.gate, stacked.up, stacked.down, *matrices, self.shared_router)


@dataclass(frozen=True, slots=True)
class Value:
    """A float32 array [rows, width] that one op writes and later ops read."""

    index: int
    rows: Rows
    width: int


@dataclass(frozen=True, slots=True)
class RopeParams:
    """Rotary position embedding (arXiv:2104.09864), with every scaling variant folded into the frequencies.

    Attributes:
        inverse_frequencies: float32 [num_rotated / 2]; the angle of pair i at position p is p * inverse_frequencies[i].
        magnitude: multiplies sin and cos (YaRN, arXiv:2309.00071).
        pairing: "norm" rotates dimensions (2i, 2i+1), "neox" rotates (i, i + num_rotated / 2).
    """

    inverse_frequencies: NDArray[np.float32]
    magnitude: float
    pairing: Literal["norm", "neox"]

    @property
    def num_rotated(self) -> int:
        return 2 * len(self.inverse_frequencies)


CACHE_TYPES = (
    GGMLType.F32,
    GGMLType.F16,
    GGMLType.BF16,
    GGMLType.Q8_0,
    GGMLType.Q5_1,
    GGMLType.Q5_0,
    GGMLType.Q4_1,
    GGMLType.Q4_0,
    GGMLType.IQ4_NL,
)
"""The types that keys and values can be cached in."""


def padded_length(kv_type: GGMLType, length: int) -> int:
    """Values of a head as cached: a head that is no whole number of blocks is padded with zeros."""
    return -(-length // kv_type.block_size) * kv_type.block_size


def cache_row_bytes(kv_type: GGMLType, length: int) -> int:
    """Bytes of one head of one token."""
    return kv_type.row_bytes(padded_length(kv_type, length))


@dataclass(frozen=True, slots=True)
class KVSpec:
    """What one layer of the KV cache holds per token, and in which types."""

    num_layers: int
    num_kv_heads: int
    key_length: int
    value_length: int
    k_type: GGMLType  # one of CACHE_TYPES
    v_type: GGMLType
    page_size: int  # tokens per page

    def __post_init__(self) -> None:
        for kv_type in (self.k_type, self.v_type):
            if kv_type not in CACHE_TYPES:
                raise ValueError(f"the KV cache cannot hold {kv_type.name}")

    @property
    def bytes_per_token(self) -> int:
        per_head = cache_row_bytes(self.k_type, self.key_length) + cache_row_bytes(self.v_type, self.value_length)
        return self.num_layers * self.num_kv_heads * per_head

    @property
    def bytes_per_page(self) -> int:
        return self.bytes_per_token * self.page_size


OpName = Literal[
    "embed",
    "rms_norm",
    "layer_norm",
    "linear",
    "rope",
    "attention",
    "activation",
    "swiglu",
    "swiglu_linear",
    "moe",
    "add",
    "select_outputs",
]


@dataclass(frozen=True, slots=True)
class Op:
    """One recorded operation.

    Attributes:
        name: the kind of op; see the method of the same name on `Recorder`.
        inputs, outputs: values read and written.
        weights: file tensors read; None where an optional one (a bias) is absent.
        attributes: constants, such as `epsilon`, `layer`, `rope`.
    """

    name: OpName
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    weights: tuple[Weight | None, ...]
    attributes: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Program:
    """A recorded forward pass. `result` holds one row per output: logits, or what the program gives instead."""

    ops: tuple[Op, ...]
    num_values: int
    result: Value


@dataclass(frozen=True, slots=True)
class Batch:
    """The arguments of one run. Sequences lie one after another along the token axis.

    Shapes: T tokens, S sequences, O outputs, P pages (the longest table of the step; shorter ones are padded with 0).

    Attributes:
        token_ids: int32 [T].
        positions: int32 [T]; of sequence s: kv_lengths[s] - n_s ... kv_lengths[s] - 1 with n_s its tokens in this step.
        query_starts: int32 [S + 1]; sequence s owns tokens query_starts[s] ... query_starts[s + 1] - 1.
        kv_lengths: int32 [S]; tokens in the cache once this step has written its own.
        page_tables: int32 [S, P]; position p of sequence s lives in page page_tables[s, p // page_size].
        output_rows: int32 [O]; ascending token indices whose logits are wanted.
        token_types: int32 [T], which segment of a pair each token is of; None: all 0.
    """

    token_ids: NDArray[np.int32]
    positions: NDArray[np.int32]
    query_starts: NDArray[np.int32]
    kv_lengths: NDArray[np.int32]
    page_tables: NDArray[np.int32]
    output_rows: NDArray[np.int32]
    token_types: NDArray[np.int32] | None = None


@dataclass(frozen=True, slots=True)
class EmbedLimits:
    """How many rows the embedding tables beside that of the tokens have; None where there is none."""

    num_positions: int | None
    num_types: int | None

    def check(self, batch: Batch) -> None:
        """Raise ValueError if the batch asks for a row that a table does not have."""
        if self.num_positions is not None and batch.positions.max() >= self.num_positions:
            raise ValueError(f"positions go to {batch.positions.max()}, but the table has {self.num_positions} rows")
        if self.num_types is not None and batch.token_types is not None:
            lowest, highest = batch.token_types.min(), batch.token_types.max()
            if lowest < 0 or highest >= self.num_types:
                raise ValueError(f"token_types go from {lowest} to {highest}, the table has {self.num_types} rows")


def embed_limits(program: Program) -> EmbedLimits:
    """The sizes of the tables that the program's embedding adds up."""
    found: list[list[int]] = [[], []]
    for op in program.ops:
        if op.name == "embed":
            for sizes, table in zip(found, op.weights[1:], strict=True):
                if table is not None:
                    sizes.append(table.shape[0])
    num_positions, num_types = (min(sizes, default=None) for sizes in found)
    return EmbedLimits(num_positions, num_types)


class KVStorage(Protocol):
    """The memory of a paged KV cache. Only the backend that made it knows the layout inside a page.

    Attributes:
        layout: names that layout; bytes read from one storage may be written to another of equal layout and spec.
    """

    spec: KVSpec
    num_pages: int
    layout: str

    def read_page(self, page: int) -> NDArray[np.uint8]:
        """A copy of a page, all layers: uint8 [spec.bytes_per_page]."""

    def write_page(self, page: int, data: NDArray[np.uint8]) -> None:
        """Set a page to bytes that `read_page` gave, uint8 [spec.bytes_per_page]."""

    def copy_page(self, source: int, target: int) -> None:
        """Set page `target` to what page `source`, another one, holds."""


class Executable(Protocol):
    """A compiled program."""

    def run(self, batch: Batch, kv: KVStorage) -> NDArray[np.float32]:
        """Execute one step and return float32 [O, width of the result]. The array is valid until the next run."""


class Backend(Protocol):
    """Compiles programs and owns KV memory."""

    name: str

    @property
    def max_uniform_tokens(self) -> int:
        """Up to so many tokens in a run, each gets the same bits whatever tokens lie beside it."""

    def compile(self, program: Program, *, max_tokens: int) -> Executable:
        """Prepare `program` for runs of up to `max_tokens` tokens."""

    def create_kv_storage(self, spec: KVSpec, num_pages: int) -> KVStorage:
        """Allocate (lazily, where the system allows it) the pages of a KV cache."""


class Recorder:
    """Records the ops of one forward pass, checking shapes as it goes.

    A shape error here is a mistake in model code or a file that slipped past loading checks, hence a ValueError that
    names the tensor and both sizes.
    """

    def __init__(self) -> None:
        self._ops: list[Op] = []
        self._num_values = 0

    def embed(self, table: Weight, positions: Weight | None = None, types: Weight | None = None) -> Value:
        """Rows of `table` [vocab, width] at the step's token ids, plus those of `types` [types, width] at the tokens'
        types and of `positions` [context, width] at their positions (arXiv:1810.04805).
        """
        for other in (positions, types):
            if other is not None and other.shape[1] != table.shape[1]:
                raise ValueError(f"{other.name} has rows of {other.shape[1]} values, {table.name} of {table.shape[1]}")
        output = self._value("tokens", table.shape[1])
        self._record("embed", (), (output,), (table, positions, types))
        return output

    def rms_norm(self, x: Value, weight: Weight, epsilon: float) -> Value:
        """x / sqrt(mean(x^2) + epsilon) * weight over groups of len(weight), so one op serves rows and heads."""
        group = weight.shape[1]
        if x.width % group:
            raise ValueError(f"{weight.name}: norm over {group} values does not divide rows of {x.width}")
        output = self._value(x.rows, x.width)
        self._record("rms_norm", (x,), (output,), (weight,), epsilon=epsilon)
        return output

    def layer_norm(self, x: Value, weight: Weight, bias: Weight, epsilon: float) -> Value:
        """(x - mean) / sqrt(variance + epsilon) * weight + bias over each row (arXiv:1607.06450)."""
        for vector in (weight, bias):
            self._check_columns(x, vector)
        output = self._value(x.rows, x.width)
        self._record("layer_norm", (x,), (output,), (weight, bias), epsilon=epsilon)
        return output

    def linear(
        self, x: Value, weights: Sequence[Weight], biases: Sequence[Weight | None] = (), residual: Value | None = None
    ) -> tuple[Value, ...]:
        """x @ W.T (+ bias) for each of `weights` [out, in], sharing one reading of x.

        `residual`, allowed with a single weight, is added in the epilogue.
        """
        biases = tuple(biases) or (None,) * len(weights)
        if len(biases) != len(weights) or (residual is not None and len(weights) != 1):
            raise ValueError("linear: one bias per weight, and a residual only with a single weight")
        for weight, bias in zip(weights, biases, strict=True):
            self._check_columns(x, weight)
            if bias is not None and bias.shape[1] != weight.shape[0]:
                raise ValueError(f"{bias.name} has {bias.shape[1]} values, {weight.name} has {weight.shape[0]} rows")
        if residual is not None and (residual.rows, residual.width) != (x.rows, weights[0].shape[0]):
            raise ValueError(f"{weights[0].name}: the residual has width {residual.width}, not {weights[0].shape[0]}")
        outputs = tuple(self._value(x.rows, weight.shape[0]) for weight in weights)
        inputs = (x,) if residual is None else (x, residual)
        self._record("linear", inputs, outputs, (*weights, *biases), num_weights=len(weights))
        return outputs

    def swiglu_linear(self, x: Value, gate: Weight, up: Weight) -> Value:
        """silu(x @ gate.T) * (x @ up.T): the first half of a SwiGLU feed-forward (arXiv:2002.05202), fused."""
        self._check_columns(x, gate)
        self._check_columns(x, up)
        if gate.shape != up.shape:
            raise ValueError(f"{gate.name} is {gate.shape} but {up.name} is {up.shape}")
        output = self._value(x.rows, gate.shape[0])
        self._record("swiglu_linear", (x,), (output,), (gate, up))
        return output

    def moe(
        self,
        x: Value,
        weights: MixtureWeights,
        *,
        num_used: int,
        normalize: bool,
        scale: float = 1.0,
        residual: Value | None = None,
    ) -> Value:
        """The weighted sum of each token's `num_used` likeliest experts, with the shared expert and `residual`.

        An expert's weight is its softmax probability among all experts, times `scale`; with `normalize` the
        probabilities of the chosen ones are divided by their sum. Of equal logits the lower expert is chosen.
        """
        num_experts = weights.router.shape[0]
        self._check_columns(x, weights.router)
        self._check_experts(x, weights.experts, num_experts)
        if not 1 <= num_used <= num_experts:
            raise ValueError(f"{weights.router.name}: {num_used} of {num_experts} experts cannot be used")
        if weights.shared is not None:
            self._check_experts(x, weights.shared, 1)
        elif weights.shared_router is not None:
            raise ValueError(f"{weights.shared_router.name} weighs a shared expert, but there is none")
        if weights.shared_router is not None and weights.shared_router.shape != (1, x.width):
            raise ValueError(f"{weights.shared_router.name} is {weights.shared_router.shape}, not {(1, x.width)}")
        if residual is not None and (residual.rows, residual.width) != (x.rows, x.width):
            raise ValueError(f"{weights.router.name}: the residual has width {residual.width}, not {x.width}")
        output = self._value(x.rows, x.width)
        inputs = (x,) if residual is None else (x, residual)
        self._record("moe", inputs, (output,), weights.all, num_used=num_used, normalize=normalize, scale=scale)
        return output

    def swiglu(self, gate: Value, up: Value) -> Value:
        """silu(gate) * up."""
        if (gate.rows, gate.width) != (up.rows, up.width):
            raise ValueError(f"swiglu: widths {gate.width} and {up.width} differ")
        output = self._value(gate.rows, gate.width)
        self._record("swiglu", (gate, up), (output,))
        return output

    def rope(self, x: Value, head_dim: int, rope: RopeParams) -> Value:
        """Rotate the first `rope.num_rotated` dimensions of every head of x by its token's position."""
        if x.width % head_dim or rope.num_rotated > head_dim:
            raise ValueError(f"rope: heads of {head_dim}, {rope.num_rotated} rotated, do not fit rows of {x.width}")
        output = self._value(x.rows, x.width)
        self._record("rope", (x,), (output,), head_dim=head_dim, rope=rope)
        return output

    def attention(
        self,
        q: Value,
        k: Value,
        v: Value,
        *,
        layer: int,
        num_heads: int,
        num_kv_heads: int,
        scale: float,
        window: int | None = None,
        softcap: float | None = None,
        sinks: Weight | None = None,
        causal: bool = True,
    ) -> Value:
        """Append k and v to the cache of `layer`, then attention of q over it (grouped heads, arXiv:2305.13245).

        q [T, num_heads * key_length], k [T, num_kv_heads * key_length], v [T, num_kv_heads * value_length]
        -> [T, num_heads * value_length].

        Args:
            scale: multiplies q @ k.
            window: a token sees this many tokens up to and with itself (arXiv:2004.05150); None: all.
            softcap: scores become softcap * tanh(score / softcap) (arXiv:2408.00118); None: they stay.
            sinks: one logit per head that takes part in the softmax and has no value (arXiv:2309.17453).
            causal: a token sees those up to and with itself; otherwise all that are in the cache once this step has
                written its own. An encoder computes a sequence in one step, so it sees the whole of it, and its layers
                can share one layer of the cache.
        """
        if num_heads % num_kv_heads or q.width % num_heads or v.width % num_kv_heads:
            raise ValueError(f"attention: {num_heads} heads, {num_kv_heads} KV heads, widths {q.width} and {v.width}")
        if k.width != q.width // num_heads * num_kv_heads:
            raise ValueError(f"attention: keys of width {k.width} do not match queries of width {q.width}")
        if (window is not None and window < 1) or (softcap is not None and not softcap > 0):
            raise ValueError(f"attention: a window of {window} or a soft cap of {softcap} is not positive")
        if sinks is not None and sinks.shape[1] != num_heads:
            raise ValueError(f"{sinks.name} has {sinks.shape[1]} values, not one for each of {num_heads} heads")
        if window is not None and not causal:
            raise ValueError("attention: a window needs a causal mask")
        output = self._value(q.rows, v.width // num_kv_heads * num_heads)
        self._record(
            "attention",
            (q, k, v),
            (output,),
            (sinks,),
            layer=layer,
            num_heads=num_heads,
            num_kv_heads=num_kv_heads,
            scale=scale,
            window=window,
            softcap=softcap,
            causal=causal,
        )
        return output

    def activation(self, x: Value, function: Activation) -> Value:
        """A function of each value: "gelu" is x times the normal distribution function and "gelu_tanh" its usual
        approximation (both arXiv:1606.08415); "tanh" is the hyperbolic tangent.
        """
        output = self._value(x.rows, x.width)
        self._record("activation", (x,), (output,), function=function)
        return output

    def add(self, x: Value, y: Value) -> Value:
        """x + y."""
        if (x.rows, x.width) != (y.rows, y.width):
            raise ValueError(f"add: widths {x.width} and {y.width} differ")
        output = self._value(x.rows, x.width)
        self._record("add", (x, y), (output,))
        return output

    def select_outputs(self, x: Value) -> Value:
        """The rows of x named by the batch's output_rows."""
        output = self._value("outputs", x.width)
        self._record("select_outputs", (x,), (output,))
        return output

    def finish(self, result: Value) -> Program:
        """The program, with `result` as its logits, or as what it gives instead."""
        if result.rows != "outputs":
            raise ValueError("the result of a program has one row per output; call select_outputs first")
        return Program(tuple(self._ops), self._num_values, result)

    def _check_columns(self, x: Value, weight: Weight) -> None:
        if x.width != weight.shape[1]:
            raise ValueError(f"{weight.name} expects rows of {weight.shape[1]} values, not {x.width}")

    def _check_experts(self, x: Value, experts: ExpertWeights, count: int) -> None:
        gate, up, down = experts.gate, experts.up, experts.down
        self._check_columns(x, gate)
        self._check_columns(x, up)
        if gate.shape != up.shape:
            raise ValueError(f"{gate.name} is {gate.shape} but {up.name} is {up.shape}")
        expected = (count * x.width, gate.shape[0] // count)
        if gate.shape[0] % count or down.shape != expected:
            raise ValueError(f"{down.name} is {down.shape}, not {expected} for {count} experts")

    def _value(self, rows: Rows, width: int) -> Value:
        self._num_values += 1
        return Value(self._num_values - 1, rows, width)

    def _record(
        self,
        name: OpName,
        inputs: tuple[Value, ...],
        outputs: tuple[Value, ...],
        weights: tuple[Weight | None, ...] = (),
        **attributes: Any,
    ) -> None:
        self._ops.append(Op(name, inputs, outputs, weights, attributes))
