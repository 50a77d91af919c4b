/* Matrices whose columns are vectors: products, and conversion from and to rows of tensors. */
#ifndef RMC_AGENTS_MATRIX_H
#define RMC_AGENTS_MATRIX_H

#include "simd.h"

#define HIDDEN __attribute__((visibility("hidden")))

#define product WITH_LANES(product)
#define transposed WITH_LANES(transposed)
#define to_lanes WITH_LANES(to_lanes)
#define gather_lanes WITH_LANES(gather_lanes)
#define from_lanes WITH_LANES(from_lanes)

/* C[m, n] = A[m, depth] B[depth, n], plus C if `add`, plus bias[m] if not null.
 * The elements of B and C are aligned vectors, those of A floats. `lda`, `ldb`, `ldc` are row strides in floats. */
HIDDEN void product(long m, long n, long depth, const float *a, ptrdiff_t lda, const float *b, ptrdiff_t ldb, float *c,
                    ptrdiff_t ldc, int add, const float *bias);

/* Write the transpose [n, m] of A[m, n] to `out`. */
HIDDEN void transposed(const float *a, long m, long n, float *out);

/* `rows` <= L rows of n floats with stride `row` -> n vectors with stride `step`; lanes of missing rows are 0. */
HIDDEN void to_lanes(const float *src, ptrdiff_t row, int rows, long n, float *dst, ptrdiff_t step);

/* Rows ids[0], ids[1], ... of src [*, n], `rows` <= L of them -> n vectors, as `to_lanes`. */
HIDDEN void gather_lanes(const float *src, const int *ids, int rows, long n, float *dst, ptrdiff_t step);

/* n vectors with stride `step` -> `rows` <= L rows of n floats with stride `row`. */
HIDDEN void from_lanes(const float *src, ptrdiff_t step, long n, float *dst, ptrdiff_t row, int rows);

#endif
