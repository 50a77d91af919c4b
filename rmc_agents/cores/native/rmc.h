/* One block of an RMC: what the caller passes, and what both passes share.
 *
 * Letters as in rmc_sequence.py: T time, B batch, I input size, N slots, R = N + 1 rows (the slots, then the
 * input), A heads, K key size, V head size, D = A V slot size, F = A (2K + V), G gates of a kind (D, 1 or 0).
 * L rows of the batch, a group, lie in the lanes of a vector: within a group a matrix [F, R] is F x R vectors.
 */
#ifndef RMC_AGENTS_RMC_H
#define RMC_AGENTS_RMC_H

#include "matrix.h"
#include "parallel.h"

#define SPAN 4 /* steps whose inputs are projected in one product */

/* The same fields, in the same order, as `_Call` in rmc.py. Tensors are contiguous. */
struct call {
    long T, B, I, N, A, K, V, G, layers, threads;
    const float *inputs, *memory, *fresh; /* [T,B,I] [B,N,D] [N,D] */
    const unsigned char *starts;          /* [T,B] or null */
    const float *gate_bias;               /* [2G], a constant on top of the biases that are learned */
    const unsigned char *hidden;          /* [N,R] which rows a slot does not read, or null; never the input's */
    const float *input, *input_bias, *qkv, *qkv_bias, *qkv_norm, *qkv_norm_bias, *attention_norm, *attention_norm_bias,
        *mlp_norm, *mlp_norm_bias, *input_gates, *input_gates_bias, *gates, *gates_bias;
    const float *const *mlp;          /* weight, bias, weight, bias, ... */
    float *memories, *last, *saved;   /* [T,B,N,D] [B,N,D]; saved: `rmc_saved` floats or null */
    const float *d_memories, *d_last; /* either may be null */
    float *d_inputs, *d_memory;       /* d_inputs may be null */
    float *d_input, *d_input_bias, *d_qkv, *d_qkv_bias, *d_qkv_norm, *d_qkv_norm_bias, *d_attention_norm,
        *d_attention_norm_bias, *d_mlp_norm, *d_mlp_norm_bias, *d_input_gates, *d_input_gates_bias, *d_gates,
        *d_gates_bias;
    float *const *d_mlp;
};

struct sizes {
    long T, B, I, N, R, A, K, V, D, F, G, layers;
    long groups;
    long head; /* 2K + V */
};

INLINE struct sizes sizes_of(const struct call *c) {
    return (struct sizes){.T = c->T, .B = c->B, .I = c->I, .N = c->N, .R = c->N + 1, .A = c->A, .K = c->K, .V = c->V,
                          .D = c->A * c->V, .F = c->A * (2 * c->K + c->V), .G = c->G, .layers = c->layers,
                          .groups = (c->B + L - 1) / L, .head = 2 * c->K + c->V};
}

/* Threads that are worth their start, which takes as long as a few million multiplications. */
INLINE long threads_for(const struct sizes *z, long threads) {
    double row = z->I * z->D + z->D * (z->R * z->F + (z->N + 1) * 2 * z->G + z->N * z->layers * z->D);
    return row * z->T * z->B < 1e7 ? 1 : threads;
}

/* Which rows of a group, from row b of the batch on, start an episode at step t; null where none ever does. */
INLINE const unsigned char *starts_at(const struct call *c, long t, long b) {
    return c->starts ? c->starts + t * c->B + b : 0;
}

/* Rows of the batch in a group. */
INLINE int rows_of(const struct sizes *z, long group) {
    long left = z->B - group * L;
    return left < L ? (int)left : L;
}

/* What a step keeps for the backward pass. The x of a norm is kept normalised, without its weight and bias. */
struct step {
    float *x;                 /* [D] the input's row */
    float *qkv, *qkv_scale;   /* [F,R] [R] */
    float *attention;         /* [A,N,R] */
    float *read, *read_scale; /* [D,N] [N] */
    float *hidden;            /* [layers - 1,D,N] after the ReLU */
    float *out, *out_scale;   /* [D,N] [N] */
    float *gates;             /* [2G,N] after the sigmoid */
};

/* Floats that a step of a group keeps; `step` points to them from `base` on. */
INLINE size_t lay_out_step(const struct sizes *z, float *base, struct step *step) {
    size_t at = 0;
    step->x = take(base, &at, z->D);
    step->qkv = take(base, &at, z->F * z->R);
    step->qkv_scale = take(base, &at, z->R);
    step->attention = take(base, &at, z->A * z->N * z->R);
    step->read = take(base, &at, z->D * z->N);
    step->read_scale = take(base, &at, z->N);
    step->hidden = take(base, &at, (z->layers - 1) * z->D * z->N);
    step->out = take(base, &at, z->D * z->N);
    step->out_scale = take(base, &at, z->N);
    step->gates = take(base, &at, 2 * z->G * z->N);
    return at;
}

/* A head's queries, keys and values [2K + V, R] from what their norm left, the head's features first. */
INLINE void scale_head(const struct call *c, const struct sizes *z, const float *qkv, long a, float *head) {
    for (long i = 0, f = a * z->head; i < z->head; i++, f++)
        for (long r = 0; r < z->R; r++)
            store(head + (i * z->R + r) * L, load(qkv + (f * z->R + r) * L) * c->qkv_norm[f] + c->qkv_norm_bias[f]);
}

/* x [n, N] weight[n] + bias[n] */
INLINE void scale(const float *x, const float *weight, const float *bias, long n, long N, float *out) {
    for (long i = 0; i < n; i++)
        for (long k = i * N * L; k < (i + 1) * N * L; k += L) store(out + k, load(x + k) * weight[i] + bias[i]);
}

#endif
