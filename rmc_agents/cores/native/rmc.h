/* One block of an RMC: what the caller passes, and what the forward pass keeps for the backward pass.
 *
 * Letters as in rmc_sequence.py: T time, B batch, N slots, R = N + 1 rows (the slots, then the input), A heads,
 * K key size, V head size, D = A V slot size, F = A (2K + V), G gates of a kind (D, 1 or 0).
 * L rows of the batch lie in the lanes of a vector. Within such a group a matrix [F, R] is F x R vectors.
 */
#ifndef RMC_AGENTS_RMC_H
#define RMC_AGENTS_RMC_H

#include "matrix.h"
#include "parallel.h"

/* The same fields, in the same order, as `Call` in rmc_native.py. */
struct call {
    long T, B, N, A, K, V, G, layers, threads;
    const float *x_qkv, *x_gates, *memory, *fresh; /* [T,B,F] [T,B,2G] [B,N,D] [N,D] */
    const unsigned char *starts;                   /* [T,B] or null */
    const float *qkv, *qkv_bias, *qkv_norm, *qkv_norm_bias, *attention_norm, *attention_norm_bias, *mlp_norm,
        *mlp_norm_bias, *gates, *const *mlp; /* weight, bias, weight, bias, ... */
    float *memories, *last, *saved;          /* [T,B,N,D] [B,N,D]; saved may be null */
    const float *d_memories, *d_last;        /* either may be null */
    float *d_memory, *d_x_qkv, *d_x_gates;
    float *d_qkv, *d_qkv_bias, *d_qkv_norm, *d_qkv_norm_bias, *d_attention_norm, *d_attention_norm_bias, *d_mlp_norm,
        *d_mlp_norm_bias, *d_gates, *const *d_mlp;
};

struct sizes {
    long T, B, N, R, A, K, V, D, F, G, layers, groups;
};

static struct sizes sizes_of(const struct call *c) {
    return (struct sizes){c->T,        c->B,                     c->N, c->N + 1,  c->A,                 c->K, c->V,
                          c->A * c->V, c->A * (2 * c->K + c->V), c->G, c->layers, (c->B + L - 1) / L};
}

/* What a step keeps. The x of a norm is kept normalised, before its weight and bias. */
struct step {
    float *qkv, *qkv_scale;             /* [F,R] [R] */
    float *attention;                   /* [A,N,R] */
    float *read, *read_scale;           /* [D,N] [N] */
    float *hidden;                      /* [layers - 1,D,N] after the ReLU */
    float *out, *out_scale;             /* [D,N] [N] */
    float *gates;                       /* [2G,N] after the sigmoid */
};

/* Floats that a step of one group keeps; `step` points to them from `base` on. */
static size_t lay_out(const struct sizes *z, float *base, struct step *step) {
    size_t at = 0;
#define TAKE(vectors) (at += (size_t)(vectors) * L, base ? base + at - (size_t)(vectors) * L : 0)
    *step = (struct step){.qkv = TAKE(z->F * z->R)};
    step->qkv_scale = TAKE(z->R);
    step->attention = TAKE(z->A * z->N * z->R);
    step->read = TAKE(z->D * z->N);
    step->read_scale = TAKE(z->N);
    step->hidden = TAKE((z->layers - 1) * z->D * z->N);
    step->out = TAKE(z->D * z->N);
    step->out_scale = TAKE(z->N);
    step->gates = TAKE(2 * z->G * z->N);
#undef TAKE
    return at;
}

/* x [n], `step` apart -> (x - mean) / deviation in place; returns 1 / deviation. */
static vf normalise(float *x, ptrdiff_t step, long n) {
    vf sum[4] = {0}, square[4] = {0};
    long i = 0;
    for (; i + 4 <= n; i += 4)
        for (int k = 0; k < 4; k++) sum[k] += load(x + (i + k) * step);
    for (; i < n; i++) sum[0] += load(x + i * step);
    vf mean = ((sum[0] + sum[1]) + (sum[2] + sum[3])) * (1.0f / n);
    for (i = 0; i + 4 <= n; i += 4)
        for (int k = 0; k < 4; k++) {
            vf centred = load(x + (i + k) * step) - mean;
            store(x + (i + k) * step, centred);
            square[k] += centred * centred;
        }
    for (; i < n; i++) {
        vf centred = load(x + i * step) - mean;
        store(x + i * step, centred);
        square[0] += centred * centred;
    }
    vf variance = ((square[0] + square[1]) + (square[2] + square[3])) * (1.0f / n);
    vf scale = 1.0f / square_root(variance + 1e-5f);
    for (i = 0; i < n; i++) store(x + i * step, load(x + i * step) * scale);
    return scale;
}

/* The gradient of a norm's result -> of its argument, in place; those of weight and bias are added up by lane. */
static void normalise_backward(float *d, ptrdiff_t d_step, const float *x, ptrdiff_t x_step, long n, vf scale,
                               const float *weight, float *d_weight, float *d_bias) {
    vf mean = {0}, slope = {0};
    for (long i = 0; i < n; i++) {
        vf di = load(d + i * d_step), xi = load(x + i * x_step);
        store(d_weight + i * L, load(d_weight + i * L) + di * xi);
        store(d_bias + i * L, load(d_bias + i * L) + di);
        di *= weight[i];
        mean += di;
        slope += di * xi;
        store(d + i * d_step, di);
    }
    mean *= 1.0f / n;
    slope *= 1.0f / n;
    for (long i = 0; i < n; i++) {
        vf di = load(d + i * d_step), xi = load(x + i * x_step);
        store(d + i * d_step, (di - mean - xi * slope) * scale);
    }
}

/* Lanes whose episode starts at step t of this group; rows beyond the batch never start. */
static int starting(const struct call *c, long t, long b, int rows, vi *mask) {
    int any = 0;
    *mask = (vi){0};
    for (int l = 0; c->starts && l < rows; l++)
        if (c->starts[t * c->B + b + l]) (*mask)[l] = -1, any = 1;
    return any;
}

#endif
