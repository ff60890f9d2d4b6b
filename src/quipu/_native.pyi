"""Types of the native module. Only quipu.backends, quipu.engine and quipu.bench import it."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

def instruction_set() -> str: ...
def max_row_tokens() -> int: ...
def instruction_sets() -> list[tuple[str, bool]]: ...
def cpu_features() -> list[str]: ...
def measure_read_bandwidth(num_threads: int, num_bytes: int, repeats: int) -> list[tuple[str, float]]: ...
def measure_threads(counts: Sequence[int], num_bytes: int, seconds_each: float) -> list[tuple[int, float, float]]: ...
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
    def __init__(self, num_threads: int, owns_cores: bool = ...) -> None: ...
    @property
    def num_threads(self) -> int: ...
    @property
    def owns_cores(self) -> bool: ...

class Matrix:
    @property
    def rows(self) -> int: ...
    @property
    def runs_on_int8(self) -> bool: ...

class Slot: ...
class ValueBuffer: ...

class ActivationUses:
    def __init__(self, weights: Sequence[Matrix]) -> None: ...
    def __eq__(self, other: object) -> bool: ...

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
    @property
    def page_bytes(self) -> int: ...
    def read_page(self, page: int, out: NDArray[np.uint8]) -> None: ...
    def write_page(self, page: int, data: NDArray[np.uint8]) -> None: ...
    def copy_page(self, source: int, target: int) -> None: ...

class AttentionPlan: ...

class Program:
    def __init__(self, team: Team, max_tokens: int) -> None: ...
    @property
    def num_steps(self) -> int: ...
    def slot(self, width: int) -> Slot: ...
    def packed_activations(self, max_width: int, uses: ActivationUses) -> PackedActivations: ...
    def rope_table(self, inverse_frequencies: NDArray[np.float32], magnitude: float) -> RopeTable: ...
    def embed(self, table: Matrix, out: ValueBuffer, waits: bool) -> None: ...
    def rms_norm(
        self, x: ValueBuffer, weight: NDArray[np.float32], epsilon: float, out: ValueBuffer, waits: bool
    ) -> None: ...
    def pack(self, x: ValueBuffer, uses: ActivationUses, packed: PackedActivations, waits: bool) -> None: ...
    def norm_pack(
        self,
        x: ValueBuffer,
        weight: NDArray[np.float32],
        epsilon: float,
        normalized: ValueBuffer,
        uses: ActivationUses,
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
        num_threads: int,
        token_types: NDArray[np.int32] | None = None,
    ) -> None: ...
    def read(self, value: ValueBuffer, num_rows: int) -> NDArray[np.float32]: ...

class TokenPieces:
    def __init__(self, bytes: bytes, offsets: NDArray[np.int64], end_ids: NDArray[np.int32]) -> None: ...

class SamplerChain:
    def __init__(
        self,
        steps: Sequence[tuple[str, list[float], Sequence[Sequence[int]], TokenPieces | None]],
        bias_ids: NDArray[np.int32],
        bias_values: NDArray[np.float32],
        early_forbidden: NDArray[np.int32],
        early_end: int,
        post_sampling_probs: bool,
    ) -> None: ...

class SamplerState:
    def __init__(self, chain: SamplerChain) -> None: ...
    @property
    def values(self) -> tuple[float, float]: ...

_SampleDraw = tuple[
    SamplerChain,
    SamplerState,
    NDArray[np.int32],
    int,
    int,
    NDArray[np.int32],
    NDArray[np.int32] | None,
    int,
]
_TokenLogprobs = tuple[int, float, list[tuple[int, float]]]

class SamplerPool:
    def __init__(self) -> None: ...
    def sample_batch(
        self, logits: NDArray[np.float32], draws: Sequence[_SampleDraw]
    ) -> list[tuple[list[int], list[_TokenLogprobs] | None]]: ...
    def logprobs(
        self, logits: NDArray[np.float32], token_ids: NDArray[np.int32], num_top: int
    ) -> list[_TokenLogprobs]: ...

def sampler_scans() -> str: ...
