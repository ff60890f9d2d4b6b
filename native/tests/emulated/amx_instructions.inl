// What simd/amx/instructions.inl defines, on emulated registers.
#pragma once

namespace quipu::QUIPU_ISA {
namespace {

template <int T> inline void load_matrix(const void *p, int64_t stride_bytes) {
    emulated::load_matrix(T, p, stride_bytes);
}
template <int T> inline void store_matrix(void *p, int64_t stride_bytes) {
    emulated::store_matrix(T, p, stride_bytes);
}
template <int T> inline void zero_matrix() {
    emulated::zero_matrix(T);
}
template <int Sum, int Left, int Right> inline void multiply_unsigned() {
    emulated::multiply_bytes<uint8_t>(Sum, Left, Right);
}
template <int Sum, int Left, int Right> inline void multiply_signed() {
    emulated::multiply_bytes<int8_t>(Sum, Left, Right);
}
template <int Sum, int Left, int Right> inline void multiply_bf16() {
    emulated::multiply_bf16(Sum, Left, Right);
}

class MatrixUnit {
  public:
    explicit MatrixUnit(const MatrixShapes &shapes) { emulated::set_shapes(&shapes); }
    ~MatrixUnit() { emulated::forget_shapes(); }
    MatrixUnit(const MatrixUnit &) = delete;
    MatrixUnit &operator=(const MatrixUnit &) = delete;
};

} // namespace
} // namespace quipu::QUIPU_ISA
