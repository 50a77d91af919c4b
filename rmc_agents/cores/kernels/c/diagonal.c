/* Forward and backward pass of the diagonal complex recurrence of cores/lru.py over a whole sequence:
 *
 *     x[t] = lambda x[t - 1] + gamma u[t]
 *
 * A group is a few rows of the batch; it runs through all time steps. The groups are the jobs of the threads. The
 * compiler turns the loops over units into vectors.
 *
 * Axes: T time, B batch, N units. Complex numbers are [2N]: real parts, then imaginary parts.
 */
#include "parallel.h"

#include <string.h>

#define ROWS 8  /* of a group: enough that what a step reads is contiguous */
#define SPAN 16 /* steps whose gradients of the constants are added before they are added to those of the others */

/* The fields of `_Call` in diagonal_native.py, in the same order. Tensors are contiguous. */
struct call {
    long T, B, N, threads;
    const float *inputs;                        /* [T,B,2N] u */
    const float *real, *imaginary;              /* [B,N] x before the first step */
    const float *constants;                     /* [3,N] lambda, gamma */
    const unsigned char *starts;                /* [T,B] true where x is set to zero before the step */
    float *states;                              /* [T,B,2N] */
    const float *d_states;                      /* [T,B,2N] */
    float *d_inputs, *d_real, *d_imaginary, *d_constants; /* as the tensors */
};

static long groups(const struct call *c) { return (c->B + ROWS - 1) / ROWS; }

/* x before step t of row b, without resets. */
static void before(const struct call *c, long t, long b, const float **real, const float **imaginary) {
    const float *x = c->states + ((t - 1) * c->B + b) * 2 * c->N;
    *real = t ? x : c->real + b * c->N;
    *imaginary = t ? x + c->N : c->imaginary + b * c->N;
}

static void forward_group(void *context, long group, float *scratch) {
    const struct call *c = context;
    const long N = c->N, end = (group + 1) * ROWS < c->B ? (group + 1) * ROWS : c->B;
    const float *a = c->constants, *w = a + N, *gamma = w + N;
    (void)scratch;
    for (long t = 0; t < c->T; t++)
        for (long b = group * ROWS; b < end; b++) {
            const long at = t * c->B + b;
            const float *u = c->inputs + at * 2 * N, *real, *imaginary;
            float *restrict x = c->states + at * 2 * N;
            before(c, t, b, &real, &imaginary);
            if (c->starts[at])
                for (long i = 0; i < N; i++) x[i] = gamma[i] * u[i], x[N + i] = gamma[i] * u[N + i];
            else
                for (long i = 0; i < N; i++) {
                    const float r = real[i], m = imaginary[i];
                    x[i] = a[i] * r - w[i] * m + gamma[i] * u[i];
                    x[N + i] = a[i] * m + w[i] * r + gamma[i] * u[N + i];
                }
        }
}

/* Gradient of x after a step [2N] in `d` -> that of x before it, and those of the input and of the constants. */
static void backward_step(const struct call *c, long t, long b, float *restrict d, float *restrict sums) {
    const long N = c->N, at = t * c->B + b;
    const float *a = c->constants, *w = a + N, *gamma = w + N;
    const float *u = c->inputs + at * 2 * N, *d_x = c->d_states + at * 2 * N, *real, *imaginary;
    float *restrict d_u = c->d_inputs + at * 2 * N;
    before(c, t, b, &real, &imaginary);
    for (long i = 0; i < N; i++) {
        const float r = d[i] + d_x[i], m = d[N + i] + d_x[N + i];
        sums[2 * N + i] += r * u[i] + m * u[N + i];
        d_u[i] = gamma[i] * r, d_u[N + i] = gamma[i] * m;
        d[i] = r, d[N + i] = m;
    }
    if (c->starts[at]) memset(d, 0, 2 * N * sizeof *d);
    else
        for (long i = 0; i < N; i++) {
            const float r = d[i], m = d[N + i];
            sums[i] += r * real[i] + m * imaginary[i];
            sums[N + i] += m * real[i] - r * imaginary[i];
            d[i] = a[i] * r + w[i] * m, d[N + i] = a[i] * m - w[i] * r;
        }
}

struct pass {
    const struct call *c;
    float *sums; /* [groups,3,N] gradients of the constants */
};

static void backward_group(void *context, long group, float *scratch) {
    const struct pass *p = context;
    const struct call *c = p->c;
    const long N = c->N, first = group * ROWS, end = first + ROWS < c->B ? first + ROWS : c->B;
    float *total = p->sums + group * 3 * N, *sums = scratch, *d = scratch + 3 * N; /* [3,N] [ROWS,2N] */
    memset(scratch, 0, (3 + 2 * ROWS) * N * sizeof *scratch);
    for (long t = c->T - 1; t >= 0; t--) {
        for (long b = first; b < end; b++) backward_step(c, t, b, d + (b - first) * 2 * N, sums);
        if (t % SPAN) continue;
        for (long i = 0; i < 3 * N; i++) total[i] += sums[i];
        memset(sums, 0, 3 * N * sizeof *sums);
    }
    for (long b = first; b < end; b++) {
        memcpy(c->d_real + b * N, d + (b - first) * 2 * N, N * sizeof *d);
        memcpy(c->d_imaginary + b * N, d + ((b - first) * 2 + 1) * N, N * sizeof *d);
    }
}

/* Compute `states`. Return 0, or -1 if memory could not be allocated. */
long diagonal_forward(const struct call *c) {
    return run_jobs(forward_group, (void *)c, groups(c), c->threads, sizeof(float));
}

/* Compute all gradients from `states` and `d_states`. Return 0, or -1 if memory could not be allocated. */
long diagonal_backward(const struct call *c) {
    const long size = 3 * c->N;
    struct pass p = {.c = c, .sums = calloc(groups(c) * size, sizeof(float))};
    if (!p.sums) return -1;
    int failed = run_jobs(backward_group, &p, groups(c), c->threads, (3 + 2 * ROWS) * c->N * sizeof(float));
    memset(c->d_constants, 0, size * sizeof(float));
    for (long group = 0; group < groups(c); group++)
        for (long i = 0; i < size; i++) c->d_constants[i] += p.sums[group * size + i];
    free(p.sums);
    return failed;
}
