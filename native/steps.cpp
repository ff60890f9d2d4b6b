#include "steps.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "formats/formats.h"

namespace quipu {

namespace {

// How the rows of a matrix are divided into units. Tiles are all alike. The row kernels read several streams side by
// side, and the beginning of a stream is slow: the first three quarters of a matrix go in long units, the rest in short
// ones, so that cores of uneven speed finish together.
class RowUnits {
  public:
    RowUnits(const Matrix &weight, bool as_rows) : rows_(weight.rows) {
        if (!as_rows) {
            long_ = short_ = kTileRows;
            return;
        }
        long_ = fitting(kLongBytes, weight.row_bytes);
        short_ = fitting(kShortBytes, weight.row_bytes);
        num_long_ = rows_ / 4 * 3 / long_;
    }
    int count() const { return num_long_ + (rows_ - num_long_ * long_ + short_ - 1) / short_; }
    int begin(int unit) const {
        return unit <= num_long_ ? unit * long_ : num_long_ * long_ + (unit - num_long_) * short_;
    }
    int end(int unit) const { return std::min(begin(unit + 1), rows_); }

  private:
    static constexpr int64_t kLongBytes = 384 << 10, kShortBytes = 96 << 10;
    // Whole groups of streams: what is left over would be read by one stream alone.
    static int fitting(int64_t num_bytes, int64_t row_bytes) {
        return static_cast<int>(std::clamp<int64_t>(num_bytes / row_bytes, kRowStreams, 4096) / kRowStreams *
                                kRowStreams);
    }

    int rows_, long_, short_, num_long_ = 0;
};

class Embed final : public RowStep {
  public:
    Embed(Matrix table, ValueBuffer out) : table_(table), out_(out), format_(*find_format(table.type)) {}
    int num_units(const RunArguments &run) const override { return run.num_tokens; }
    void execute(int token, const RunArguments &run, const Worker &) const override {
        format_.unpack(table_.data + run.token_ids[token] * table_.row_bytes, out_.row(token),
                       table_.cols / format_.block_size);
    }

  private:
    Matrix table_;
    ValueBuffer out_;
    const Format &format_;
};

class RmsNorm final : public RowStep {
  public:
    RmsNorm(const Kernels &kernels, ValueBuffer x, const float *weight, int group, float epsilon, ValueBuffer out)
        : kernels_(kernels), x_(x), out_(out), weight_(weight), group_(group), epsilon_(epsilon) {}
    int num_units(const RunArguments &run) const override { return x_.num_rows(run); }
    void execute(int row, const RunArguments &, const Worker &) const override {
        kernels_.rms_norm(x_.row(row), weight_, out_.row(row), x_.width, group_, epsilon_);
    }

  private:
    const Kernels &kernels_;
    ValueBuffer x_, out_;
    const float *weight_;
    int group_;
    float epsilon_;
};

class Pack final : public RowStep {
  public:
    Pack(const Kernels &kernels, ValueBuffer x, const float *norm_weight, float epsilon, ValueBuffer normalized,
         ActivationUses uses, PackedActivations packed)
        : kernels_(kernels), x_(x), normalized_(normalized), norm_weight_(norm_weight), epsilon_(epsilon), uses_(uses),
          packed_(packed) {}

    int num_units(const RunArguments &run) const override {
        const int rows = x_.num_rows(run);
        return as_panels(rows) ? num_panels(rows) : rows;
    }

    // A unit is a row where row kernels follow, a panel where tile kernels do, and a panel too where some weights read
    // the one and some the other.
    void execute(int unit, const RunArguments &run, const Worker &worker) const override {
        const int rows = x_.num_rows(run);
        if (!as_panels(rows)) {
            const float *x = normalize(unit, 1);
            if (uses_.as_blocks || uses_.as_int8)
                quantize(x, unit, rows);
            return;
        }
        const int first = unit * kPanelTokens, count = std::min(kPanelTokens, rows - first);
        const float *x = normalize(first, count);
        const int num_units = num_panels(rows);
        if (uses_.as_blocks && rows <= kernels_.max_block_tokens)
            for (int row = 0; row < rows; row++)
                quantize(x + int64_t(row) * x_.width, row, rows);
        else if (uses_.as_blocks && kernels_.tiles_blocks)
            pack_rows(x, count, packed_.token_panels + 2 * unit, 2 * num_units, worker.scratch);
        if (uses_.as_int8 || (uses_.as_blocks && !kernels_.tiles_blocks))
            kernels_.quantize_panel(x, x_.width, count, x_.width, packed_.code_panels + unit, num_units);
        if (uses_.as_float)
            kernels_.float_panel(x, x_.width, count, x_.width, packed_.float_panels + unit, num_units);
    }

    int64_t scratch_floats(int) const override {
        return uses_.as_blocks ? kPanelTokens * activation_row_bytes(x_.width) / 4 : 0;
    }

  private:
    bool as_panels(int rows) const {
        const bool only_blocks = uses_.as_blocks && !uses_.as_int8 && !uses_.as_float;
        return rows > (only_blocks ? kernels_.max_block_tokens : kernels_.max_row_tokens);
    }
    void pack_rows(const float *x, int count, TokenPanel *panels, int stride, float *scratch) const {
        ActivationRow rows[kPanelTokens];
        auto *memory = reinterpret_cast<uint8_t *>(scratch);
        for (int t = 0; t < count; t++) {
            rows[t] = activation_row(memory + t * activation_row_bytes(x_.width), x_.width);
            kernels_.quantize_row(x + int64_t(t) * x_.width, x_.width, rows[t]);
        }
        kernels_.pack_tokens(rows, count, x_.width, 8, panels, stride);
    }

    void quantize(const float *x, int row, int num_rows) const {
        kernels_.quantize_row(x, x_.width,
                              activation_row(packed_.rows + row * activation_row_bytes(x_.width), x_.width));
        if (num_rows == 1 || !uses_.as_blocks)
            return;
        // The last to finish puts the rows side by side.
        if (finished_.fetch_add(1, std::memory_order_acq_rel) + 1 < num_rows)
            return;
        finished_.store(0, std::memory_order_relaxed);
        ActivationRow rows[kMaxBlockTokens];
        for (int t = 0; t < num_rows; t++)
            rows[t] = activation_row(packed_.rows + t * activation_row_bytes(x_.width), x_.width);
        kernels_.pack_tokens(rows, num_rows, x_.width, token_lanes(num_rows), packed_.token_panels,
                             token_panels(num_rows));
    }

    const float *normalize(int first, int count) const {
        if (!norm_weight_)
            return x_.row(first);
        for (int row = first; row < first + count; row++)
            kernels_.rms_norm(x_.row(row), norm_weight_, normalized_.row(row), x_.width, x_.width, epsilon_);
        return normalized_.row(first);
    }

    const Kernels &kernels_;
    ValueBuffer x_, normalized_;
    const float *norm_weight_;
    float epsilon_;
    ActivationUses uses_;
    PackedActivations packed_;
    mutable std::atomic<int> finished_{0};
};

int64_t tile_floats(int max_tokens) {
    return int64_t(num_panels(max_tokens)) * kTileRows * kPanelTokens;
}

class Linear final : public Step {
  public:
    Linear(const Kernels &kernels, ValueBuffer x, std::vector<Product> products, ValueBuffer residual,
           PackedActivations packed)
        : kernels_(kernels), x_(x), residual_(residual), products_(std::move(products)), packed_(packed) {}

    int num_units(const RunArguments &run) const override {
        if (x_.num_rows(run) == 0) // most steps of a long prompt want no logits
            return 0;
        int total = 0;
        for (const Product &product : products_)
            total += units_of(product, x_.num_rows(run)).count();
        return total;
    }

    int64_t scratch_floats(int max_tokens) const override {
        return std::max(tile_floats(max_tokens), matvec_scratch_floats(x_.width));
    }

    void prefetch(int unit, const RunArguments &run) const override {
        const int rows = x_.num_rows(run);
        if (const Product *product = find_product(unit, rows))
            prefetch_unit(product->weight, unit, as_rows(*product, rows));
    }

    void execute(int unit, const RunArguments &run, const Worker &worker) const override {
        const int rows = x_.num_rows(run);
        const Product *product = find_product(unit, rows);
        const RowUnits units = units_of(*product, rows);
        const int begin = units.begin(unit), end = units.end(unit);
        if (as_rows(*product, rows)) {
            kernels_.matvec(product->weight, begin, end, x_.data, x_.width, packed_.rows, packed_.token_panels, rows,
                            product->out.data, product->out.width, worker.scratch);
            finish_rows(*product, begin, end, rows);
        } else {
            kernels_.matmul_tile(product->weight, begin, end - begin, packed_.panels(), rows, worker.scratch,
                                 worker.tile_scratch);
            store_tile(*product, begin, end, rows, worker.scratch);
        }
    }

    // Asks for the beginnings of the streams that the row kernels read side by side; further on they look ahead
    // themselves.
    static void prefetch_unit(const Matrix &weight, int unit, bool as_rows) {
        constexpr int kAheadBytes = 1024;
        const RowUnits units(weight, as_rows);
        if (!as_rows || unit >= units.count())
            return;
        const int begin = units.begin(unit), count = units.end(unit) - begin;
        for (int i = 0; i < kRowStreams; i++) {
            const uint8_t *row = weight.data + int64_t(begin + i * (count / kRowStreams)) * weight.row_bytes;
            for (int offset = 0; offset < kAheadBytes; offset += 64)
                __builtin_prefetch(row + offset, 0, 2);
        }
    }

  private:
    bool as_rows(const Product &product, int rows) const { return rows <= kernels_.row_tokens(product.weight.type); }
    RowUnits units_of(const Product &product, int rows) const { return {product.weight, as_rows(product, rows)}; }

    // The product that a unit of the step belongs to, or nullptr past the last one; `unit` becomes one of its own.
    const Product *find_product(int &unit, int rows) const {
        for (const Product &product : products_) {
            const int units = units_of(product, rows).count();
            if (unit < units)
                return &product;
            unit -= units;
        }
        return nullptr;
    }

    void finish_rows(const Product &product, int begin, int end, int rows) const {
        if (!product.bias && !residual_.data)
            return;
        for (int t = 0; t < rows; t++) {
            float *out = product.out.row(t);
            const float *residual = residual_.data ? residual_.row(t) : nullptr;
            for (int r = begin; r < end; r++)
                out[r] += (product.bias ? product.bias[r] : 0.0f) + (residual ? residual[r] : 0.0f);
        }
    }

    void store_tile(const Product &product, int begin, int end, int rows, const float *tile) const {
        for (int t = 0; t < rows; t++) {
            const float *column = tile + int64_t(t / kPanelTokens) * kTileRows * kPanelTokens + t % kPanelTokens;
            float *out = product.out.row(t);
            const float *residual = residual_.data ? residual_.row(t) : nullptr;
            for (int r = begin; r < end; r++)
                out[r] = column[(r - begin) * kPanelTokens] + (product.bias ? product.bias[r] : 0.0f) +
                         (residual ? residual[r] : 0.0f);
        }
    }

    const Kernels &kernels_;
    ValueBuffer x_, residual_;
    std::vector<Product> products_;
    PackedActivations packed_;
};

class SwigluLinear final : public Step {
  public:
    SwigluLinear(const Kernels &kernels, ValueBuffer x, Matrix gate, Matrix up, ValueBuffer out,
                 PackedActivations packed)
        : kernels_(kernels), x_(x), out_(out), gate_(gate), up_(up), packed_(packed) {}

    int num_units(const RunArguments &run) const override {
        const int rows = x_.num_rows(run);
        return rows == 0 ? 0 : RowUnits(gate_, as_rows(rows)).count();
    }

    void prefetch(int unit, const RunArguments &run) const override {
        Linear::prefetch_unit(gate_, unit, as_rows(x_.num_rows(run)));
    }

    int64_t scratch_floats(int max_tokens) const override {
        const int64_t row_mode = matvec_scratch_floats(x_.width) + int64_t(kMaxBlockTokens) * (gate_.rows + 8);
        return std::max(2 * tile_floats(max_tokens) + kTileRows, row_mode);
    }

    void execute(int unit, const RunArguments &run, const Worker &worker) const override {
        const int rows = x_.num_rows(run);
        const RowUnits units(gate_, as_rows(rows));
        const int begin = units.begin(unit), end = units.end(unit);
        if (as_rows(rows))
            execute_rows(unit, begin, end, rows, worker.scratch);
        else
            execute_tile(begin, end, rows, worker);
    }

  private:
    bool as_rows(int rows) const {
        return rows <= std::min(kernels_.row_tokens(gate_.type), kernels_.row_tokens(up_.type));
    }

    void execute_rows(int unit, int begin, int end, int rows, float *scratch) const {
        float *up = scratch + matvec_scratch_floats(x_.width);
        Linear::prefetch_unit(up_, unit, true);
        kernels_.matvec(gate_, begin, end, x_.data, x_.width, packed_.rows, packed_.token_panels, rows, out_.data,
                        out_.width, scratch);
        kernels_.matvec(up_, begin, end, x_.data, x_.width, packed_.rows, packed_.token_panels, rows, up, gate_.rows,
                        scratch);
        for (int t = 0; t < rows; t++) {
            float *gate = out_.row(t) + begin;
            kernels_.swiglu(gate, up + int64_t(t) * gate_.rows + begin, gate, end - begin);
        }
    }

    void execute_tile(int begin, int end, int rows, const Worker &worker) const {
        const int64_t size = tile_floats(rows);
        float *gate = worker.scratch, *up = gate + size;
        kernels_.matmul_tile(gate_, begin, end - begin, packed_.panels(), rows, gate, worker.tile_scratch);
        kernels_.matmul_tile(up_, begin, end - begin, packed_.panels(), rows, up, worker.tile_scratch);
        kernels_.swiglu(gate, up, gate, size);
        for (int t = 0; t < rows; t++) {
            const float *column = gate + int64_t(t / kPanelTokens) * kTileRows * kPanelTokens + t % kPanelTokens;
            for (int r = begin; r < end; r++)
                out_.row(t)[r] = column[(r - begin) * kPanelTokens];
        }
    }

    const Kernels &kernels_;
    ValueBuffer x_, out_;
    Matrix gate_, up_;
    PackedActivations packed_;
};

class FillRopeTable final : public RowStep {
  public:
    FillRopeTable(std::vector<float> inverse_frequencies, float magnitude, RopeTable table)
        : inverse_frequencies_(std::move(inverse_frequencies)), magnitude_(magnitude), table_(table) {}
    int num_units(const RunArguments &run) const override { return run.num_tokens; }
    void execute(int token, const RunArguments &run, const Worker &) const override {
        const int64_t half = table_.num_rotated / 2;
        for (int64_t i = 0; i < half; i++) {
            // In double: position times frequency has no bits to spare in a float beyond 16k tokens.
            const double angle = double(run.positions[token]) * inverse_frequencies_[i];
            table_.cosines[token * half + i] = static_cast<float>(std::cos(angle) * magnitude_);
            table_.sines[token * half + i] = static_cast<float>(std::sin(angle) * magnitude_);
        }
    }

  private:
    std::vector<float> inverse_frequencies_;
    double magnitude_;
    RopeTable table_;
};

class Rope final : public RowStep {
  public:
    Rope(const Kernels &kernels, ValueBuffer x, int head_dim, bool neox, RopeTable table, ValueBuffer out)
        : kernels_(kernels), x_(x), out_(out), head_dim_(head_dim), neox_(neox), table_(table) {}
    int num_units(const RunArguments &run) const override { return run.num_tokens; }
    void execute(int token, const RunArguments &, const Worker &) const override {
        const int64_t half = table_.num_rotated / 2;
        kernels_.rope(x_.row(token), out_.row(token), x_.width / head_dim_, head_dim_, table_.num_rotated, neox_,
                      table_.cosines + token * half, table_.sines + token * half);
    }

  private:
    const Kernels &kernels_;
    ValueBuffer x_, out_;
    int head_dim_;
    bool neox_;
    RopeTable table_;
};

using Binary = void (*)(const float *, const float *, float *, int64_t);

class Elementwise final : public RowStep {
  public:
    Elementwise(Binary f, ValueBuffer a, ValueBuffer b, ValueBuffer out) : f_(f), a_(a), b_(b), out_(out) {}
    int num_units(const RunArguments &run) const override { return a_.num_rows(run); }
    void execute(int row, const RunArguments &, const Worker &) const override {
        f_(a_.row(row), b_.row(row), out_.row(row), a_.width);
    }

  private:
    Binary f_;
    ValueBuffer a_, b_, out_;
};

class SelectOutputs final : public RowStep {
  public:
    SelectOutputs(ValueBuffer x, ValueBuffer out) : x_(x), out_(out) {}
    int num_units(const RunArguments &run) const override { return run.num_outputs; }
    void execute(int row, const RunArguments &run, const Worker &) const override {
        std::memcpy(out_.row(row), x_.row(run.output_rows[row]), sizeof(float) * x_.width);
    }

  private:
    ValueBuffer x_, out_;
};

} // namespace

std::unique_ptr<Step> make_embed(Matrix table, ValueBuffer out) {
    return std::make_unique<Embed>(table, out);
}

std::unique_ptr<Step> make_rms_norm(const Kernels &kernels, ValueBuffer x, const float *weight, int group,
                                    float epsilon, ValueBuffer out) {
    return std::make_unique<RmsNorm>(kernels, x, weight, group, epsilon, out);
}

std::unique_ptr<Step> make_pack(const Kernels &kernels, ValueBuffer x, const float *norm_weight, float epsilon,
                                ValueBuffer normalized, ActivationUses uses, PackedActivations packed) {
    return std::make_unique<Pack>(kernels, x, norm_weight, epsilon, normalized, uses, packed);
}

std::unique_ptr<Step> make_linear(const Kernels &kernels, ValueBuffer x, std::vector<Product> products,
                                  ValueBuffer residual, PackedActivations packed) {
    return std::make_unique<Linear>(kernels, x, std::move(products), residual, packed);
}

std::unique_ptr<Step> make_swiglu_linear(const Kernels &kernels, ValueBuffer x, Matrix gate, Matrix up, ValueBuffer out,
                                         PackedActivations packed) {
    return std::make_unique<SwigluLinear>(kernels, x, gate, up, out, packed);
}

std::unique_ptr<Step> make_rope_table(std::vector<float> inverse_frequencies, float magnitude, RopeTable table) {
    return std::make_unique<FillRopeTable>(std::move(inverse_frequencies), magnitude, table);
}

std::unique_ptr<Step> make_rope(const Kernels &kernels, ValueBuffer x, int head_dim, bool neox, RopeTable table,
                                ValueBuffer out) {
    return std::make_unique<Rope>(kernels, x, head_dim, neox, table, out);
}

std::unique_ptr<Step> make_swiglu(const Kernels &kernels, ValueBuffer gate, ValueBuffer up, ValueBuffer out) {
    return std::make_unique<Elementwise>(kernels.swiglu, gate, up, out);
}

std::unique_ptr<Step> make_add(const Kernels &kernels, ValueBuffer x, ValueBuffer y, ValueBuffer out) {
    return std::make_unique<Elementwise>(kernels.add, x, y, out);
}

std::unique_ptr<Step> make_select_outputs(ValueBuffer x, ValueBuffer out) {
    return std::make_unique<SelectOutputs>(x, out);
}

} // namespace quipu
