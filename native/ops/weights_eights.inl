// The interface of formats that are read eight groups (256 values) at a time, in row kernels (matvec_eights.inl) and in
// tile kernels (matmul_eights.inl). Where a block is shorter, eight groups are several blocks; a last, partial eight is
// a copy padded with zero blocks.
//
// A trait W says, for group G (32 values) of eight:
//   value = scale * (code - kCentre) - offset        codes are bytes up to kMaxCode
//   value = scale * (+-code)                         kMagnitudes: codes are magnitudes, signs come apart
// with one float scale per group, or (kScaling) per 16 values: an integer times the group's float, or a float each.
// Offsets (kOffsets) are per group, with kIntPairs per 16 values.
#pragma once

namespace quipu::QUIPU_ISA {
namespace {

enum class Scaling { kGroups, kIntPairs, kFloatPairs };

struct EightScales {
    F32x8 scales{};      // per group; kFloatPairs: of groups 0 to 3, per 16 values
    F32x8 high_scales{}; // kFloatPairs: of groups 4 to 7
    F32x8 offsets{}, high_offsets{};
    I16x16 pair_scales{}; // kIntPairs: at most 127 in magnitude
};

struct EightCodes {
    B8x32 codes{};
    B8x32 signs{}; // kMagnitudes: negative lanes for minus, positive for plus; anything where the code is zero
};

// What most formats with blocks of 256 values do not need; see matvec_blocks.inl.
struct BlockDefaults {
    static constexpr bool kMagnitudes = false, kMinima = false, kHalves = false;
    static constexpr int kCentre = 0, kMaxMinimum = 0;
    struct State {};
    template <class Block> static void prepare(const Block *, State &) {}
};

// What most traits do not need.
struct EightDefaults {
    static constexpr int kGroups = 8, kCentre = 0;
    static constexpr bool kMagnitudes = false, kOffsets = false, kMinima = false, kHalves = false;
    static constexpr int kMaxMinimum = 0;
    static constexpr Scaling kScaling = Scaling::kGroups;
    static constexpr bool kEights = true;
    struct State {};
    template <class Block> static void prepare(const Block *, State &) {}
};

template <class W> constexpr bool reads_eights() {
    return requires { W::kEights; };
}
template <class W> constexpr int blocks_per_eight() {
    return kGroupsPerBlock / W::kGroups;
}

// The blocks of eight groups from `group` on, where they lie or, if the row ends within them, in `padded`.
template <class W>
inline const typename W::Block *blocks_of_eight(const typename W::Block *row, int group, int total_groups,
                                                typename W::Block (&padded)[blocks_per_eight<W>()]) {
    const typename W::Block *blocks = row + group / W::kGroups;
    if constexpr (W::kGroups < kGroupsPerBlock) {
        if (group + kGroupsPerBlock > total_groups) {
            std::memset(padded, 0, sizeof(padded));
            std::memcpy(padded, blocks, (total_groups - group) / W::kGroups * sizeof(padded[0]));
            return padded;
        }
    }
    return blocks;
}

} // namespace
} // namespace quipu::QUIPU_ISA
