// The instructions of AMX, on matrix registers by number. (gcc 12's own intrinsics take literals only, and do not tell
// the compiler that they read and write memory.)
#pragma once

namespace quipu::QUIPU_ISA {
namespace {

template <int T> inline void load_matrix(const void *p, int64_t stride_bytes) {
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(p), "r"(stride_bytes), "i"(T) : "memory");
}
template <int T> inline void store_matrix(void *p, int64_t stride_bytes) {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(p), "r"(stride_bytes), "i"(T) : "memory");
}
template <int T> inline void zero_matrix() {
    asm volatile("tilezero %%tmm%c0" ::"i"(T));
}
// Register Sum += Left . Right: of unsigned and signed bytes, of signed bytes, of bfloat16.
template <int Sum, int Left, int Right> inline void multiply_unsigned() {
    asm volatile("tdpbusd %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(Sum), "i"(Left), "i"(Right));
}
template <int Sum, int Left, int Right> inline void multiply_signed() {
    asm volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(Sum), "i"(Left), "i"(Right));
}
template <int Sum, int Left, int Right> inline void multiply_bf16() {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(Sum), "i"(Left), "i"(Right));
}

// Matrix registers are in use only while this lives: threads that hold none have less state to save.
class MatrixUnit {
  public:
    explicit MatrixUnit(const MatrixShapes &shapes) { asm volatile("ldtilecfg %0" ::"m"(shapes)); }
    ~MatrixUnit() { asm volatile("tilerelease" :::); }
    MatrixUnit(const MatrixUnit &) = delete;
    MatrixUnit &operator=(const MatrixUnit &) = delete;
};

} // namespace
} // namespace quipu::QUIPU_ISA
