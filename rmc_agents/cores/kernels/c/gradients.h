/* Accumulation of weight gradients, and copying of the sums to tensors. */
#ifndef RMC_AGENTS_GRADIENTS_H
#define RMC_AGENTS_GRADIENTS_H

#include "matrix.h"

/* The batch is divided into this many shares. Each share accumulates sums of its own, which are added in a fixed
 * order: the result does not depend on the number of threads. */
#define MAX_SHARES 16

/* Transpose x [n, columns], `step` floats from one n to the next -> rows [columns L, width]. */
static void to_rows(const float *x, ptrdiff_t step, long n, long columns, float *rows, long width) {
    for (long k = 0; k < columns; k++) from_lanes(x + k * L, step, n, rows + k * L * width, width, L);
}

/* d_weight [n, width] += d [n, columns] rows, where rows is [columns L, width]. */
static void add_weight(const float *d, ptrdiff_t step, long n, long columns, const float *rows, long width,
                       float *d_weight) {
    product(n, width / L, columns * L, d, step, rows, width, d_weight, width, 1, 0);
}

/* d_bias [n] += sum of d [n, columns] over columns. */
static void add_bias(const float *d, ptrdiff_t step, long n, long columns, float *d_bias) {
    for (long i = 0; i < n; i++) {
        vf sum = load(d_bias + i * L);
        for (long k = 0; k < columns; k++) sum += load(d + i * step + k * L);
        store(d_bias + i * L, sum);
    }
}

/* Copy `rows` <= L rows of n floats to rows of `width` floats; missing rows are filled with zeros. */
static void copy_rows(const float *src, long n, int rows, float *out, long width) {
    for (long l = 0; l < L; l++)
        if (l < rows)
            memcpy(out + l * width, src + l * n, n * sizeof *out);
        else
            memset(out + l * width, 0, n * sizeof *out);
}

/* Add `rows` rows of n floats to rows ids[0], ids[1], ... of out [*, n]. */
static void add_rows(const float *d, const int *ids, int rows, long n, float *out) {
    for (int l = 0; l < rows; l++) {
        const float *from = d + l * n;
        float *to = out + ids[l] * n;
        for (long i = 0; i < n; i++) to[i] += from[i];
    }
}

/* out [count, n] = sums of those rows of d [total, n] whose id is `first`, `first` + 1, ... */
static void sum_rows(const float *d, const int *ids, long total, long n, long first, long count, float *out) {
    memset(out, 0, count * n * sizeof *out);
    for (long r = 0; r < total; r++) {
        const long at = ids[r] - first;
        if (at < 0 || at >= count) continue;
        const float *from = d + r * n;
        float *to = out + at * n;
        for (long i = 0; i < n; i++) to[i] += from[i];
    }
}

/* Add the sums of all shares to those of the first, in order. */
static void add_shares(float *sums, size_t size, long shares) {
    for (long i = 1; i < shares; i++)
        for (size_t k = 0; k < size; k += L) store(sums + k, load(sums + k) + load(sums + i * size + k));
}

/* Copy a matrix of sums, whose rows are padded to whole vectors, to a tensor [n, m]. */
static void copy_matrix(const float *sums, long n, long m, float *out) {
    for (long i = 0; i < n; i++) memcpy(out + i * m, sums + i * ((m + L - 1) / L * L), m * sizeof *out);
}

/* Copy a vector of sums [n], added over lanes, to a tensor [n]. */
static void copy_vector(const float *sums, long n, float *out) {
    for (long i = 0; i < n; i++) out[i] = sum_of_lanes(load(sums + i * L));
}

#endif
