// How hard the compiler is pressed to inline. Sums live in registers only where nothing is called; in a set without
// vector registers there is nothing to gain, and inlining all of it would take minutes.
#pragma once

#ifdef QUIPU_PLAIN_SET
#define QUIPU_INLINE
#define QUIPU_FLATTEN
#else
#define QUIPU_INLINE __attribute__((always_inline))
#define QUIPU_FLATTEN __attribute__((flatten))
#endif
