/* Features of the rows of a table: relu(W x + b), where the inputs x of a row are constants, most of them 0.
 *
 * W x is a sum of terms, each W times a few inputs, and a term belongs to many rows. So the terms are computed once,
 * and a row that occurs adds up its own. The backward pass hands the gradients of the rows down to the terms.
 * Axes: N ids, n rows of the table, M <= n rows that occur, J terms of a row, Q terms, I inputs, F features (a
 * multiple of L), K kinds.
 */
#include "matrix.h"

/* The fields of `_Call` in table_native.py, in the same order. Tensors are contiguous. */
struct table {
    long N, n, J, Q, I, F, K, width, M;
    const long long *ids;         /* [N] */
    const int *rows;              /* [n,J] the terms that a row adds up */
    const int *first, *kind;      /* [Q] the first input of a term, and the values of its `width` inputs as a row of
                                   * `kinds`; -1 for one input of value 1 */
    const float *weight, *bias;   /* [F,I] [F] */
    const float *kinds;           /* [K,width] */
    float *features;              /* [M,F] of the rows that occur */
    int *index;                   /* [N] number of each id's row among those that occur */
    float *inputs;                /* [I,F] transposed weights; kept for the backward pass, as `order` */
    int *order;                   /* [M] the rows that occur */
    int *number;                  /* [n] number of each row, or -1; not kept */
    float *terms;                 /* [Q,F] not kept */
    const float *d_features;      /* [M,F] */
    float *passed, *d_inputs;     /* [F] [I,F] not kept */
    float *d_weight, *d_bias, *d_kinds; /* as the weights, each not null */
};

/* Number the rows that occur, in the order of their occurrence. Return how many they are, or 0 for an unknown id. */
static long number_rows(const struct table *c) {
    long count = 0;
    for (long r = 0; r < c->n; r++) c->number[r] = -1;
    for (long i = 0; i < c->N; i++) {
        const long long id = c->ids[i];
        if (id < 0 || id >= c->n) return 0;
        if (c->number[id] < 0) c->order[count] = (int)id, c->number[id] = (int)count++;
        c->index[i] = c->number[id];
    }
    return count;
}

/* y += a x, for F features. */
INLINE void add_scaled(long F, float a, const float *x, float *y) {
    for (long f = 0; f < F; f += L) store_unaligned(y + f, load_unaligned(y + f) + a * load_unaligned(x + f));
}

static void compute_terms(const struct table *c) {
    const long F = c->F;
    memset(c->terms, 0, c->Q * F * sizeof(float));
    for (long q = 0; q < c->Q; q++) {
        const float *from = c->inputs + c->first[q] * F, *values = c->kinds + c->kind[q] * c->width;
        if (c->kind[q] < 0) memcpy(c->terms + q * F, from, F * sizeof(float));
        else
            for (long w = 0; w < c->width; w++) add_scaled(F, values[w], from + w * F, c->terms + q * F);
    }
}

/* `vectors` vectors of a row's features: add up its terms, or hand its gradient down to them. */
INLINE void add_up(const struct table *c, int vectors, const int *terms, const float *bias, float *out) {
    vf sum[4];
    for (int v = 0; v < vectors; v++) sum[v] = load_unaligned(bias + v * L);
    for (long j = 0; j < c->J; j++)
        for (int v = 0; v < vectors; v++) sum[v] += load_unaligned(c->terms + (long)terms[j] * c->F + v * L);
    for (int v = 0; v < vectors; v++) store_unaligned(out + v * L, greater(splat(0), sum[v]));
}

INLINE void hand_down(const struct table *c, int vectors, const int *terms, const float *d) {
    vf given[4];
    for (int v = 0; v < vectors; v++) given[v] = load_unaligned(d + v * L);
    for (long j = 0; j < c->J; j++) {
        float *to = c->terms + (long)terms[j] * c->F;
        for (int v = 0; v < vectors; v++) store_unaligned(to + v * L, load_unaligned(to + v * L) + given[v]);
    }
}

/* Compute `features`, whose M rows are as many as can occur. Return how many do, or 0 for an unknown id. */
long table_forward(const struct table *c) {
    const long F = c->F, count = number_rows(c);
    transposed(c->weight, F, c->I, c->inputs);
    compute_terms(c);
    for (long s = 0; s < count; s++) {
        const int *terms = c->rows + c->order[s] * c->J;
        float *out = c->features + s * F;
        long f = 0;
        struct table part = *c;
        for (; f + 4 * L <= F; f += 4 * L, part.terms += 4 * L) add_up(&part, 4, terms, c->bias + f, out + f);
        for (; f < F; f += L, part.terms += L) add_up(&part, 1, terms, c->bias + f, out + f);
    }
    return count;
}

/* Compute the gradients from `d_features` and what `table_forward` kept. Return 0. */
long table_backward(const struct table *c) {
    const long F = c->F;
    memset(c->terms, 0, c->Q * F * sizeof(float));
    memset(c->d_inputs, 0, c->I * F * sizeof(float));
    memset(c->d_bias, 0, F * sizeof(float));
    memset(c->d_kinds, 0, c->K * c->width * sizeof(float));
    for (long s = 0; s < c->M; s++) {
        const int *terms = c->rows + c->order[s] * c->J;
        const float *features = c->features + s * F, *d_features = c->d_features + s * F;
        float *d = c->passed;
        for (long f = 0; f < F; f += L) {
            vf passed = pick(load_unaligned(features + f) > 0, load_unaligned(d_features + f), splat(0));
            store_unaligned(d + f, passed);
            store_unaligned(c->d_bias + f, load_unaligned(c->d_bias + f) + passed);
        }
        long f = 0;
        struct table part = *c;
        for (; f + 4 * L <= F; f += 4 * L, part.terms += 4 * L) hand_down(&part, 4, terms, d + f);
        for (; f < F; f += L, part.terms += L) hand_down(&part, 1, terms, d + f);
    }
    for (long q = 0; q < c->Q; q++) {
        const float *d = c->terms + q * F;
        if (c->kind[q] < 0) add_scaled(F, 1, d, c->d_inputs + c->first[q] * F);
        for (long w = 0; c->kind[q] >= 0 && w < c->width; w++) {
            const long at = c->kind[q] * c->width + w, input = (c->first[q] + w) * F;
            vf sum = splat(0);
            for (long f = 0; f < F; f += L) sum += load_unaligned(d + f) * load_unaligned(c->inputs + input + f);
            c->d_kinds[at] += sum_of_lanes(sum);
            add_scaled(F, c->kinds[at], d, c->d_inputs + input);
        }
    }
    transposed(c->d_inputs, c->I, F, c->d_weight);
    return 0;
}
