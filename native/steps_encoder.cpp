#include "steps_encoder.h"

#include "formats/formats.h"

namespace quipu {

namespace {

class EmbedSum final : public RowStep {
  public:
    EmbedSum(const Kernels &kernels, Matrix tokens, std::optional<Matrix> positions, std::optional<Matrix> types,
             ValueBuffer out)
        : kernels_(kernels), tokens_(tokens), positions_(positions), types_(types), out_(out) {}
    int num_units(const RunArguments &run) const override { return run.num_tokens; }
    int64_t scratch_floats(int) const override { return out_.width; }
    void execute(int token, const RunArguments &run, const Worker &worker) const override {
        float *out = out_.row(token);
        unpack_row(tokens_, run.token_ids[token], out);
        if (types_)
            add_row(*types_, run.token_types ? run.token_types[token] : 0, out, worker.scratch);
        if (positions_)
            add_row(*positions_, run.positions[token], out, worker.scratch);
    }

  private:
    static void unpack_row(const Matrix &table, int64_t row, float *out) {
        const Format &format = *find_format(table.type);
        format.unpack(table.data + row * table.row_bytes, out, table.cols / format.block_size);
    }
    void add_row(const Matrix &table, int64_t row, float *out, float *scratch) const {
        unpack_row(table, row, scratch);
        kernels_.add(out, scratch, out, out_.width);
    }

    const Kernels &kernels_;
    Matrix tokens_;
    std::optional<Matrix> positions_, types_;
    ValueBuffer out_;
};

class LayerNorm final : public RowStep {
  public:
    LayerNorm(const Kernels &kernels, ValueBuffer x, const float *weight, const float *bias, float epsilon,
              ValueBuffer out)
        : kernels_(kernels), x_(x), out_(out), weight_(weight), bias_(bias), epsilon_(epsilon) {}
    int num_units(const RunArguments &run) const override { return x_.num_rows(run); }
    void execute(int row, const RunArguments &, const Worker &) const override {
        kernels_.layer_norm(x_.row(row), weight_, bias_, out_.row(row), x_.width, epsilon_);
    }

  private:
    const Kernels &kernels_;
    ValueBuffer x_, out_;
    const float *weight_, *bias_;
    float epsilon_;
};

class Activate final : public RowStep {
  public:
    Activate(Activation activation, ValueBuffer x, ValueBuffer out) : activation_(activation), x_(x), out_(out) {}
    int num_units(const RunArguments &run) const override { return x_.num_rows(run); }
    void execute(int row, const RunArguments &, const Worker &) const override {
        activation_(x_.row(row), out_.row(row), x_.width);
    }

  private:
    Activation activation_;
    ValueBuffer x_, out_;
};

} // namespace

std::unique_ptr<Step> make_embed_sum(const Kernels &kernels, Matrix tokens, std::optional<Matrix> positions,
                                     std::optional<Matrix> types, ValueBuffer out) {
    return std::make_unique<EmbedSum>(kernels, tokens, positions, types, out);
}

std::unique_ptr<Step> make_layer_norm(const Kernels &kernels, ValueBuffer x, const float *weight, const float *bias,
                                      float epsilon, ValueBuffer out) {
    return std::make_unique<LayerNorm>(kernels, x, weight, bias, epsilon, out);
}

std::unique_ptr<Step> make_activation(Activation activation, ValueBuffer x, ValueBuffer out) {
    return std::make_unique<Activate>(activation, x, out);
}

} // namespace quipu
