/* Forward and backward pass of the matrix memory of cores/shm.py over a whole sequence:
 *
 *     M[t] = M[t - 1] * (1 + tanh(theta (x) scale)) + value (x) key,    read = M[t] query
 *
 * with * element by element and (x) the outer product. Each row of the batch is a job of the threads; the matrix that
 * it changes stays in the cache.
 *
 * Axes: T time, B batch, H size of the memory.
 */
#include "parallel.h"
#include "simd.h"

/* The fields of `_Call` in hadamard_native.py, in the same order. Tensors are contiguous. */
struct call {
    long T, B, H, threads;
    const float *query, *key, *value, *scale, *theta; /* [T,B,H] */
    const float *memory;                              /* [B,H,H] before the first step */
    const unsigned char *starts;                      /* [T,B] true where the memory is set to zero before the step */
    float *reads, *memories;                          /* [T,B,H] [T,B,H,H] */
    const float *d_reads, *d_memories;                /* [T,B,H]; [T,B,H,H] or null */
    float *d_query, *d_key, *d_value, *d_scale, *d_theta, *d_memory; /* as the tensors */
};

/* n <= L floats as a vector, the others 0. */
INLINE vf load_some(const float *p, long n) {
    vf x = {0};
    if (n >= L) return load_unaligned(p);
    memcpy(&x, p, n * sizeof *p);
    return x;
}

INLINE void store_some(float *p, vf x, long n) {
    if (n >= L) store_unaligned(p, x);
    else memcpy(p, &x, n * sizeof *p);
}

static const float *before(const struct call *c, long t, long b) {
    const long size = c->H * c->H;
    return t ? c->memories + ((t - 1) * c->B + b) * size : c->memory + b * size;
}

static void forward_row(void *context, long b, float *scratch) {
    const struct call *c = context;
    const long H = c->H;
    (void)scratch;
    for (long t = 0; t < c->T; t++) {
        const long at = t * c->B + b;
        const float *query = c->query + at * H, *key = c->key + at * H, *scale = c->scale + at * H;
        for (long i = 0; i < H; i++) {
            const float value = c->value[at * H + i], theta = c->theta[at * H + i];
            const float *old = before(c, t, b) + i * H;
            float *new = c->memories + (at * H + i) * H;
            vf sum = splat(0);
            for (long j = 0; j < H; j += L) {
                vf x = value * load_some(key + j, H - j);
                if (!c->starts[at]) x += load_some(old + j, H - j) * (1.0f + tanh_(theta * load_some(scale + j, H - j)));
                store_some(new + j, x, H - j);
                sum += x * load_some(query + j, H - j);
            }
            c->reads[at * H + i] = sum_of_lanes(sum);
        }
    }
}

/* Gradient of the memory after a step [H,H] in `d`, without that of what is read -> that of the memory before it, and
 * those of the step's vectors. */
static void backward_step(const struct call *c, long t, long b, float *d) {
    const long H = c->H, at = t * c->B + b;
    const float *query = c->query + at * H, *key = c->key + at * H, *scale = c->scale + at * H;
    float *d_query = c->d_query + at * H, *d_key = c->d_key + at * H, *d_scale = c->d_scale + at * H;
    for (long j = 0; j < H; j++) d_query[j] = d_key[j] = d_scale[j] = 0;
    for (long i = 0; i < H; i++) {
        const float value = c->value[at * H + i], theta = c->theta[at * H + i], d_read = c->d_reads[at * H + i];
        const float *old = before(c, t, b) + i * H, *new = c->memories + (at * H + i) * H;
        vf d_value = splat(0), d_theta = splat(0);
        for (long j = 0; j < H; j += L) {
            const long n = H - j;
            vf g = load_some(d + i * H + j, n) + d_read * load_some(query + j, n), passed = splat(0);
            if (c->d_memories) g += load_some(c->d_memories + (at * H + i) * H + j, n);
            store_some(d_query + j, load_some(d_query + j, n) + d_read * load_some(new + j, n), n);
            store_some(d_key + j, load_some(d_key + j, n) + value * g, n);
            d_value += g * load_some(key + j, n);
            if (!c->starts[at]) {
                vf s = load_some(scale + j, n), change = tanh_(theta * s);
                vf slope = g * load_some(old + j, n) * (1.0f - change * change);
                d_theta += slope * s;
                store_some(d_scale + j, load_some(d_scale + j, n) + theta * slope, n);
                passed = g * (1.0f + change);
            }
            store_some(d + i * H + j, passed, n);
        }
        c->d_value[at * H + i] = sum_of_lanes(d_value);
        c->d_theta[at * H + i] = sum_of_lanes(d_theta);
    }
}

static void backward_row(void *context, long b, float *scratch) {
    const struct call *c = context;
    const size_t bytes = c->H * c->H * sizeof *scratch;
    (void)scratch;
    float *d = c->d_memory + b * c->H * c->H;
    memset(d, 0, bytes);
    for (long t = c->T - 1; t >= 0; t--) backward_step(c, t, b, d);
}

/* Compute `reads` and `memories`. Return 0, or -1 if memory could not be allocated. */
long hadamard_forward(const struct call *c) {
    return run_jobs(forward_row, (void *)c, c->B, c->threads, sizeof(float));
}

/* Compute all gradients from `memories`. Return 0, or -1 if memory could not be allocated. */
long hadamard_backward(const struct call *c) {
    return run_jobs(backward_row, (void *)c, c->B, c->threads, sizeof(float));
}
