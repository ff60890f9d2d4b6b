// The paged cache and attention over it.
#include <cmath>
#include <string>

#include "checks.h"

namespace quipu::tests {

namespace {

struct Case {
    int key_length, value_length, group_size, num_queries, first_position;
    bool is_f16;
};

double attention_error(const Kernels &kernels, const Kernels &scalar, const Case &c, Random &random) {
    constexpr int kPageSize = 64, kHeads = 2, kPages = 4;
    const int num_tokens = c.first_position + c.num_queries, width = c.group_size * c.key_length,
              out_width = c.group_size * c.value_length;
    const int32_t page_table[kPages] = {2, 0, 3, 1};
    const auto q = random.normals(int64_t(c.num_queries) * width),
               k = random.normals(int64_t(num_tokens) * c.key_length),
               v = random.normals(int64_t(num_tokens) * c.value_length);
    const int64_t scratch = attention_scratch_floats(c.group_size, c.key_length, c.value_length, kPageSize);
    std::vector<float> results[2];
    for (int side = 0; side < 2; side++) {
        const Kernels &set = side ? scalar : kernels;
        KvLayer layer{.k = nullptr,
                      .v = nullptr,
                      .num_kv_heads = kHeads,
                      .key_length = c.key_length,
                      .value_length = c.value_length,
                      .page_size = kPageSize,
                      .k_is_f16 = c.is_f16,
                      .v_is_f16 = c.is_f16};
        const AlignedBytes k_memory(kPages * kHeads * layer.k_head_bytes(), 0),
            v_memory(kPages * kHeads * layer.v_head_bytes(), 0), work_memory(scratch * 4);
        layer.k = k_memory.data();
        layer.v = v_memory.data();
        for (int t = 0; t < num_tokens; t++)
            set.kv_write(layer, k.data() + t * c.key_length, v.data() + t * c.value_length, page_table[t / kPageSize],
                         t % kPageSize, 1);
        results[side].assign(static_cast<size_t>(c.num_queries) * out_width, NAN);
        set.attention({.q = q.data(),
                       .q_stride = width,
                       .out = results[side].data(),
                       .out_stride = out_width,
                       .num_queries = c.num_queries,
                       .group_size = c.group_size,
                       .first_position = c.first_position,
                       .page_table = page_table,
                       .layer = &layer,
                       .kv_head = 1,
                       .scale = 1.0f / std::sqrt(float(c.key_length))},
                      work_memory.as<float>());
    }
    return largest_error(results[0].data(), results[1].data(), static_cast<int64_t>(results[0].size()));
}

} // namespace

void check_attention(const Kernels &kernels, const Kernels &scalar, Report &report) {
    Random random(4);
    for (const bool is_f16 : {false, true})
        for (const auto &[key_length, value_length] : {std::pair(64, 64), std::pair(80, 40), std::pair(12, 20)}) {
            double error = 0.0;
            for (const int group_size : {1, 7})
                for (const auto &[queries, first] : {std::pair(1, 0), std::pair(1, 100), std::pair(5, 62)})
                    error = std::fmax(
                        error, attention_error(kernels, scalar,
                                               {key_length, value_length, group_size, queries, first, is_f16}, random));
            report.check(kernels,
                         std::string("kv_write, attention ") + (is_f16 ? "f16 " : "f32 ") + std::to_string(key_length) +
                             "/" + std::to_string(value_length),
                         error, 2e-6);
        }
}

} // namespace quipu::tests
