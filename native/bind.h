// What the parts of the Python binding share.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include "kernels.h"

namespace nb = nanobind;

void bind_program(nb::module_ &m, const quipu::Kernels &(*kernels_in_use)());
void bind_moe(nb::module_ &m);
void bind_encoder(nb::module_ &m);
void bind_formats(nb::module_ &m);
void bind_sample(nb::module_ &m);
