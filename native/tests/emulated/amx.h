// The matrix registers of AMX in plain C++: what simd/amx/instructions.inl gives, for native tests. A shape that the
// processor would refuse ends the program.
#pragma once

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "tests/emulated/avx512.h"

namespace quipu::emulated {
namespace {

struct MatrixRegister {
    int rows = 0, row_bytes = 0;
    alignas(64) uint8_t bytes[16][64] = {};
};
thread_local MatrixRegister matrix_registers[8];
thread_local bool has_shapes = false;

inline void require(bool condition, const char *what) {
    if (condition)
        return;
    std::fprintf(stderr, "emulated AMX: %s\n", what);
    std::abort();
}

inline void set_shapes(const void *memory) {
    const auto *bytes = static_cast<const uint8_t *>(memory);
    require(bytes[0] == 1 && bytes[1] == 0, "palette or start row");
    for (int i = 0; i < 8; i++) {
        uint16_t row_bytes;
        std::memcpy(&row_bytes, bytes + 16 + 2 * i, 2);
        matrix_registers[i] = {};
        matrix_registers[i].rows = bytes[48 + i];
        matrix_registers[i].row_bytes = row_bytes;
        require(bytes[48 + i] <= 16 && row_bytes <= 64 && (row_bytes == 0) == (bytes[48 + i] == 0), "shape");
    }
    has_shapes = true;
}
inline void forget_shapes() {
    has_shapes = false;
}

inline MatrixRegister &matrix(int index) {
    require(has_shapes && matrix_registers[index].rows > 0, "register without a shape");
    return matrix_registers[index];
}
inline void load_matrix(int index, const void *p, int64_t stride) {
    MatrixRegister &m = matrix(index);
    std::memset(m.bytes, 0, sizeof(m.bytes));
    for (int r = 0; r < m.rows; r++)
        std::memcpy(m.bytes[r], static_cast<const uint8_t *>(p) + r * stride, m.row_bytes);
}
inline void store_matrix(int index, void *p, int64_t stride) {
    const MatrixRegister &m = matrix(index);
    for (int r = 0; r < m.rows; r++)
        std::memcpy(static_cast<uint8_t *>(p) + r * stride, m.bytes[r], m.row_bytes);
}
inline void zero_matrix(int index) {
    MatrixRegister &m = matrix(index);
    std::memset(m.bytes, 0, sizeof(m.bytes));
}

// Number: of the sums. f(sum, left, right) on the 4 bytes at row m, step k on the left and at step k, column n on the
// right.
template <class Number, class F> inline void multiply(int sum, int left, int right, F f) {
    MatrixRegister &s = matrix(sum);
    const MatrixRegister &a = matrix(left), &b = matrix(right);
    require(sum != left && sum != right && left != right, "one register twice");
    require(a.rows == s.rows && b.row_bytes == s.row_bytes && 4 * b.rows == a.row_bytes, "shapes do not match");
    for (int m = 0; m < s.rows; m++)
        for (int n = 0; n < s.row_bytes / 4; n++) {
            Number total;
            std::memcpy(&total, &s.bytes[m][4 * n], 4);
            total = f(total, a.bytes[m], [&](int k) { return &b.bytes[k][4 * n]; }, b.rows);
            std::memcpy(&s.bytes[m][4 * n], &total, 4);
        }
}
template <class Left> inline void multiply_bytes(int sum, int left, int right) {
    multiply<int32_t>(sum, left, right, [](int32_t total, const uint8_t *a, auto b, int depth) {
        for (int k = 0; k < depth; k++)
            for (int j = 0; j < 4; j++)
                total += int(static_cast<Left>(a[4 * k + j])) * int(static_cast<int8_t>(b(k)[j]));
        return total;
    });
}
inline void multiply_bf16(int sum, int left, int right) {
    multiply<float>(sum, left, right, [](float total, const uint8_t *a, auto b, int depth) {
        const auto half = [](const uint8_t *p) { return load<uint16_t>(p); };
        float even = 0.0f, odd = 0.0f;
        for (int k = 0; k < depth; k++) {
            even = multiply_add_bf16(half(a + 4 * k), half(b(k)), even);
            odd = multiply_add_bf16(half(a + 4 * k + 2), half(b(k) + 2), odd);
        }
        return flush(flush(total) + flush(even + odd));
    });
}

} // namespace
} // namespace quipu::emulated

#define QUIPU_MATRIX_INSTRUCTIONS "tests/emulated/amx_instructions.inl"
