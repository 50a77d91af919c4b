/* The heads of an actor-critic: what `heads_act.c` and `heads_loss.c` share.
 *
 *     policy:  logits = W' tanh(W x + b) + b',   value = w' tanh(V x + c) + c',   x = [outputs, features]
 *
 * The policy is an independent softmax for each component of the action.
 * Axes: N rows (time and batch), H and X widths of the two parts of the input, K hidden units, P logits of all
 * components, A components, n features that are read by id. A block is up to ROWS rows, held in the lanes of COLUMNS
 * vectors; [k] is k * COLUMNS vectors.
 */
#ifndef RMC_AGENTS_HEADS_H
#define RMC_AGENTS_HEADS_H

#include "matrix.h"

#define ROWS 64
#define COLUMNS (ROWS / L)

/* The fields of `_Call` in heads_native.py, in the same order. Tensors are contiguous. */
struct call {
    long N, H, X, K, P, A, n, threads;
    const long *sizes;                            /* [A] logits of each component */
    const int *ids;                               /* [N] the row of the n features that is read, for a loss; or null */
    const float *outputs, *features;              /* [N,H] [N,X], or [n,X] with ids; `features` is null if X is 0 */
    const float *policy_hidden, *policy_hidden_bias, *policy, *policy_bias; /* [K,H+X] [K] [P,K] [P] */
    const float *value_hidden, *value_hidden_bias, *value, *value_bias;     /* [K,H+X] [K] [1,K] [1] */
    /* Acting. */
    const float *noise;                           /* [N,P] exponentially distributed; null for the most likely action */
    long long *chosen;                            /* [N,A] */
    float *log_probs, *values;                    /* [N] [N] */
    /* PPO's loss. */
    const long long *actions;                     /* [N,A] */
    const float *old_log_probs, *old_values, *advantages, *returns; /* [N] each */
    const unsigned char *valid;                   /* [N] */
    float *figures;                               /* [NUM_FIGURES] */
    float *workspace;                             /* `heads_workspace` floats; null, as the rest, for no gradients */
    float *d_outputs, *d_features;                /* as `outputs` and `features`; each may be null */
    float *d_policy_hidden, *d_policy_hidden_bias, *d_policy, *d_policy_bias;
    float *d_value_hidden, *d_value_hidden_bias, *d_value, *d_value_bias;
    double clip_low, clip_high, clip_value;       /* limits of the ratio, and of the change of a value */
    double value_coef, entropy_coef;
    double normalize;                             /* whether advantages are normalised */
    double num_valid, mean, std;                     /* of all valid rows and their advantages; NaN: of this call's */
};

/* A block between the passes. */
struct block {
    float *inputs;        /* [H + X] */
    float *hidden;        /* [2K] of the policy, then of the value, after the tanh */
    float *logits;        /* [P]; `log_softmax` turns them into log-probabilities */
    float *probabilities; /* [P] */
    float *entropies;     /* [A] */
    float *values;        /* [1] */
};

INLINE size_t lay_out_block(const struct call *c, float *base, size_t at, struct block *b) {
    b->inputs = allocate(base, &at, (c->H + c->X) * COLUMNS);
    b->hidden = allocate(base, &at, 2 * c->K * COLUMNS);
    b->logits = allocate(base, &at, c->P * COLUMNS);
    b->probabilities = allocate(base, &at, c->P * COLUMNS);
    b->entropies = allocate(base, &at, c->A * COLUMNS);
    b->values = allocate(base, &at, COLUMNS);
    return at;
}

static inline long num_blocks(const struct call *c) { return (c->N + ROWS - 1) / ROWS; }

/* Number of blocks of the features that are read by id. */
static inline long num_feature_blocks(const struct call *c) { return c->ids ? (c->n + ROWS - 1) / ROWS : 0; }

/* Number of rows of the block that starts at `row`, of `all` rows. */
static inline long rows_from(long all, long row) { return all - row < ROWS ? all - row : ROWS; }
static inline long rows_of(const struct call *c, long row) { return rows_from(c->N, row); }

/* Number of rows of column k of a block of `rows` rows. */
static inline int rows_in(long rows, long k) { return rows - k * L < L ? (int)(rows - k * L) : L; }

static inline long threads_for(const struct call *c) {
    /* Starting a thread takes time, too: small calls use one. */
    return (double)c->N * (c->H + c->X) * c->K < 4e6 ? 1 : c->threads;
}

/* Compute the logits and values of a block.
 *
 * projected: [n,2K] what the features that are read by id add to the hidden layers; null without ids
 */
HIDDEN void heads_forward(const struct call *c, long row, const float *projected, const struct block *b);

/* Turn logits into log-probabilities, and compute the probabilities and entropies. */
HIDDEN void log_softmax(const struct call *c, long rows, const struct block *b);

#endif
