/* Adam on one flat tensor of parameters, with the gradient clipped before the step. */
#include "parallel.h"
#include "simd.h"

#include <math.h>

/* The fields of `_Call` in adam_native.py, in the same order. */
struct call {
    long n; /* number of parameters */
    double beta1, beta2, eps, max_grad_norm;
    const float *learning_rate, *skip; /* scalars; nothing changes where `skip` is 1 */
    const float *gradient;             /* [n] */
    float *values, *exp_avg, *exp_avg_sq; /* [n] */
    float *steps, *norm;               /* scalars: number of steps so far; result: norm of the gradient */
};

#define BLOCK (64 * L) /* floats whose squares are added in single precision */

/* Sum of the squares of x [n]. The order of the additions depends on n alone. */
static double sum_of_squares(const float *x, long n) {
    double total = 0;
    for (long start = 0; start < n; start += BLOCK) {
        const float *end = x + (n - start < BLOCK ? n : start + BLOCK);
        vf sum[4] = {0};
        const float *p = x + start;
        for (; p + 4 * L <= end; p += 4 * L)
            for (int k = 0; k < 4; k++) {
                vf part = load_unaligned(p + k * L);
                sum[k] += part * part;
            }
        float rest = 0;
        for (; p < end; p++) rest += *p * *p;
        total += sum_of_lanes((sum[0] + sum[1]) + (sum[2] + sum[3])) + rest;
    }
    return total;
}

/* Constants of a step, in single precision. */
struct step {
    float scale;            /* factor of the clipped gradient */
    float keep1, add1;      /* beta1, 1 - beta1 */
    float keep2, add2;      /* beta2, 1 - beta2 */
    float size, root, eps;  /* learning rate / bias correction of the mean; 1 / root of that of the squares */
};

/* Update L parameters. */
INLINE void update(const struct step *s, const float *gradient, float *values, float *exp_avg, float *exp_avg_sq) {
    vf g = load_unaligned(gradient) * s->scale;
    vf m = load_unaligned(exp_avg) * s->keep1 + g * s->add1;
    vf v = load_unaligned(exp_avg_sq) * s->keep2 + g * g * s->add2;
    store_unaligned(exp_avg, m);
    store_unaligned(exp_avg_sq, v);
    store_unaligned(values, load_unaligned(values) - s->size * m / (square_root(v) * s->root + s->eps));
}

/* Clip the gradient and take a step, unless the norm is not finite or `skip` is 1. Return 0. */
long adam_step(const struct call *c) {
    unsigned before = flush_denormals(); /* moments of weights without a gradient decay to denormal numbers */
    const float norm = (float)sqrt(sum_of_squares(c->gradient, c->n));
    *c->norm = norm;
    if (isfinite(norm) && *c->skip != 1.0f) {
        const double steps = *c->steps + 1.0, clip = c->max_grad_norm / (norm + 1e-6);
        *c->steps = (float)steps;
        const struct step s = {
            .scale = clip < 1 ? (float)clip : 1.0f,
            .keep1 = (float)c->beta1, .add1 = (float)(1 - c->beta1),
            .keep2 = (float)c->beta2, .add2 = (float)(1 - c->beta2),
            .size = (float)(*c->learning_rate / (1 - pow(c->beta1, steps))),
            .root = (float)(1 / sqrt(1 - pow(c->beta2, steps))),
            .eps = (float)c->eps,
        };
        long i = 0;
        for (; i + L <= c->n; i += L) update(&s, c->gradient + i, c->values + i, c->exp_avg + i, c->exp_avg_sq + i);
        if (i < c->n) { /* the rest, padded with zeros */
            float rest[4][L] = {0};
            float *const parts[] = {(float *)c->gradient + i, c->values + i, c->exp_avg + i, c->exp_avg_sq + i};
            const size_t bytes = (c->n - i) * sizeof(float);
            for (int k = 0; k < 4; k++) memcpy(rest[k], parts[k], bytes);
            update(&s, rest[0], rest[1], rest[2], rest[3]);
            for (int k = 1; k < 4; k++) memcpy(parts[k], rest[k], bytes);
        }
    }
    restore_denormals(before);
    return 0;
}
