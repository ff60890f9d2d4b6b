"""The CPU backend: turns a recorded program into native steps, and runs them in one call that releases the GIL.

Compiling decides three things, all here and none in C++: which memory slot each value lives in (values that are dead
give theirs back), where the input of a matrix product is packed for the int8 or float kernels, and before which steps
the threads must meet (only where a step touches what another one wrote since the last meeting).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from quipu import _native
from quipu.backends.program import Batch, KVSpec, KVStorage, Op, Program, RopeParams, Value, Weight, embed_limits
from quipu.quant import dequantize


class CPUKVStorage:
    """KV pages in the layout of the native attention kernels; memory is touched only when a page is first written."""

    layout = "cpu-1"  # counts up when native/layouts.h changes how a page lies

    def __init__(self, spec: KVSpec, num_pages: int) -> None:
        self.spec = spec
        self.num_pages = num_pages
        self.native = _native.KvCache(
            spec.num_layers,
            spec.num_kv_heads,
            spec.key_length,
            spec.value_length,
            spec.page_size,
            int(spec.k_type),
            int(spec.v_type),
            num_pages,
        )
        assert self.native.page_bytes == spec.bytes_per_page

    def read_page(self, page: int) -> NDArray[np.uint8]:
        """A copy of a page: uint8 [spec.bytes_per_page]."""
        data = np.empty(self.spec.bytes_per_page, np.uint8)
        self.native.read_page(page, data)
        return data

    def write_page(self, page: int, data: NDArray[np.uint8]) -> None:
        """Set a page to bytes of `read_page`."""
        self.native.write_page(page, data)

    def copy_page(self, source: int, target: int) -> None:
        """Set page `target` to what page `source` holds."""
        self.native.copy_page(source, target)


def measure_threads(counts: Sequence[int], num_bytes: int, seconds_each: float) -> list[tuple[int, float, float]]:
    """What numbers of threads get out of the machine.

    Args:
        counts: numbers of threads.
        num_bytes: memory that is touched, then read in turn; it should be more than the caches hold.
        seconds_each: how long each number is measured.

    Returns:
        For each number: it, the bytes per second that its threads read together, the seconds until all have met.

    Raises:
        ValueError: there is no number, or one below 1.
    """
    return _native.measure_threads(counts, num_bytes, seconds_each)


# Up to so many tokens a run is bound by memory, which part of the cores may saturate; more tokens need all arithmetic.
_FEW_TOKENS = 4


class CPUBackend:
    """Native kernels on the cores of this machine."""

    name = "cpu"

    def __init__(
        self, num_threads: int, *, few_token_threads: int | None = None, owns_cores: bool | None = None
    ) -> None:
        """
        Args:
            num_threads: threads of the team.
            few_token_threads: how many of them compute runs of few tokens; None: all. The others sleep meanwhile.
            owns_cores: whether each thread has a core and all its time, so that it may spin while it waits; None: if
                there are no more threads than processors for this process.
        """
        if num_threads < 1:
            raise ValueError(f"num_threads must be at least 1, not {num_threads}")
        self._team = _native.Team(num_threads) if owns_cores is None else _native.Team(num_threads, owns_cores)
        self.num_threads = num_threads
        self.few_token_threads = num_threads if few_token_threads is None else few_token_threads

    @property
    def max_uniform_tokens(self) -> int:
        """The most tokens that go through the row kernels, which are one loop; larger runs round differently."""
        return int(_native.max_row_tokens())

    def compile(self, program: Program, *, max_tokens: int) -> CPUExecutable:
        """Lay out memory and steps for runs of up to `max_tokens` tokens."""
        return CPUExecutable(program, self._team, max_tokens, self.few_token_threads)

    def create_kv_storage(self, spec: KVSpec, num_pages: int) -> CPUKVStorage:
        """Reserve the address space of `num_pages` pages."""
        return CPUKVStorage(spec, num_pages)


class CPUExecutable:
    """A compiled program. It keeps the recorded program, and with it the mapped weights, alive."""

    def __init__(self, program: Program, team: _native.Team, max_tokens: int, few_token_threads: int) -> None:
        compiler = _Compiler(program, team, max_tokens)
        self._program = program
        self._kept_alive = compiler.float_vectors
        self._native = compiler.compile()
        self._result = compiler.buffers[program.result.index]
        self._vocab_size = compiler.vocab_size
        self._attention_shapes = compiler.attention_shapes
        self._embed_limits = embed_limits(program)
        self._num_threads = team.num_threads
        self._few_token_threads = few_token_threads

    @property
    def num_steps(self) -> int:
        return int(self._native.num_steps)

    def run(self, batch: Batch, kv: KVStorage) -> NDArray[np.float32]:
        """Execute one step and return float32 [O, width of the result], valid until the next run.

        Raises:
            ValueError: an index of the batch is out of range; checked before anything is written.
        """
        assert isinstance(kv, CPUKVStorage)
        spec = kv.spec
        for layer, *shape in self._attention_shapes:
            assert layer < spec.num_layers
            assert shape == [spec.num_kv_heads, spec.key_length, spec.value_length]
        self._embed_limits.check(batch)
        self._native.run(
            kv.native,
            self._vocab_size,
            batch.token_ids,
            batch.positions,
            batch.query_starts,
            batch.kv_lengths,
            batch.page_tables,
            batch.output_rows,
            self._few_token_threads if len(batch.token_ids) <= _FEW_TOKENS else self._num_threads,
            batch.token_types,
        )
        result: NDArray[np.float32] = self._native.read(self._result, len(batch.output_rows))
        return result


# Resource names, beside slot numbers.
_PACKED = "packed"  # the packed activations
_ROUTED = "routed"  # what the steps of a mixture of experts pass on


class _Compiler:
    """Walks the recorded ops once. Attributes that outlive it are read by CPUExecutable."""

    def __init__(self, program: Program, team: _native.Team, max_tokens: int) -> None:
        self._program = program
        self._native = _native.Program(team, max_tokens)
        self.buffers: dict[int, _native.ValueBuffer] = {}
        self.float_vectors: list[NDArray[np.float32]] = []
        self.attention_shapes: list[tuple[int, int, int, int]] = []
        self.vocab_size = 0
        self._slots: list[_native.Slot] = []
        self._slot_of: dict[int, int] = {}
        self._free_slots: dict[int, list[int]] = {}  # by width
        self._released: set[int] = set()
        self._readers: dict[int, list[int]] = {}  # value -> positions of the ops that read it, ascending
        for position, op in enumerate(program.ops):
            for value in op.inputs:
                self._readers.setdefault(value.index, []).append(position)
        self._readers.setdefault(program.result.index, []).append(len(program.ops))  # the caller
        self._position = 0  # of the op being compiled
        self._matrices: dict[str, _native.Matrix] = {}
        self._rope_tables: dict[int, _native.RopeTable] = {}
        # By window, heads per KV head, and whether it is causal.
        self._attention_plans: dict[tuple[int, int, bool], _native.AttentionPlan] = {}
        self._packed_value: tuple[int, _native.ActivationUses] | None = None
        self._moe_layers: dict[int, _native.MoeLayer] = {}  # by position of the op
        self._moe_workspace: _native.MoeWorkspace | None = None
        self._pending_norm: Op | None = None
        self._written: set[int | str] = set()  # since the last barrier
        self._read: set[int | str] = set()

    def compile(self) -> _native.Program:
        self._packed = self._native.packed_activations(*self._packing_needs())
        for position, op in enumerate(self._program.ops):
            if op.name == "rope":
                self._prepare_rope_table(op.attributes["rope"])
            elif op.name == "moe":
                self._moe_layers[position] = self._moe_layer(op)
        if self._moe_layers:
            self._moe_workspace = _native.moe_workspace(self._native, list(self._moe_layers.values()))
        for position, op in enumerate(self._program.ops):
            self._position = position
            getattr(self, f"_compile_{op.name}")(op)
            self._release_dead((*op.inputs, *op.outputs))
        self._native.seal()
        return self._native

    # --- memory ------------------------------------------------------------------------------------------------------

    def _buffer(self, value: Value) -> _native.ValueBuffer:
        """The value's buffer; its slot is taken when it is first asked for."""
        if value.index not in self.buffers:
            free = self._free_slots.get(value.width)
            if free:
                slot = free.pop()
            else:
                slot = len(self._slots)
                self._slots.append(self._native.slot(value.width))
            self._slot_of[value.index] = slot
            self.buffers[value.index] = _native.value(self._slots[slot], value.width, value.rows == "outputs")
        return self.buffers[value.index]

    def _release_dead(self, values: Iterable[Value]) -> None:
        for value in values:
            is_dead = all(reader <= self._position for reader in self._readers.get(value.index, ()))
            if is_dead and value.index not in self._released:
                self._released.add(value.index)
                self._free_slots.setdefault(value.width, []).append(self._slot_of[value.index])

    def _matrix(self, weight: Weight | None) -> _native.Matrix:
        assert weight is not None
        if weight.name not in self._matrices:
            self._matrices[weight.name] = _native.matrix(weight.data, *weight.shape, int(weight.type))
        return self._matrices[weight.name]

    def _vector(self, weight: Weight | None) -> NDArray[np.float32]:
        """A norm weight or bias as float32. These are small; everything large stays as stored."""
        assert weight is not None
        vector = np.ascontiguousarray(dequantize(weight.data, weight.type).reshape(-1), dtype=np.float32)
        self.float_vectors.append(vector)
        return vector

    def _packing_needs(self) -> tuple[int, _native.ActivationUses]:
        width = 1
        weights: list[_native.Matrix] = []
        for op in self._program.ops:
            if op.name in ("linear", "swiglu_linear"):
                width = max(width, op.inputs[0].width)
                weights += map(self._matrix, self._product_weights(op))
        return width, _native.ActivationUses(weights)

    @staticmethod
    def _product_weights(op: Op) -> tuple[Weight | None, ...]:
        return op.weights[: op.attributes.get("num_weights", len(op.weights))]

    # --- barriers ----------------------------------------------------------------------------------------------------

    def _waits(self, reads: Iterable[int | str], writes: Iterable[int | str]) -> bool:
        """Whether a step with these accesses must wait; records them."""
        reads, writes = set(reads), set(writes)
        conflict = bool(reads & self._written or writes & (self._written | self._read))
        if conflict:
            self._written, self._read = set(), set()
        self._written |= writes
        self._read |= reads
        return conflict

    def _slots_for(self, values: Iterable[Value]) -> list[int | str]:
        for value in values:
            self._buffer(value)
        return [self._slot_of[value.index] for value in values]

    def _waits_for(self, op: Op) -> bool:
        return self._waits(self._slots_for(op.inputs), self._slots_for(op.outputs))

    # --- ops ---------------------------------------------------------------------------------------------------------

    def _prepare_rope_table(self, rope: RopeParams) -> None:
        if id(rope) not in self._rope_tables:
            frequencies = np.ascontiguousarray(rope.inverse_frequencies, dtype=np.float32)
            self._rope_tables[id(rope)] = self._native.rope_table(frequencies, rope.magnitude)
            self._written.add(f"rope table {id(rope)}")

    def _compile_embed(self, op: Op) -> None:
        table = self._matrix(op.weights[0])
        self.vocab_size = table.rows
        waits = self._waits_for(op)
        output = self._buffer(op.outputs[0])
        if op.weights[1:] == (None, None):
            self._native.embed(table, output, waits)
            return
        positions, types = (None if weight is None else self._matrix(weight) for weight in op.weights[1:])
        _native.append_embed_sum(self._native, table, positions, types, output, waits)

    def _compile_rms_norm(self, op: Op) -> None:
        if self._feeds_only_products(op):
            self._pending_norm = op  # joins the packing of its only reader
            self._buffer(op.outputs[0])
            return
        waits = self._waits_for(op)
        self._native.rms_norm(
            self._buffer(op.inputs[0]),
            self._vector(op.weights[0]),
            op.attributes["epsilon"],
            self._buffer(op.outputs[0]),
            waits,
        )

    def _compile_layer_norm(self, op: Op) -> None:
        waits = self._waits_for(op)
        x, output = (self._buffer(value) for value in (*op.inputs, *op.outputs))
        weight, bias = (self._vector(vector) for vector in op.weights)
        _native.append_layer_norm(self._native, x, weight, bias, op.attributes["epsilon"], output, waits)

    def _compile_activation(self, op: Op) -> None:
        waits = self._waits_for(op)
        x, output = (self._buffer(value) for value in (*op.inputs, *op.outputs))
        _native.append_activation(self._native, op.attributes["function"], x, output, waits)

    def _feeds_only_products(self, op: Op) -> bool:
        """Whether the very next op is the only one that reads this whole-row norm, and is a matrix product."""
        output, weight = op.outputs[0], op.weights[0]
        assert weight is not None
        following = self._position + 1
        if following == len(self._program.ops) or self._readers.get(output.index) != [following]:
            return False
        next_op = self._program.ops[following]
        if weight.shape[1] != output.width:
            return False
        return next_op.name == "moe" or (next_op.name in ("linear", "swiglu_linear") and next_op.inputs[1:] == ())

    def _pack(self, op: Op) -> None:
        """Pack the op's first input, unless it is what was packed last."""
        x = op.inputs[0]
        uses = _native.ActivationUses([self._matrix(weight) for weight in self._product_weights(op)])
        norm, self._pending_norm = self._pending_norm, None
        if norm is not None:
            source = norm.inputs[0]
            reads, writes = self._slots_for([source]), [*self._slots_for([x]), _PACKED]
            waits = self._waits(reads, writes)
            self._native.norm_pack(
                self._buffer(source),
                self._vector(norm.weights[0]),
                norm.attributes["epsilon"],
                self._buffer(x),
                uses,
                self._packed,
                waits,
            )
        elif self._packed_value != (x.index, uses):
            waits = self._waits(self._slots_for([x]), [_PACKED])
            self._native.pack(self._buffer(x), uses, self._packed, waits)
        self._packed_value = (x.index, uses)

    def _compile_linear(self, op: Op) -> None:
        self._pack(op)
        count = op.attributes["num_weights"]
        biases = [None if bias is None else self._vector(bias) for bias in op.weights[count:]]
        residual = self._buffer(op.inputs[1]) if len(op.inputs) > 1 else None
        waits = self._waits([*self._slots_for(op.inputs), _PACKED], self._slots_for(op.outputs))
        self._native.linear(
            self._buffer(op.inputs[0]),
            [self._matrix(weight) for weight in op.weights[:count]],
            biases,
            [self._buffer(output) for output in op.outputs],
            residual,
            self._packed,
            waits,
        )

    def _compile_swiglu_linear(self, op: Op) -> None:
        self._pack(op)
        gate, up = (self._matrix(weight) for weight in op.weights)
        waits = self._waits([*self._slots_for(op.inputs), _PACKED], self._slots_for(op.outputs))
        self._native.swiglu_linear(
            self._buffer(op.inputs[0]), gate, up, self._buffer(op.outputs[0]), self._packed, waits
        )

    def _moe_layer(self, op: Op) -> _native.MoeLayer:
        router, gate, up, down = (self._matrix(weight) for weight in op.weights[:4])
        shared = [self._matrix(weight) for weight in op.weights[4:7] if weight is not None]
        shared_router = None if op.weights[7] is None else self._matrix(op.weights[7])
        attributes = op.attributes
        return _native.moe_layer(
            router,
            gate,
            up,
            down,
            attributes["num_used"],
            attributes["normalize"],
            attributes["scale"],
            shared,
            shared_router,
        )

    def _compile_moe(self, op: Op) -> None:
        assert self._moe_workspace is not None
        x, *residual = op.inputs
        (output,) = op.outputs
        norm, self._pending_norm = self._pending_norm, None
        source = x if norm is None else norm.inputs[0]
        waits = self._waits(self._slots_for([source]), [*self._slots_for([x] if norm else []), _ROUTED])
        _native.append_moe(
            self._native,
            self._moe_layers[self._position],
            self._buffer(source),
            None if norm is None else self._vector(norm.weights[0]),
            0.0 if norm is None else norm.attributes["epsilon"],
            self._buffer(x),
            self._buffer(residual[0]) if residual else None,
            self._buffer(output),
            self._moe_workspace,
            waits,
        )
        # The steps have barriers of their own; what follows meets only the last one.
        self._written = set(self._slots_for([output]))
        self._read = {*self._slots_for(residual), _ROUTED}

    def _compile_rope(self, op: Op) -> None:
        rope: RopeParams = op.attributes["rope"]
        table_name = f"rope table {id(rope)}"
        waits = self._waits([*self._slots_for(op.inputs), table_name], self._slots_for(op.outputs))
        self._native.rope(
            self._buffer(op.inputs[0]),
            op.attributes["head_dim"],
            rope.pairing == "neox",
            self._rope_tables[id(rope)],
            self._buffer(op.outputs[0]),
            waits,
        )

    def _compile_attention(self, op: Op) -> None:
        q, k, v = op.inputs
        attributes = op.attributes
        num_heads, num_kv_heads = attributes["num_heads"], attributes["num_kv_heads"]
        (sinks,) = op.weights
        self.attention_shapes.append(
            (attributes["layer"], num_kv_heads, k.width // num_kv_heads, v.width // num_kv_heads)
        )
        waits = self._waits_for(op)
        self._native.attention(
            self._buffer(q),
            self._buffer(k),
            self._buffer(v),
            attributes["layer"],
            num_heads,
            num_kv_heads,
            attributes["scale"],
            attributes["softcap"] or 0.0,
            None if sinks is None else self._vector(sinks),
            self._attention_plan(attributes["window"] or 0, num_heads // num_kv_heads, attributes["causal"]),
            self._buffer(op.outputs[0]),
            waits,
        )
        # The step has a barrier of its own between writing the cache and reading it.
        self._written, self._read = set(self._slots_for(op.outputs)), set(self._slots_for([q]))

    def _attention_plan(self, window: int, group_size: int, causal: bool) -> _native.AttentionPlan:
        key = window, group_size, causal
        if key not in self._attention_plans:
            self._attention_plans[key] = self._native.attention_plan(window, group_size, causal)
        return self._attention_plans[key]

    def _compile_swiglu(self, op: Op) -> None:
        waits = self._waits_for(op)
        gate, up, output = (self._buffer(value) for value in (*op.inputs, *op.outputs))
        self._native.swiglu(gate, up, output, waits)

    def _compile_add(self, op: Op) -> None:
        waits = self._waits_for(op)
        x, y, output = (self._buffer(value) for value in (*op.inputs, *op.outputs))
        self._native.add(x, y, output, waits)

    def _compile_select_outputs(self, op: Op) -> None:
        waits = self._waits_for(op)
        self._native.select_outputs(self._buffer(op.inputs[0]), self._buffer(op.outputs[0]), waits)
