/* Vectors of L floats, portable through the vector extensions of GCC and Clang.
 *
 * The kernels hold L rows of the batch in the lanes of a vector. Computations within a row (norms, attention,
 * gates) then take the same instructions for all L rows, without sums across lanes and without remainder columns,
 * whatever the sizes of the core. `to_lanes` and `from_lanes` in matrix.c convert torch tensors to this layout and
 * back.
 */
#ifndef RMC_AGENTS_SIMD_H
#define RMC_AGENTS_SIMD_H

#include <stddef.h>
#include <string.h>

#if defined(__AVX__)
#include <immintrin.h>
#endif
#if defined(__AVX512F__)
#define WIDEST 16
#elif defined(__AVX__)
#define WIDEST 8
#else
#define WIDEST 4
#endif
#if !defined(L) /* the narrow_*.c define it */
#define L WIDEST
#endif

/* The name of a function with its number of lanes: `f` becomes `f_16`. */
#define JOIN_(name, lanes) name##_##lanes
#define JOIN(name, lanes) JOIN_(name, lanes)
#define WITH_LANES(name) JOIN(name, L)

/* Export `f`, which calls the version with the lanes that the call asks for. */
#if L < WIDEST
#define EXPORT(f)
#elif defined(__AVX512VL__)
#define EXPORT(f)                   \
    long f##_8(const struct call *); \
    long f(const struct call *c) { return c->lanes == 8 ? f##_8(c) : f##_16(c); }
#else
#define EXPORT(f) \
    long f(const struct call *c) { return WITH_LANES(f)(c); }
#endif

#define INLINE static inline __attribute__((always_inline))

typedef float vf __attribute__((vector_size(4 * L), may_alias));
typedef int vi __attribute__((vector_size(4 * L), may_alias));
typedef float vf_unaligned __attribute__((vector_size(4 * L), aligned(4), may_alias));

INLINE vf load(const float *p) { return *(const vf *)p; }
INLINE void store(float *p, vf x) { *(vf *)p = x; }
INLINE vf load_unaligned(const float *p) { return *(const vf_unaligned *)p; }
INLINE void store_unaligned(float *p, vf x) { *(vf_unaligned *)p = x; }
INLINE vf splat(float x) { return x - (vf){0}; }
INLINE vf pick(vi mask, vf yes, vf no) { return (vf)(((vi)yes & mask) | ((vi)no & ~mask)); }

/* a where a < b (or a > b), else b. A NaN in `b` is kept, which other minima and maxima do not guarantee. */
#if L == 16
INLINE vf lesser(vf a, vf b) { return (vf)_mm512_min_ps((__m512)a, (__m512)b); }
INLINE vf greater(vf a, vf b) { return (vf)_mm512_max_ps((__m512)a, (__m512)b); }
INLINE vf square_root(vf x) { return (vf)_mm512_sqrt_ps((__m512)x); }
#elif L == 8
INLINE vf lesser(vf a, vf b) { return (vf)_mm256_min_ps((__m256)a, (__m256)b); }
INLINE vf greater(vf a, vf b) { return (vf)_mm256_max_ps((__m256)a, (__m256)b); }
INLINE vf square_root(vf x) { return (vf)_mm256_sqrt_ps((__m256)x); }
#else
INLINE vf lesser(vf a, vf b) { return pick(a < b, a, b); }
INLINE vf greater(vf a, vf b) { return pick(a > b, a, b); }
INLINE vf square_root(vf x) {
    for (int l = 0; l < L; l++) x[l] = __builtin_sqrtf(x[l]);
    return x;
}
#endif

/* 1 / x for 1 <= x < 1e38. */
INLINE vf reciprocal(vf x) {
#if L == 16
    vf y = (vf)_mm512_rcp14_ps((__m512)x); /* 14 bits; a Newton step doubles them */
    return y * (2.0f - x * y);
#elif L == 8 && defined(__AVX512VL__)
    vf y = (vf)_mm256_rcp14_ps((__m256)x);
    return y * (2.0f - x * y);
#else
    return 1.0f / x;
#endif
}

/* e^x with a relative error of 2e-7. x is clamped to +-87, where the result is a normal number. */
INLINE vf exponential(vf x) {
    const float log2_e = 1.44269504088896341f, round = 12582912.0f; /* 1.5 * 2^23: adding it rounds to an integer */
    x = greater(splat(-87.0f), lesser(splat(87.0f), x));
    vf whole = x * log2_e + round;
    vi power = ((vi)whole << 23) + 0x3f800000;
    vf part = x * log2_e - (whole - round); /* in [-0.5, 0.5] */
    vf y = 0.0013276468962430954f * part + 0.009675540961325169f; /* minimax polynomial for 2^part */
    y = y * part + 0.05550713464617729f;
    y = y * part + 0.24022120237350464f;
    y = y * part + 0.6931469440460205f;
    y = y * part + 1.0000001192092896f;
    return y * (vf)power; /* a product, not a sum of exponents, because it propagates NaN */
}

INLINE vf sigmoid(vf x) { return reciprocal(1.0f + exponential(-x)); }
INLINE vf tanh_(vf x) { return 1.0f - 2.0f * reciprocal(1.0f + exponential(x + x)); }

INLINE float sum_of_lanes(vf x) {
    float sum = 0;
    for (int l = 0; l < L; l++) sum += x[l];
    return sum;
}

/* Transposition of L vectors by swapping squares of increasing size s: lanes without bit s stay, the others move. */
#define STAY(l, s) ((l) & (s) ? L + (l) - (s) : (l))
#define MOVE(l, s) ((l) & (s) ? L + (l) : (l) + (s))
#define LIST4(f, i, s) f(i, s), f(i + 1, s), f(i + 2, s), f(i + 3, s)
#if L == 16
#define LIST(f, s) LIST4(f, 0, s), LIST4(f, 4, s), LIST4(f, 8, s), LIST4(f, 12, s)
#elif L == 8
#define LIST(f, s) LIST4(f, 0, s), LIST4(f, 4, s)
#else
#define LIST(f, s) LIST4(f, 0, s)
#endif
#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
#define SHUFFLE(a, b, f, s) __builtin_shufflevector(a, b, LIST(f, s))
#endif
#endif
#ifndef SHUFFLE
#define SHUFFLE(a, b, f, s) __builtin_shuffle(a, b, (vi){LIST(f, s)})
#endif
#define SWAP(s)                                          \
    _Pragma("GCC unroll 16") for (int i = 0; i < L; i++) \
        if (!(i & (s))) {                                \
            vf a = r[i], b = r[i + (s)];                 \
            r[i] = SHUFFLE(a, b, STAY, s);               \
            r[i + (s)] = SHUFFLE(a, b, MOVE, s);         \
        }

INLINE void transpose(vf *r) {
    SWAP(1)
    SWAP(2)
#if L > 4
    SWAP(4)
#endif
#if L > 8
    SWAP(8)
#endif
}

/* Allocate `vectors` vectors at offset `*at` (in floats) of `base` and advance `*at`. If `base` is null, only the
 * offset is advanced, which computes the size of a layout. */
INLINE float *allocate(float *base, size_t *at, long vectors) {
    float *allocated = base ? base + *at : 0;
    *at += (size_t)vectors * L;
    return allocated;
}

/* Set `mask` in the lanes whose flag is set, of `rows` <= L flags (null: no flags); return whether any flag is set. */
INLINE int lane_mask(const unsigned char *flags, int rows, vi *mask) {
    int any = 0;
    *mask = (vi){0};
    for (int l = 0; flags && l < rows; l++)
        if (flags[l]) (*mask)[l] = -1, any = 1;
    return any;
}

#endif
