/* A one-block RMC: the arguments of a call, and code that the forward and backward pass share.
 *
 * Axes, as in rmc_native.py: T time, B batch, I input size, N slots, R = N + 1 rows (the slots, then the input),
 * A heads, K key size, V head size, D = A V slot size, F = A (2K + V), G gate units (D, 1 or 0).
 * A group is L rows of the batch, held in the lanes of vectors: within a group a matrix [F, R] is F x R vectors.
 */
#ifndef RMC_AGENTS_RMC_H
#define RMC_AGENTS_RMC_H

#include "matrix.h"
#include "parallel.h"

#define SPAN 4 /* number of steps whose inputs are projected in one product */

/* The fields of `_Call` in rmc_native.py, in the same order. Tensors are contiguous. */
struct call {
    long T, B, I, N, A, K, V, G, layers, n, threads, lanes;
    const float *inputs, *memory, *fresh; /* [T,B,I], or [n,I] with ids; [B,N,D] [N,D] */
    const unsigned char *starts;          /* [T,B] or null */
    const float *gate_bias;               /* [2G] constant added to the learned biases */
    const unsigned char *mask;            /* [N,R] rows that a slot may not attend to, never the input's; or null */
    const int *ids;                       /* [T,B] the row of the n inputs that is read; or null */
    const float *input, *input_bias, *qkv, *qkv_bias, *qkv_norm, *qkv_norm_bias, *attention_norm, *attention_norm_bias,
        *mlp_norm, *mlp_norm_bias, *input_gates, *input_gates_bias, *gates, *gates_bias;
    const float *const *mlp;          /* weight, bias, weight, bias, ... */
    float *memories, *last, *saved;   /* [T,B,N,D] [B,N,D]; `saved`: `rmc_saved` floats, or null */
    const float *d_memories, *d_last; /* either may be null */
    float *d_inputs, *d_memory;       /* d_inputs may be null */
    float *d_input, *d_input_bias, *d_qkv, *d_qkv_bias, *d_qkv_norm, *d_qkv_norm_bias, *d_attention_norm,
        *d_attention_norm_bias, *d_mlp_norm, *d_mlp_norm_bias, *d_input_gates, *d_input_gates_bias, *d_gates,
        *d_gates_bias;
    float *const *d_mlp;
};

struct sizes {
    long T, B, I, N, R, A, K, V, D, F, G, layers, n;
    long groups;
    long head; /* 2K + V features of a head */
};

INLINE struct sizes sizes_of(const struct call *c) {
    return (struct sizes){.T = c->T, .B = c->B, .I = c->I, .N = c->N, .R = c->N + 1, .A = c->A, .K = c->K, .V = c->V,
                          .D = c->A * c->V, .F = c->A * (2 * c->K + c->V), .G = c->G, .layers = c->layers,
                          .n = c->ids ? c->n : 0,
                          .groups = (c->B + L - 1) / L, .head = 2 * c->K + c->V};
}

/* The flags of episode starts at step t, from row b of the batch; null if there are no resets. */
INLINE const unsigned char *starts_at(const struct call *c, long t, long b) {
    return c->starts ? c->starts + t * c->B + b : 0;
}

/* Number of rows of the batch in a group. */
INLINE int rows_of(const struct sizes *z, long group) {
    long left = z->B - group * L;
    return left < L ? (int)left : L;
}

/* Results of a step that the backward pass needs. Inputs of norms are kept normalised, before weight and bias. */
struct step {
    float *x;                 /* [D] row of the input */
    float *qkv, *qkv_scale;   /* [F,R] [R]; scales are 1 / standard deviation */
    float *attention;         /* [A,N,R] */
    float *read, *read_scale; /* [D,N] [N] */
    float *hidden;            /* [layers - 1,D,N] after the ReLU */
    float *out, *out_scale;   /* [D,N] [N] */
    float *gates;             /* [2G,N] after the sigmoid */
};

/* Lay out the results of one step of a group from `base` on; return their size in floats. */
INLINE size_t lay_out_step(const struct sizes *z, float *base, struct step *step) {
    size_t at = 0;
    step->x = allocate(base, &at, z->D);
    step->qkv = allocate(base, &at, z->F * z->R);
    step->qkv_scale = allocate(base, &at, z->R);
    step->attention = allocate(base, &at, z->A * z->N * z->R);
    step->read = allocate(base, &at, z->D * z->N);
    step->read_scale = allocate(base, &at, z->N);
    step->hidden = allocate(base, &at, (z->layers - 1) * z->D * z->N);
    step->out = allocate(base, &at, z->D * z->N);
    step->out_scale = allocate(base, &at, z->N);
    step->gates = allocate(base, &at, 2 * z->G * z->N);
    return at;
}

/* The projections of n inputs that are read by id. */
struct projected {
    float *x, *qkv, *gates; /* [n,D] [n,F] [n,2G] */
};

/* Return the projections, which follow the results of all steps in `saved`; `kept` is the size of those of a step. */
INLINE struct projected projected(const struct call *c, const struct sizes *z, size_t kept) {
    float *x = c->saved + z->groups * z->T * kept, *qkv = x + z->n * z->D;
    return (struct projected){x, qkv, qkv + z->n * z->F};
}

/* Number of blocks of SPAN L rows that the n inputs form. */
INLINE long num_blocks(const struct sizes *z) { return (z->n + SPAN * L - 1) / (SPAN * L); }

/* Number of rows of column `column` of a block; 0 or less after the last. */
INLINE int rows_in(const struct sizes *z, long block, long column) {
    long left = z->n - (block * SPAN + column) * L;
    return left < L ? (int)left : L;
}

/* Apply the weight and bias of the norm to the features of head `a`: qkv [F, R] -> head [2K + V, R]. */
INLINE void scale_head(const struct call *c, const struct sizes *z, const float *qkv, long a, float *head) {
    for (long i = 0, f = a * z->head; i < z->head; i++, f++)
        for (long r = 0; r < z->R; r++)
            store(head + (i * z->R + r) * L, load(qkv + (f * z->R + r) * L) * c->qkv_norm[f] + c->qkv_norm_bias[f]);
}

/* out = x [n, N] * weight [n] + bias [n] */
INLINE void scale_and_shift(const float *x, const float *weight, const float *bias, long n, long N, float *out) {
    for (long i = 0; i < n; i++)
        for (long k = i * N * L; k < (i + 1) * N * L; k += L) store(out + k, load(x + k) * weight[i] + bias[i]);
}

#endif
