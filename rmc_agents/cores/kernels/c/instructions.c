/* The instruction set that the library was compiled for, and what its kernels can choose from. */
#include "simd.h"

#if defined(__AVX512VL__)
#include <cpuid.h>
#endif

const char *instruction_set(void) {
#if defined(__AVX512F__)
    return "avx512";
#elif defined(__AVX2__) && defined(__FMA__)
    return "avx2";
#elif defined(__AVX__)
    return "avx";
#elif defined(__SSE2__)
    return "sse2";
#elif defined(__ARM_NEON)
    return "neon";
#else
    return "plain";
#endif
}

/* Time of 8 lanes in percent of that of 16 lanes; 0 if the kernels exist with one number of lanes only. */
long narrow_percent(void) {
#if defined(__AVX512VL__)
    unsigned a = 0, b = 0, c = 0, d = 0;
    __get_cpuid(0, &a, &b, &c, &d);
    int amd = b == signature_AMD_ebx;
    __get_cpuid(1, &a, &b, &c, &d);
    unsigned family = (a >> 8 & 15) + (a >> 20 & 255);
    return amd && family == 25 ? 55 : 75; /* Zen 4 computes 16 lanes in two halves */
#else
    return 0;
#endif
}
