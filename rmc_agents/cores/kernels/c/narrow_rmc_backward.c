/* rmc_backward.c with 8 lanes, for batches that leave half of 16 lanes empty. */
#if defined(__AVX512VL__)
#define L 8
#include "rmc_backward.c"
#endif
