"""The tensor types a GGUF file can hold: their ids, block sizes and byte sizes (GGUF specification, ggml.h)."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple


class GGMLType(IntEnum):
    """Tensor type ids of the format. Ids that once existed and were removed are absent on purpose."""

    F32 = 0
    F16 = 1
    Q4_0 = 2
    Q4_1 = 3
    Q5_0 = 6
    Q5_1 = 7
    Q8_0 = 8
    Q2_K = 10
    Q3_K = 11
    Q4_K = 12
    Q5_K = 13
    Q6_K = 14
    IQ2_XXS = 16
    IQ2_XS = 17
    IQ3_XXS = 18
    IQ1_S = 19
    IQ4_NL = 20
    IQ3_S = 21
    IQ2_S = 22
    IQ4_XS = 23
    I8 = 24
    I16 = 25
    I32 = 26
    I64 = 27
    F64 = 28
    IQ1_M = 29
    BF16 = 30
    TQ1_0 = 34
    TQ2_0 = 35
    MXFP4 = 39
    NVFP4 = 40
    Q1_0 = 41
    Q2_0 = 42

    @property
    def block_size(self) -> int:
        """Values per block."""
        return BLOCK_LAYOUT[self].values

    @property
    def block_bytes(self) -> int:
        """Bytes per block."""
        return BLOCK_LAYOUT[self].bytes

    def row_bytes(self, num_values: int) -> int:
        """Bytes of a row of `num_values`, which must be a whole number of blocks."""
        values, size = BLOCK_LAYOUT[self]
        assert num_values % values == 0, (self.name, num_values)
        return num_values // values * size


class BlockLayout(NamedTuple):
    values: int
    bytes: int


BLOCK_LAYOUT: dict[GGMLType, BlockLayout] = {
    GGMLType.F32: BlockLayout(1, 4),
    GGMLType.F16: BlockLayout(1, 2),
    GGMLType.Q4_0: BlockLayout(32, 18),
    GGMLType.Q4_1: BlockLayout(32, 20),
    GGMLType.Q5_0: BlockLayout(32, 22),
    GGMLType.Q5_1: BlockLayout(32, 24),
    GGMLType.Q8_0: BlockLayout(32, 34),
    GGMLType.Q2_K: BlockLayout(256, 84),
    GGMLType.Q3_K: BlockLayout(256, 110),
    GGMLType.Q4_K: BlockLayout(256, 144),
    GGMLType.Q5_K: BlockLayout(256, 176),
    GGMLType.Q6_K: BlockLayout(256, 210),
    GGMLType.IQ2_XXS: BlockLayout(256, 66),
    GGMLType.IQ2_XS: BlockLayout(256, 74),
    GGMLType.IQ3_XXS: BlockLayout(256, 98),
    GGMLType.IQ1_S: BlockLayout(256, 50),
    GGMLType.IQ4_NL: BlockLayout(32, 18),
    GGMLType.IQ3_S: BlockLayout(256, 110),
    GGMLType.IQ2_S: BlockLayout(256, 82),
    GGMLType.IQ4_XS: BlockLayout(256, 136),
    GGMLType.I8: BlockLayout(1, 1),
    GGMLType.I16: BlockLayout(1, 2),
    GGMLType.I32: BlockLayout(1, 4),
    GGMLType.I64: BlockLayout(1, 8),
    GGMLType.F64: BlockLayout(1, 8),
    GGMLType.IQ1_M: BlockLayout(256, 56),
    GGMLType.BF16: BlockLayout(1, 2),
    GGMLType.TQ1_0: BlockLayout(256, 54),
    GGMLType.TQ2_0: BlockLayout(256, 66),
    GGMLType.MXFP4: BlockLayout(32, 17),
    GGMLType.NVFP4: BlockLayout(64, 36),
    GGMLType.Q1_0: BlockLayout(128, 18),
    GGMLType.Q2_0: BlockLayout(64, 18),
}

# Ids that other programs have written and quipu does not read, so that a file can be refused by name.
# Retired and activation ids: ggml.h of llama.cpp (MIT). 97 to 99 and 133 to 158: ggml.h of ik_llama.cpp (MIT), which
# adds 200 to the id of a type for its row-interleaved form. 142 and 143: the llama.cpp fork of Prism ML (MIT).
_RETIRED: dict[int, str] = {
    4: "Q4_2",
    5: "Q4_3",
    31: "Q4_0_4_4",
    32: "Q4_0_4_8",
    33: "Q4_0_8_8",
    36: "IQ4_NL_4_4",
    37: "IQ4_NL_4_8",
    38: "IQ4_NL_8_8",
}
_FOR_ACTIVATIONS: dict[int, str] = {9: "Q8_1", 15: "Q8_K"}
_PRISM: dict[int, str] = {142: "PQ2_0", 143: "PTQ1_0"}
_IK: dict[int, str] = {
    97: "Q8_0_X4",
    98: "Q8_1_X4",
    99: "Q8_2_X4",
    133: "Q6_0",
    134: "IQ1_BN",
    135: "IQ2_BN",
    136: "Q8_K64",
    137: "IQ2_K",
    138: "IQ3_K",
    139: "IQ4_K",
    140: "IQ5_K",
    141: "IQ6_K",
    144: "IQ4_KS",
    145: "IQ2_KS",
    146: "IQ4_KSS",
    147: "Q8_K16",
    148: "Q8_K32",
    149: "Q8_KR8",
    150: "Q8_K128",
    151: "Q8_KV",
    152: "IQ5_KS",
    153: "IQ2_KT",
    154: "IQ3_KT",
    155: "IQ4_KT",
    156: "IQ3_KS",
    157: "IQ2_KL",
    158: "IQ1_KT",
}
_IK_REPACKED = 200


def describe_foreign_type(type_id: int) -> str:
    """What a type id that is not a `GGMLType` stands for, to end the sentence `the tensor is stored as ...`."""
    if type_id in _RETIRED:
        return f"{_RETIRED[type_id]} (id {type_id}), which was removed from the format"
    if type_id in _FOR_ACTIVATIONS:
        return f"{_FOR_ACTIVATIONS[type_id]} (id {type_id}), which is only for intermediate results, never for files"
    if type_id in _PRISM:
        return f"{_PRISM[type_id]} (id {type_id}), which only Prism ML's fork of llama.cpp reads"
    if type_id in _IK:
        return f"{_IK[type_id]} (id {type_id}), which only ik_llama.cpp reads"
    base = type_id - _IK_REPACKED
    known = {kind.value: kind.name for kind in GGMLType} | _FOR_ACTIVATIONS | _IK
    if base in known:
        return f"row-interleaved {known[base]} (id {type_id}), which only ik_llama.cpp reads"
    return f"type id {type_id}, which quipu does not know"
