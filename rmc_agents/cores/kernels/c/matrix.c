/* Matrix products of a few dozen columns, blocked for registers and for the level-1 cache; transpositions. */
#include "matrix.h"

/* A tile of the result, HEIGHT rows by TILE vectors, is kept in the 32 or 16 vector registers. */
#define HEIGHT 6
#if defined(__AVX512VL__) || defined(__aarch64__)
#define TILE 4
#else
#define TILE 2
#endif
#define DEPTH 64 /* block of the inner dimension, such that TILE columns of B stay in the level-1 cache */

INLINE void tile(int rows, int columns, long depth, const float *a, ptrdiff_t lda, const float *b, ptrdiff_t ldb,
                 float *c, ptrdiff_t ldc, int add, const float *bias) {
    vf sum[2 * HEIGHT][TILE];
#pragma GCC unroll 12
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 6
        for (int j = 0; j < columns; j++)
            sum[i][j] = (add ? load(c + i * ldc + j * L) : splat(0)) + (bias ? bias[i] : 0.0f);
    for (long k = 0; k < depth; k++) {
        vf row[TILE];
#pragma GCC unroll 6
        for (int j = 0; j < columns; j++) row[j] = load(b + k * ldb + j * L);
#pragma GCC unroll 12
        for (int i = 0; i < rows; i++)
#pragma GCC unroll 6
            for (int j = 0; j < columns; j++) sum[i][j] += a[i * lda + k] * row[j];
    }
#pragma GCC unroll 12
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 6
        for (int j = 0; j < columns; j++) store(c + i * ldc + j * L, sum[i][j]);
}

INLINE void tile_rows(int columns, long m, long depth, const float *a, ptrdiff_t lda, const float *b, ptrdiff_t ldb,
                      float *c, ptrdiff_t ldc, int add, const float *bias) {
    long i = 0;
#define ROWS(rows)                 \
    for (; i + rows <= m; i += rows) \
        tile(rows, columns, depth, a + i * lda, lda, b, ldb, c + i * ldc, ldc, add, bias ? bias + i : 0);
    if (columns == 1) { /* as many independent sums as a processor needs to be busy */
        ROWS(2 * HEIGHT)
    }
    ROWS(HEIGHT)
    ROWS(4)
    ROWS(2)
    ROWS(1)
#undef ROWS
}

void product(long m, long n, long depth, const float *a, ptrdiff_t lda, const float *b, ptrdiff_t ldb, float *c,
             ptrdiff_t ldc, int add, const float *bias) {
    for (long k = 0; k < depth; k += DEPTH, add = 1, bias = 0) {
        long d = depth - k < DEPTH ? depth - k : DEPTH;
        for (long j = 0; j < n; j += TILE) {
            const float *bj = b + k * ldb + j * L;
            float *cj = c + j * L;
            switch (n - j) {
            case 1: tile_rows(1, m, d, a + k, lda, bj, ldb, cj, ldc, add, bias); break;
#if TILE > 2
            case 2: tile_rows(2, m, d, a + k, lda, bj, ldb, cj, ldc, add, bias); break;
            case 3: tile_rows(3, m, d, a + k, lda, bj, ldb, cj, ldc, add, bias); break;
#endif
            default: tile_rows(TILE, m, d, a + k, lda, bj, ldb, cj, ldc, add, bias); break;
            }
        }
    }
}

void transposed(const float *a, long m, long n, float *out) {
    for (long i = 0; i < m; i += 16)
        for (long j = 0; j < n; j++)
            for (long k = i; k < i + 16 && k < m; k++) out[j * m + k] = a[k * n + j];
}

/* The rows that start at offsets `at` of `src` -> n vectors. */
INLINE void rows_to_lanes(const float *src, const ptrdiff_t *at, int rows, long n, float *dst, ptrdiff_t step) {
    long i = 0;
    for (; i + L <= n; i += L) {
        vf r[L];
#pragma GCC unroll 16
        for (int l = 0; l < L; l++) r[l] = l < rows ? load_unaligned(src + at[l] + i) : splat(0);
        transpose(r);
#pragma GCC unroll 16
        for (int l = 0; l < L; l++) store(dst + (i + l) * step, r[l]);
    }
    for (; i < n; i++)
        for (int l = 0; l < L; l++) dst[i * step + l] = l < rows ? src[at[l] + i] : 0.0f;
}

void to_lanes(const float *src, ptrdiff_t row, int rows, long n, float *dst, ptrdiff_t step) {
    ptrdiff_t at[L];
    for (int l = 0; l < L; l++) at[l] = l * row;
    rows_to_lanes(src, at, rows, n, dst, step);
}

void gather_lanes(const float *src, const int *ids, int rows, long n, float *dst, ptrdiff_t step) {
    ptrdiff_t at[L];
    for (int l = 0; l < rows; l++) at[l] = (ptrdiff_t)ids[l] * n;
    rows_to_lanes(src, at, rows, n, dst, step);
}

void from_lanes(const float *src, ptrdiff_t step, long n, float *dst, ptrdiff_t row, int rows) {
    long i = 0;
    for (; i + L <= n; i += L) {
        vf r[L];
#pragma GCC unroll 16
        for (int l = 0; l < L; l++) r[l] = load(src + (i + l) * step);
        transpose(r);
#pragma GCC unroll 16
        for (int l = 0; l < L; l++)
            if (l < rows) store_unaligned(dst + l * row + i, r[l]);
    }
    for (; i < n; i++)
        for (int l = 0; l < rows; l++) dst[l * row + i] = src[i * step + l];
}
