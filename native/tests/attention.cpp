// The paged cache and attention over it.
#include <cmath>
#include <cstring>
#include <string>

#include "checks.h"
#include "formats/encode.h"

namespace quipu::tests {

namespace {

constexpr int kPageSize = 64, kHeads = 2, kHead = 1, kPages = 4;
constexpr int32_t kPageTable[kPages] = {2, 0, 3, 1};

struct Lengths {
    int key, value;
};

// Queries of one sequence at its end: what kernels are asked for.
struct Case {
    int group_size, num_queries, first_position;
    int window = 0;
    float softcap = 0.0f;
    bool has_sinks = false;
    int chunk_keys = 1 << 20; // keys are cut at multiples of it
};

int64_t row_bytes(int type, int length) {
    const Format &format = *find_format(type);
    return round_up(length, format.block_size) / format.block_size * format.block_bytes;
}

// A cache whose unwritten bytes make NaNs.
class Cache {
  public:
    Cache(int k_type, int v_type, Lengths lengths)
        : layer_{.k = nullptr,
                 .v = nullptr,
                 .num_kv_heads = kHeads,
                 .key_length = lengths.key,
                 .value_length = lengths.value,
                 .page_size = kPageSize,
                 .k_type = k_type,
                 .v_type = v_type,
                 .k_row_bytes = row_bytes(k_type, lengths.key),
                 .v_row_bytes = row_bytes(v_type, lengths.value)},
          k_bytes_(kPages * kHeads * layer_.k_head_bytes()), v_bytes_(kPages * kHeads * layer_.v_head_bytes()),
          k_memory_(k_bytes_ + 64, 0xFF), v_memory_(v_bytes_ + 64, 0xFF) {
        layer_.k = k_memory_.data();
        layer_.v = v_memory_.data();
    }

    void write(const Kernels &set, const std::vector<float> &k, const std::vector<float> &v, int num_tokens) {
        for (int t = 0; t < num_tokens; t++)
            set.kv_write(layer_, k.data() + int64_t(t) * layer_.key_length, v.data() + int64_t(t) * layer_.value_length,
                         kPageTable[t / kPageSize], t % kPageSize, kHead);
    }

    bool operator==(const Cache &other) const {
        return std::memcmp(k_memory_.data(), other.k_memory_.data(), static_cast<size_t>(k_bytes_)) == 0 &&
               std::memcmp(v_memory_.data(), other.v_memory_.data(), static_cast<size_t>(v_bytes_)) == 0;
    }
    const KvLayer &layer() const { return layer_; }

  private:
    KvLayer layer_;
    int64_t k_bytes_, v_bytes_;
    AlignedBytes k_memory_, v_memory_;
};

// [query][head][value_length], with every part of the keys by itself, then merged.
std::vector<float> attend(const Kernels &set, const Cache &cache, const Case &c, const std::vector<float> &q,
                          const std::vector<float> &sinks) {
    const KvLayer &layer = cache.layer();
    const AttentionShape shape{.num_kv_heads = kHeads,
                               .group_size = c.group_size,
                               .key_length = layer.key_length,
                               .value_length = layer.value_length,
                               .window = c.window,
                               .scale = 1.0f / std::sqrt(float(layer.key_length)),
                               .softcap = c.softcap,
                               .sinks = c.has_sinks ? sinks.data() : nullptr};
    const int begin = c.window ? std::max(0, c.first_position + 1 - c.window) : 0,
              end = c.first_position + c.num_queries, first_chunk = begin / c.chunk_keys,
              num_chunks = (end - 1) / c.chunk_keys + 1 - first_chunk;
    const int64_t stride = int64_t(c.num_queries) * c.group_size * partial_row_floats(layer.value_length);
    const AlignedBytes scratch(attention_scratch_floats(shape) * 4, 0xFF), partials(num_chunks * stride * 4, 0xFF);
    for (int i = 0; i < num_chunks; i++) {
        const int64_t chunk = int64_t(first_chunk + i) * c.chunk_keys;
        set.attention(shape, layer,
                      {.q = q.data(),
                       .q_stride = int64_t(c.group_size) * layer.key_length,
                       .num_queries = c.num_queries,
                       .first_position = c.first_position,
                       .key_begin = static_cast<int>(std::max<int64_t>(begin, chunk)),
                       .key_end = static_cast<int>(std::min<int64_t>(end, chunk + c.chunk_keys)),
                       .kv_head = kHead,
                       .page_table = kPageTable},
                      scratch.as<float>(), partials.as<float>() + i * stride);
    }
    const int64_t width = int64_t(c.group_size) * layer.value_length;
    std::vector<float> out(static_cast<size_t>(c.num_queries * width), NAN);
    set.merge_attention(shape, kHead, partials.as<float>(), num_chunks, stride, c.num_queries, out.data(), width);
    return out;
}

const Case kCases[] = {
    {.group_size = 1, .num_queries = 1, .first_position = 0},
    {.group_size = 7, .num_queries = 1, .first_position = 100},
    {.group_size = 7, .num_queries = 5, .first_position = 62},
    {.group_size = 4, .num_queries = 17, .first_position = 130, .chunk_keys = 64},
    {.group_size = 1, .num_queries = 3, .first_position = 197, .window = 20, .has_sinks = true},
    {.group_size = 5, .num_queries = 9, .first_position = 190, .window = 70, .softcap = 3.0f, .chunk_keys = 64},
    {.group_size = 2, .num_queries = 64, .first_position = 0, .softcap = 30.0f, .has_sinks = true},
};

void check_types(const Kernels &kernels, const Kernels &scalar, int k_type, int v_type, Report &report) {
    Random random(400 + 10 * k_type + v_type);
    double error = 0.0;
    bool same_bytes = true;
    for (const Lengths lengths : {Lengths{64, 64}, {80, 40}, {12, 20}, {33, 96}}) {
        const int num_tokens = kPages * kPageSize;
        const auto k = random.normals(int64_t(num_tokens) * lengths.key),
                   v = random.normals(int64_t(num_tokens) * lengths.value);
        for (const Case &c : kCases) {
            Cache written(k_type, v_type, lengths), expected(k_type, v_type, lengths);
            written.write(kernels, k, v, c.first_position + c.num_queries);
            expected.write(scalar, k, v, c.first_position + c.num_queries);
            same_bytes = same_bytes && written == expected;
            const auto q = random.normals(int64_t(c.num_queries) * c.group_size * lengths.key),
                       sinks = random.normals(kHeads * c.group_size);
            const auto a = attend(kernels, expected, c, q, sinks), b = attend(scalar, expected, c, q, sinks);
            error = std::fmax(error, largest_error(a.data(), b.data(), static_cast<int64_t>(a.size())));
        }
    }
    const std::string types = std::string(find_format(k_type)->name) + "/" + find_format(v_type)->name;
    report.expect(kernels, "kv_write " + types + ": the same bytes", same_bytes);
    report.check(kernels, "attention " + types, error, 5e-6);
}

} // namespace

void check_attention(const Kernels &kernels, const Kernels &scalar, Report &report) {
    for (const int type : {kF32, kF16, kBF16, kQ8_0, kQ5_1, kQ5_0, kQ4_1, kQ4_0, kIQ4_NL})
        check_types(kernels, scalar, type, type, report);
    check_types(kernels, scalar, kQ8_0, kQ4_0, report);
    check_types(kernels, scalar, kF16, kIQ4_NL, report);
}

} // namespace quipu::tests
