#include "bind.h"
void bind_sample(nb::module_ &) {}
