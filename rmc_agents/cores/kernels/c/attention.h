/* softmax(q k^T / sqrt(K)) v from the slots to all rows, one head at a time, and its gradient.
 *
 * N slots, R rows (the slots, then the input), K key size, V head size. A head consists of [2K + V, R] vectors:
 * queries, keys, values. Slots and rows are few, so the loops over them are written for any number and compiled a
 * second time for the usual number.
 */
#ifndef RMC_AGENTS_ATTENTION_H
#define RMC_AGENTS_ATTENTION_H

#include "simd.h"

/* out[n, r] = sum over i of a[i, n] b[i, r], for a tile of `slots` x `rows` sums kept in registers. */
INLINE void products_tile(int slots, int rows, long depth, const float *a, ptrdiff_t lda, const float *b, ptrdiff_t ldb,
                          float *out, ptrdiff_t ldo) {
    vf sum[4][5];
    for (int n = 0; n < slots; n++)
        for (int r = 0; r < rows; r++) sum[n][r] = (vf){0};
    for (long i = 0; i < depth; i++)
#pragma GCC unroll 4
        for (int n = 0; n < slots; n++)
#pragma GCC unroll 5
            for (int r = 0; r < rows; r++) sum[n][r] += load(a + i * lda + n * L) * load(b + i * ldb + r * L);
    for (int n = 0; n < slots; n++)
        for (int r = 0; r < rows; r++) store(out + n * ldo + r * L, sum[n][r]);
}

INLINE void products_rows(int slots, long R, long depth, const float *a, ptrdiff_t lda, const float *b, ptrdiff_t ldb,
                          float *out, ptrdiff_t ldo) {
    long r = 0;
    for (; r + 5 <= R; r += 5) products_tile(slots, 5, depth, a, lda, b + r * L, ldb, out + r * L, ldo);
    for (; r + 4 <= R; r += 4) products_tile(slots, 4, depth, a, lda, b + r * L, ldb, out + r * L, ldo);
    for (; r < R; r++) products_tile(slots, 1, depth, a, lda, b + r * L, ldb, out + r * L, ldo);
}

static void products(long N, long R, long depth, const float *a, ptrdiff_t lda, const float *b, ptrdiff_t ldb,
                     float *out) {
    long n = 0;
    for (; n + 4 <= N; n += 4) products_rows(4, R, depth, a + n * L, lda, b, ldb, out + n * R * L, R * L);
    for (; n < N; n++) products_rows(1, R, depth, a + n * L, lda, b, ldb, out + n * R * L, R * L);
}

/* out[i, n] = sum over r of weights[n, r] b[i, r], plus out[i, n] if `add`. */
INLINE void mix(long N, long R, long depth, const float *weights, const float *b, ptrdiff_t ldb, float *out,
                ptrdiff_t ldo, int add) {
    for (long i = 0; i < depth; i++)
        for (long n = 0; n < N; n++) {
            vf sum = add ? load(out + i * ldo + n * L) : (vf){0};
#pragma GCC unroll 5
            for (long r = 0; r < R; r++) sum += load(weights + (n * R + r) * L) * load(b + i * ldb + r * L);
            store(out + i * ldo + n * L, sum);
        }
}

/* out[i, r] = sum over n of weights[n, r] a[i, n]. */
INLINE void spread(long N, long R, long depth, const float *weights, const float *a, ptrdiff_t lda, float *out,
                   ptrdiff_t ldo) {
    for (long i = 0; i < depth; i++)
        for (long r = 0; r < R; r++) {
            vf sum = {0};
#pragma GCC unroll 4
            for (long n = 0; n < N; n++) sum += load(weights + (n * R + r) * L) * load(a + i * lda + n * L);
            store(out + i * ldo + r * L, sum);
        }
}

/* x [R] -> softmax(scale x) in place, 0 where `mask` [R] is set (null: nowhere). The last row is never masked. */
INLINE void softmax(long R, float *x, float scale, const unsigned char *mask) {
    vf most = load(x + (R - 1) * L), sum = {0};
    for (long r = 0; r < R - 1; r++)
        if (!mask || !mask[r]) most = greater(most, load(x + r * L));
    for (long r = 0; r < R; r++) {
        vf e = mask && mask[r] ? (vf){0} : exponential((load(x + r * L) - most) * scale);
        sum += e;
        store(x + r * L, e);
    }
    sum = 1.0f / sum;
    for (long r = 0; r < R; r++) store(x + r * L, load(x + r * L) * sum);
}

/* head [2K + V, R] -> weights [N, R]; the result is added to `read` [V, N]. `mask` [N, R] may be null. */
INLINE void attend_(long N, long R, long K, long V, const float *head, const unsigned char *mask, float *weights,
                    float *read) {
    float scale = 1.0f / __builtin_sqrtf((float)K);
    products(N, R, K, head, R * L, head + K * R * L, R * L, weights);
    for (long n = 0; n < N; n++) softmax(R, weights + n * R * L, scale, mask ? mask + n * R : 0);
    mix(N, R, V, weights, head + 2 * K * R * L, R * L, read, N * L, 1);
}

/* Gradient of the result, d_read [V, N] -> d_head [2K + V, R]. `d_logits` [N, R] is scratch. */
INLINE void attend_backward_(long N, long R, long K, long V, const float *head, const float *weights,
                             const float *d_read, float *d_logits, float *d_head) {
    float scale = 1.0f / __builtin_sqrtf((float)K);
    const float *q = head, *k = head + K * R * L, *v = head + 2 * K * R * L;
    products(N, R, V, d_read, N * L, v, R * L, d_logits);
    for (long n = 0; n < N; n++) {
        const float *w = weights + n * R * L;
        float *d = d_logits + n * R * L;
        vf mean = {0};
        for (long r = 0; r < R; r++) mean += load(w + r * L) * load(d + r * L);
        for (long r = 0; r < R; r++) store(d + r * L, (load(d + r * L) - mean) * load(w + r * L) * scale);
    }
    mix(N, R, K, d_logits, k, R * L, d_head, R * L, 0);
    for (long i = 0; i < K; i++) store(d_head + (i * R + N) * L, (vf){0}); /* the input has no query */
    spread(N, R, K, d_logits, q, R * L, d_head + K * R * L, R * L);
    spread(N, R, V, weights, d_read, N * L, d_head + 2 * K * R * L, R * L);
}

static void attend(long N, long K, long V, const float *head, const unsigned char *mask, float *weights,
                   float *read) {
    if (N == 4 && !mask)
        attend_(4, 5, K, V, head, 0, weights, read);
    else
        attend_(N, N + 1, K, V, head, mask, weights, read);
}

static void attend_backward(long N, long K, long V, const float *head, const float *weights, const float *d_read,
                            float *d_logits, float *d_head) {
    if (N == 4)
        attend_backward_(4, 5, K, V, head, weights, d_read, d_logits, d_head);
    else
        attend_backward_(N, N + 1, K, V, head, weights, d_read, d_logits, d_head);
}

#endif
