/* Forward pass of a one-block Relational Memory Core over a whole sequence.
 *
 * It computes what RMC.recur in cores/rmc.py does. Rows of the batch are independent, so a group of L rows runs
 * through all time steps with its data in the nearest caches. The groups are the jobs of the threads.
 */
#include "attention.h"
#include "rmc.h"

/* Scratch memory of a group. */
struct work {
    float *m, *content, *tanh_m;  /* [D,N] */
    float *head;                  /* [2K + V,R] */
    float *inputs;                /* [I,SPAN] */
    float *x, *x_qkv, *x_gates;   /* [D,SPAN] [F,SPAN] [2G,SPAN] */
    float *gate_bias;             /* 2G floats */
    float *step;                  /* results of a step that are not kept */
};

static size_t lay_out_work(const struct sizes *z, float *base, struct work *w) {
    struct step step;
    size_t at = 0;
    w->m = allocate(base, &at, z->D * z->N);
    w->content = allocate(base, &at, z->D * z->N);
    w->tanh_m = allocate(base, &at, z->D * z->N);
    w->head = allocate(base, &at, z->head * z->R);
    w->inputs = allocate(base, &at, z->I * SPAN);
    w->x = allocate(base, &at, z->D * SPAN);
    w->x_qkv = allocate(base, &at, z->F * SPAN);
    w->x_gates = allocate(base, &at, 2 * z->G * SPAN);
    w->gate_bias = allocate(base, &at, (2 * z->G + L - 1) / L);
    w->step = allocate(base, &at, lay_out_step(z, 0, &step) / L);
    return at;
}

/* x [n] with stride `step` -> (x - mean) / deviation in place; return 1 / deviation. */
static vf normalise(float *x, ptrdiff_t step, long n) {
    vf sum[4] = {0}, squares[4] = {0}; /* independent sums: a single one would wait for each addition */
    long i = 0;
    for (; i + 4 <= n; i += 4)
        for (int k = 0; k < 4; k++) sum[k] += load(x + (i + k) * step);
    for (; i < n; i++) sum[0] += load(x + i * step);
    vf mean = ((sum[0] + sum[1]) + (sum[2] + sum[3])) * (1.0f / n);
    for (i = 0; i + 4 <= n; i += 4)
        for (int k = 0; k < 4; k++) {
            vf centred = load(x + (i + k) * step) - mean;
            squares[k] += centred * centred;
        }
    for (; i < n; i++) {
        vf centred = load(x + i * step) - mean;
        squares[0] += centred * centred;
    }
    vf variance = ((squares[0] + squares[1]) + (squares[2] + squares[3])) * (1.0f / n);
    vf scale = 1.0f / square_root(variance + 1e-5f);
    for (i = 0; i < n; i++) store(x + i * step, (load(x + i * step) - mean) * scale);
    return scale;
}

/* Project up to SPAN columns of inputs: their rows, their queries, keys and values, their gate terms. */
static void project(const struct call *c, const struct sizes *z, long columns, const struct work *w) {
    const long S = SPAN * L;
    for (long g = 0; g < 2 * z->G; g++) w->gate_bias[g] = c->input_gates_bias[g] + c->gates_bias[g] + c->gate_bias[g];
    product(z->D, columns, z->I, c->input, z->I, w->inputs, S, w->x, S, 0, c->input_bias);
    product(z->F, columns, z->D, c->qkv, z->D, w->x, S, w->x_qkv, S, 0, c->qkv_bias);
    product(2 * z->G, columns, z->D, c->input_gates, z->D, w->x, S, w->x_gates, S, 0, w->gate_bias);
}

/* Project a block of the inputs that are read by id, each once. */
static void project_block(void *context, long block, float *scratch) {
    const struct call *c = context;
    const struct sizes z = sizes_of(c);
    const long S = SPAN * L, first = block * S;
    struct work w;
    struct step step;
    const struct projected p = projected(c, &z, lay_out_step(&z, 0, &step));
    long columns = 0;
    lay_out_work(&z, scratch, &w);
    for (; columns < SPAN && rows_in(&z, block, columns) > 0; columns++)
        to_lanes(c->inputs + (first + columns * L) * z.I, z.I, rows_in(&z, block, columns), z.I,
                 w.inputs + columns * L, S);
    project(c, &z, columns, &w);
    for (long k = 0, row = first; k < columns; k++, row += L) {
        const int rows = rows_in(&z, block, k);
        from_lanes(w.x + k * L, S, z.D, p.x + row * z.D, z.D, rows);
        from_lanes(w.x_qkv + k * L, S, z.F, p.qkv + row * z.F, z.F, rows);
        from_lanes(w.x_gates + k * L, S, 2 * z.G, p.gates + row * 2 * z.G, 2 * z.G, rows);
    }
}

/* Project the inputs of the SPAN steps from t on, or read their projections. */
static void read_inputs(const struct call *c, const struct sizes *z, long t, long b, int rows,
                        const struct projected *p, const struct work *w) {
    const long S = SPAN * L, steps = z->T - t < SPAN ? z->T - t : SPAN;
    for (long k = 0; k < steps; k++) {
        const long at = (t + k) * z->B + b;
        if (c->ids) {
            gather_lanes(p->qkv, c->ids + at, rows, z->F, w->x_qkv + k * L, S);
            gather_lanes(p->gates, c->ids + at, rows, 2 * z->G, w->x_gates + k * L, S);
        } else {
            to_lanes(c->inputs + at * z->I, z->I, rows, z->I, w->inputs + k * L, S);
        }
    }
    if (!c->ids) project(c, z, steps, w);
}

/* Reset the memory of the rows that start an episode at step t. */
static void reset(const struct call *c, const struct sizes *z, long t, long b, int rows, float *m) {
    vi start;
    if (!lane_mask(starts_at(c, t, b), rows, &start)) return;
    for (long d = 0; d < z->D; d++)
        for (long n = 0; n < z->N; n++) {
            float *at = m + (d * z->N + n) * L;
            store(at, pick(start, splat(c->fresh[n * z->D + d]), load(at)));
        }
}

/* Advance the memory M [D,N] by one step, in place; `column` is the index of the step among the projected inputs. */
static void forward_step(const struct call *c, const struct sizes *z, long column, const struct work *w,
                         const struct step *s) {
    const long N = z->N, R = z->R, D = z->D, F = z->F, G = z->G, size = D * N * L;
    float *m = w->m, *content = w->content;

    product(F, N, D, c->qkv, D, m, N * L, s->qkv, R * L, 0, c->qkv_bias);
    for (long f = 0; f < F; f++) store(s->qkv + (f * R + N) * L, load(w->x_qkv + (f * SPAN + column) * L));
    for (long d = 0; d < D && !c->ids; d++) store(s->x + d * L, load(w->x + (d * SPAN + column) * L));
    for (long r = 0; r < R; r++) store(s->qkv_scale + r * L, normalise(s->qkv + r * L, R * L, F));

    memcpy(s->read, m, size * sizeof *m);
    for (long a = 0; a < z->A; a++) {
        scale_head(c, z, s->qkv, a, w->head);
        attend(N, z->K, z->V, w->head, c->mask, s->attention + a * N * R * L, s->read + a * z->V * N * L);
    }
    for (long n = 0; n < N; n++) store(s->read_scale + n * L, normalise(s->read + n * L, N * L, D));

    scale_and_shift(s->read, c->attention_norm, c->attention_norm_bias, D, N, content);
    memcpy(s->out, content, size * sizeof *m);
    const float *in = content;
    for (long i = 0; i < z->layers - 1; i++) {
        float *out = s->hidden + i * size;
        product(D, N, D, c->mlp[2 * i], D, in, N * L, out, N * L, 0, c->mlp[2 * i + 1]);
        for (long k = 0; k < size; k += L) store(out + k, greater(splat(0), load(out + k)));
        in = out;
    }
    product(D, N, D, c->mlp[2 * z->layers - 2], D, in, N * L, s->out, N * L, 1, c->mlp[2 * z->layers - 1]);
    for (long n = 0; n < N; n++) store(s->out_scale + n * L, normalise(s->out + n * L, N * L, D));
    scale_and_shift(s->out, c->mlp_norm, c->mlp_norm_bias, D, N, content);
    if (!G) {
        memcpy(m, content, size * sizeof *m);
        return;
    }

    float *tanh_m = w->tanh_m, *i = s->gates, *f = s->gates + G * N * L;
    for (long k = 0; k < size; k += L) store(tanh_m + k, tanh_(load(m + k)));
    for (long g = 0; g < 2 * G; g++)
        for (long n = 0; n < N; n++) store(s->gates + (g * N + n) * L, load(w->x_gates + (g * SPAN + column) * L));
    product(2 * G, N, D, c->gates, D, tanh_m, N * L, s->gates, N * L, 1, 0);
    for (long k = 0; k < 2 * G * N * L; k += L) store(s->gates + k, sigmoid(load(s->gates + k)));
    for (long d = 0; d < D; d++)
        for (long n = 0; n < N; n++) {
            long k = (d * N + n) * L, g = G == 1 ? n * L : k;
            store(m + k, load(i + g) * tanh_(load(content + k)) + load(f + g) * load(m + k));
        }
}

/* Run a group through the whole sequence. */
static void forward_group(void *context, long group, float *scratch) {
    const struct call *c = context;
    const struct sizes z = sizes_of(c);
    const long N = z.N, D = z.D, b = group * L;
    const int rows = rows_of(&z, group);
    struct work w;
    struct step step;
    lay_out_work(&z, scratch, &w);
    size_t kept = lay_out_step(&z, 0, &step);
    const struct projected p = projected(c, &z, kept);

    for (long n = 0; n < N; n++) to_lanes(c->memory + (b * N + n) * D, N * D, rows, D, w.m + n * L, N * L);
    for (long t = 0; t < z.T; t++) {
        if (t % SPAN == 0) read_inputs(c, &z, t, b, rows, &p, &w);
        reset(c, &z, t, b, rows, w.m);
        lay_out_step(&z, c->saved ? c->saved + (group * z.T + t) * kept : w.step, &step);
        forward_step(c, &z, t % SPAN, &w, &step);
        for (long n = 0; n < N; n++)
            from_lanes(w.m + n * L, N * L, D, c->memories + ((t * z.B + b) * N + n) * D, N * D, rows);
    }
    for (long n = 0; n < N; n++) from_lanes(w.m + n * L, N * L, D, c->last + (b * N + n) * D, N * D, rows);
}

/* Size of `saved` in floats. */
HIDDEN long WITH_LANES(rmc_saved)(const struct call *c) {
    const struct sizes z = sizes_of(c);
    struct step step;
    return z.groups * z.T * lay_out_step(&z, 0, &step) + z.n * (z.D + z.F + 2 * z.G);
}

/* Compute `memories`, `last` and, if not null, `saved`, which ids need. Return 0, or -1 if memory could not be
 * allocated. */
HIDDEN long WITH_LANES(rmc_forward)(const struct call *c) {
    const struct sizes z = sizes_of(c);
    struct work work;
    size_t scratch = lay_out_work(&z, 0, &work) * sizeof(float);
    int failed = run_jobs(project_block, (void *)c, num_blocks(&z), c->threads, scratch);
    return failed ? failed : run_jobs(forward_group, (void *)c, z.groups, c->threads, scratch);
}

EXPORT(rmc_saved)
EXPORT(rmc_forward)
