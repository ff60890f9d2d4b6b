// The scans for any processor, and the choice between them.
#define QUIPU_SCANS portable
#include "ops/sample_scans.inl"

#include "processor.h"

namespace quipu {

const SampleScans portable_scans = QUIPU_SCAN_TABLE("portable");

const SampleScans &choose_sample_scans() {
#ifdef QUIPU_X86
    static const bool has_avx2 = detect_processor().avx2;
    if (has_avx2)
        return avx2_scans;
#endif
    return portable_scans;
}

} // namespace quipu
