// The scans with AVX2. Nothing else may come from this file: its code runs on processors that have it only.
#define QUIPU_SCANS avx2_sampling
#include "ops/sample_scans.inl"

namespace quipu {

extern const SampleScans avx2_scans = QUIPU_SCAN_TABLE("avx2");

} // namespace quipu
