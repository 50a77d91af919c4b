/* Matrices whose columns are vectors: products, and the way from and to the rows of tensors. */
#ifndef RMC_AGENTS_MATRIX_H
#define RMC_AGENTS_MATRIX_H

#include "simd.h"

#define HIDDEN __attribute__((visibility("hidden")))

/* C[m, n] = A[m, depth] B[depth, n], + C if `add`, + bias[m] if not null.
 * Columns of B and C are vectors, aligned; A is plain, `lda`, `ldb`, `ldc` are floats from row to row. */
HIDDEN void product(long m, long n, long depth, const float *a, ptrdiff_t lda, const float *b, ptrdiff_t ldb, float *c,
                    ptrdiff_t ldc, int add, const float *bias);

/* A[m, n] -> its transpose, [n, m]. */
HIDDEN void transposed(const float *a, long m, long n, float *out);

/* `rows` <= L rows of n floats, `row` apart -> n vectors, `step` apart; lanes of rows that are not there are 0. */
HIDDEN void to_lanes(const float *src, ptrdiff_t row, int rows, long n, float *dst, ptrdiff_t step);

/* n vectors, `step` apart -> `rows` <= L rows of n floats, `row` apart. */
HIDDEN void from_lanes(const float *src, ptrdiff_t step, long n, float *dst, ptrdiff_t row, int rows);

#endif
