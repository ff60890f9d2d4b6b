// The Python side of formats/: what the types are, and unpacking and encoding on their own, which tests compare with
// the numpy definition.
#include <string>

#include "bind.h"
#include "formats/encode.h"
#include "formats/formats.h"

namespace {

using quipu::Format;

using PackedBytes = nb::ndarray<const uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using OutputBytes = nb::ndarray<uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using InputValues = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Values = nb::ndarray<float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

const Format &known_format(int type_id) {
    const Format *format = quipu::find_format(type_id);
    if (!format)
        throw nb::value_error(("there is no tensor type with id " + std::to_string(type_id)).c_str());
    return *format;
}

nb::tuple format_info(int type_id) {
    const Format &format = known_format(type_id);
    return nb::make_tuple(format.name, format.block_size, format.block_bytes);
}

void unpack(int type_id, PackedBytes data, Values out) {
    const Format &format = known_format(type_id);
    const int64_t num_blocks = int64_t(data.size()) / format.block_bytes;
    if (int64_t(data.size()) != num_blocks * format.block_bytes)
        throw nb::value_error("data is not a whole number of blocks");
    if (int64_t(out.size()) != num_blocks * format.block_size)
        throw nb::value_error("out must have one value for each value in data");
    const nb::gil_scoped_release without_gil;
    format.unpack(data.data(), out.data(), num_blocks);
}

void encode(int type_id, InputValues values, OutputBytes out) {
    const Format &format = known_format(type_id);
    if (!quipu::is_quantized_cache_type(type_id))
        throw nb::value_error((std::string(format.name) + " blocks are not encoded here").c_str());
    const int64_t num_blocks = int64_t(values.size()) / quipu::kCacheBlock;
    if (int64_t(values.size()) != num_blocks * quipu::kCacheBlock ||
        int64_t(out.size()) != num_blocks * format.block_bytes)
        throw nb::value_error("values must be whole blocks of 32, and out must have their size");
    const nb::gil_scoped_release without_gil;
    for (int64_t b = 0; b < num_blocks; b++)
        quipu::encode_block(type_id, values.data() + b * quipu::kCacheBlock, out.data() + b * format.block_bytes);
}

} // namespace

void bind_formats(nb::module_ &m) {
    m.def("format_info", &format_info, nb::arg("type_id"),
          "Name, values per block and bytes per block of the tensor type with this id; ValueError if there is none.");
    m.def(
        "unpack", &unpack, nb::arg("type_id"), nb::arg("data").noconvert(), nb::arg("out").noconvert(),
        "Unpack `data`, uint8 [bytes], whole blocks of the type with this id, into `out`, float32 [values], with the\n"
        "bits of quipu.quant.dequantize. ValueError if the id is unknown or a size is wrong.");
    m.def(
        "encode", &encode, nb::arg("type_id"), nb::arg("values").noconvert(), nb::arg("out").noconvert(),
        "Encode `values`, float32 [values], into `out`, uint8 [bytes], as a quantized KV cache does, with the bits of\n"
        "quipu.quant.encode. ValueError if the type has no such encoder or a size is wrong.");
}
