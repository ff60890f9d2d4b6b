"""Types of the native module. Only quipu.backends, quipu.engine and quipu.bench import it."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

def instruction_set() -> str: ...
def instruction_sets() -> list[tuple[str, bool]]: ...
def cpu_features() -> list[str]: ...
def measure_read_bandwidth(num_threads: int, num_bytes: int, repeats: int) -> list[tuple[str, float]]: ...
def format_info(type_id: int) -> tuple[str, int, int]: ...
def unpack(type_id: int, data: NDArray[np.uint8], out: NDArray[np.float32]) -> None: ...
def encode(type_id: int, values: NDArray[np.float32], out: NDArray[np.uint8]) -> None: ...
def matrix(data: NDArray[np.uint8], rows: int, cols: int, type: int) -> Matrix: ...
def value(slot: Slot, width: int, per_output: bool) -> ValueBuffer: ...
def moe_layer(
    router: Matrix,
    gate: Matrix,
    up: Matrix,
    down: Matrix,
    num_used: int,
    normalize: bool,
    scale: float,
    shared: Sequence[Matrix],
    shared_router: Matrix | None,
) -> MoeLayer: ...
def moe_workspace(program: Program, layers: Sequence[MoeLayer]) -> MoeWorkspace: ...
def append_moe(
    program: Program,
    layer: MoeLayer,
    source: ValueBuffer,
    norm_weight: NDArray[np.float32] | None,
    epsilon: float,
    normalized: ValueBuffer,
    residual: ValueBuffer | None,
    out: ValueBuffer,
    workspace: MoeWorkspace,
    waits: bool,
) -> None: ...
def append_embed_sum(
    program: Program, tokens: Matrix, positions: Matrix | None, types: Matrix | None, out: ValueBuffer, waits: bool
) -> None: ...
def append_layer_norm(
    program: Program,
    x: ValueBuffer,
    weight: NDArray[np.float32],
    bias: NDArray[np.float32],
    epsilon: float,
    out: ValueBuffer,
    waits: bool,
) -> None: ...
def append_activation(program: Program, name: str, x: ValueBuffer, out: ValueBuffer, waits: bool) -> None: ...

class Team:
    def __init__(self, num_threads: int) -> None: ...
    @property
    def num_threads(self) -> int: ...

class Matrix:
    @property
    def rows(self) -> int: ...
    @property
    def runs_on_int8(self) -> bool: ...

class Slot: ...
class ValueBuffer: ...
class PackedActivations: ...
class RopeTable: ...
class MoeLayer: ...
class MoeWorkspace: ...

class KvCache:
    def __init__(
        self,
        num_layers: int,
        num_kv_heads: int,
        key_length: int,
        value_length: int,
        page_size: int,
        k_type: int,
        v_type: int,
        num_pages: int,
    ) -> None: ...

class AttentionPlan: ...

class Program:
    def __init__(self, team: Team, max_tokens: int) -> None: ...
    @property
    def num_steps(self) -> int: ...
    def slot(self, width: int) -> Slot: ...
    def packed_activations(self, max_width: int, as_int8: bool, as_float: bool) -> PackedActivations: ...
    def rope_table(self, inverse_frequencies: NDArray[np.float32], magnitude: float) -> RopeTable: ...
    def embed(self, table: Matrix, out: ValueBuffer, waits: bool) -> None: ...
    def rms_norm(
        self, x: ValueBuffer, weight: NDArray[np.float32], epsilon: float, out: ValueBuffer, waits: bool
    ) -> None: ...
    def pack(self, x: ValueBuffer, as_int8: bool, as_float: bool, packed: PackedActivations, waits: bool) -> None: ...
    def norm_pack(
        self,
        x: ValueBuffer,
        weight: NDArray[np.float32],
        epsilon: float,
        normalized: ValueBuffer,
        as_int8: bool,
        as_float: bool,
        packed: PackedActivations,
        waits: bool,
    ) -> None: ...
    def linear(
        self,
        x: ValueBuffer,
        weights: Sequence[Matrix],
        biases: Sequence[NDArray[np.float32] | None],
        outs: Sequence[ValueBuffer],
        residual: ValueBuffer | None,
        packed: PackedActivations,
        waits: bool,
    ) -> None: ...
    def swiglu_linear(
        self, x: ValueBuffer, gate: Matrix, up: Matrix, out: ValueBuffer, packed: PackedActivations, waits: bool
    ) -> None: ...
    def rope(
        self, x: ValueBuffer, head_dim: int, neox: bool, table: RopeTable, out: ValueBuffer, waits: bool
    ) -> None: ...
    def attention_plan(self, window: int, group_size: int, causal: bool) -> AttentionPlan: ...
    def attention(
        self,
        q: ValueBuffer,
        k: ValueBuffer,
        v: ValueBuffer,
        layer: int,
        num_heads: int,
        num_kv_heads: int,
        scale: float,
        softcap: float,
        sinks: NDArray[np.float32] | None,
        plan: AttentionPlan,
        out: ValueBuffer,
        waits: bool,
    ) -> None: ...
    def swiglu(self, gate: ValueBuffer, up: ValueBuffer, out: ValueBuffer, waits: bool) -> None: ...
    def add(self, x: ValueBuffer, y: ValueBuffer, out: ValueBuffer, waits: bool) -> None: ...
    def select_outputs(self, x: ValueBuffer, out: ValueBuffer, waits: bool) -> None: ...
    def seal(self) -> None: ...
    def run(
        self,
        kv: KvCache,
        vocab_size: int,
        token_ids: NDArray[np.int32],
        positions: NDArray[np.int32],
        query_starts: NDArray[np.int32],
        kv_lengths: NDArray[np.int32],
        page_tables: NDArray[np.int32],
        output_rows: NDArray[np.int32],
        token_types: NDArray[np.int32] | None = None,
    ) -> None: ...
    def read(self, value: ValueBuffer, num_rows: int) -> NDArray[np.float32]: ...

class SamplerChain:
    def __init__(
        self,
        steps: Sequence[tuple[str, list[float]]],
        bias_ids: NDArray[np.int32],
        bias_values: NDArray[np.float32],
    ) -> None: ...

def sample_batch(
    logits: NDArray[np.float32],
    chains: Sequence[SamplerChain],
    histories: Sequence[NDArray[np.int32]],
    seeds: NDArray[np.uint64],
    positions: NDArray[np.int64],
) -> list[int]: ...
