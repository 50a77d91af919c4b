/* Backward pass of rmc_forward.c, derived by hand: from the last step of a group of L batch rows to the first.
 *
 * Weight gradients are accumulated while their factors are in the nearest caches. Each is a product over the rows
 * of the batch, so one of the factors is converted from lanes to rows.
 *
 * W and WI are D and I in whole vectors; a share is a range of groups.
 */
#include "attention.h"
#include "gradients.h"
#include "rmc.h"

/* Weight gradients that one share accumulates. Matrices have rows padded to whole vectors; everything else is [n]
 * vectors, whose lanes are summed at the end. */
struct sums {
    /* [D,WI] [F,W] [2G,W] [2G,W] [layers,D,W] */
    float *input, *qkv, *input_gates, *gates, *mlp;
    /* [D] [F] [F] [F] [2G] */
    float *input_bias, *qkv_bias, *qkv_norm, *qkv_norm_bias, *gates_bias;
    /* [D] [D] [D] [D] [layers,D] */
    float *attention_norm, *attention_norm_bias, *mlp_norm, *mlp_norm_bias, *mlp_bias;
};

static size_t lay_out_sums(const struct sizes *z, float *base, struct sums *s) {
    size_t at = 0;
    long W = (z->D + L - 1) / L, WI = (z->I + L - 1) / L;
    s->input = allocate(base, &at, z->D * WI);
    s->qkv = allocate(base, &at, z->F * W);
    s->input_gates = allocate(base, &at, 2 * z->G * W);
    s->gates = allocate(base, &at, 2 * z->G * W);
    s->mlp = allocate(base, &at, z->layers * z->D * W);
    s->input_bias = allocate(base, &at, z->D);
    s->qkv_bias = allocate(base, &at, z->F);
    s->qkv_norm = allocate(base, &at, z->F);
    s->qkv_norm_bias = allocate(base, &at, z->F);
    s->gates_bias = allocate(base, &at, 2 * z->G);
    s->attention_norm = allocate(base, &at, z->D);
    s->attention_norm_bias = allocate(base, &at, z->D);
    s->mlp_norm = allocate(base, &at, z->D);
    s->mlp_norm_bias = allocate(base, &at, z->D);
    s->mlp_bias = allocate(base, &at, z->layers * z->D);
    return at;
}

/* Scratch memory of a share. */
struct work {
    float *dm, *m, *tanh_m, *d, *d_hidden, *d_next, *rows; /* [D,N] */
    float *m_rows, *other_rows;                            /* [N L,W], one row of the batch in each */
    float *d_gates, *head, *d_qkv, *d_logits;              /* [2G,N] [2K + V,R] [F,R] [N,R] */
    float *x, *dx, *d_x_qkv, *d_x_gates, *d_inputs;        /* [D,SPAN] [D,SPAN] [F,SPAN] [2G,SPAN] [I,SPAN] */
    float *x_rows, *input_rows;                            /* [SPAN L,W] [SPAN L,WI] */
    float *sums;                                           /* SPAN L rows of F + 2G floats */
};

static size_t lay_out_work(const struct sizes *z, float *base, struct work *w) {
    size_t at = 0;
    long W = (z->D + L - 1) / L, WI = (z->I + L - 1) / L, DN = z->D * z->N;
    float **DNs[] = {&w->dm, &w->m, &w->tanh_m, &w->d, &w->d_hidden, &w->d_next, &w->rows};
    for (size_t i = 0; i < sizeof DNs / sizeof *DNs; i++) *DNs[i] = allocate(base, &at, DN);
    w->m_rows = allocate(base, &at, z->N * L * W);
    w->other_rows = allocate(base, &at, z->N * L * W);
    w->d_gates = allocate(base, &at, 2 * z->G * z->N);
    w->head = allocate(base, &at, z->head * z->R);
    w->d_qkv = allocate(base, &at, z->F * z->R);
    w->d_logits = allocate(base, &at, z->N * z->R);
    w->x = allocate(base, &at, z->D * SPAN);
    w->dx = allocate(base, &at, z->D * SPAN);
    w->d_x_qkv = allocate(base, &at, z->F * SPAN);
    w->d_x_gates = allocate(base, &at, 2 * z->G * SPAN);
    w->d_inputs = allocate(base, &at, z->I * SPAN);
    w->x_rows = allocate(base, &at, SPAN * L * W);
    w->input_rows = allocate(base, &at, SPAN * L * WI);
    w->sums = allocate(base, &at, z->n ? SPAN * (z->F + 2 * z->G) : 0);
    return at;
}

/* A backward pass: its call, its sums and the transposed weights. */
struct pass {
    const struct call *c;
    struct sizes z;
    long width, input_width; /* D and I padded to whole vectors */
    long shares;
    size_t sums_size;
    float *sums;
    float *input_t, *qkv_t, *input_gates_t, *gates_t, *mlp_t;
    float *d_projected; /* [T,B,F + 2G] gradients of projections that were read by id */
};

/* The backward pass of one group. */
struct group {
    const struct pass *p;
    const struct call *c;
    const struct sizes *z;
    const struct sums *sums;
    const struct work *w;
    long number, b;
    int rows;
};

/* Gradient of a norm's result -> gradient of its input, in place; those of weight and bias are added by lane. */
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

/* Load the memory before step t, after resets, as rows and as lanes. */
static void load_memory(const struct group *g, long t) {
    const struct call *c = g->c;
    const long N = g->z->N, D = g->z->D, B = g->z->B, width = g->p->width;
    const float *memory = t ? c->memories + (t - 1) * B * N * D : c->memory;
    for (long l = 0; l < L; l++) {
        int fresh = l < g->rows && c->starts && c->starts[t * B + g->b + l];
        for (long n = 0; n < N; n++) {
            float *row = g->w->m_rows + (n * L + l) * width;
            if (l < g->rows)
                memcpy(row, fresh ? c->fresh + n * D : memory + ((g->b + l) * N + n) * D, D * sizeof *row);
            else
                memset(row, 0, D * sizeof *row);
        }
    }
    for (long n = 0; n < N; n++) to_lanes(g->w->m_rows + n * L * width, width, L, D, g->w->m + n * L, N * L);
}

/* Gradient of M' in `dm` -> gradient of M~ in `d`, and of M through the gates alone in `dm`. */
static void gates_backward(const struct group *g, const struct step *s, long column) {
    const struct work *w = g->w;
    const long N = g->z->N, D = g->z->D, G = g->z->G, size = D * N * L;
    const float *i = s->gates, *f = s->gates + G * N * L;
    float *di = w->d_gates, *df = w->d_gates + G * N * L;

    scale_and_shift(s->out, g->c->mlp_norm, g->c->mlp_norm_bias, D, N, w->d);
    if (G == 1) memset(w->d_gates, 0, 2 * N * L * sizeof *di);
    for (long d = 0; d < D; d++)
        for (long n = 0; n < N; n++) {
            long k = (d * N + n) * L, at = G == 1 ? n * L : k;
            vf dm = load(w->dm + k), content = tanh_(load(w->d + k)), m = load(w->m + k);
            vf in = load(i + at), kept = load(f + at);
            vf d_in = dm * content * in * (1.0f - in), d_kept = dm * m * kept * (1.0f - kept);
            if (G == 1) d_in += load(di + at), d_kept += load(df + at);
            store(di + at, d_in);
            store(df + at, d_kept);
            store(w->d + k, dm * in * (1.0f - content * content));
            store(w->dm + k, dm * kept);
            store(w->tanh_m + k, tanh_(m));
        }
    for (long k = 0; k < 2 * G; k++) {
        vf sum = {0};
        for (long n = 0; n < N; n++) sum += load(w->d_gates + (k * N + n) * L);
        store(w->d_x_gates + (k * SPAN + column) * L, sum);
    }
    to_rows(w->tanh_m, N * L, D, N, w->other_rows, g->p->width);
    add_weight(w->d_gates, N * L, 2 * G, N, w->other_rows, g->p->width, g->sums->gates);
    product(D, N, 2 * G, g->p->gates_t, 2 * G, w->d_gates, N * L, w->d_next, N * L, 0, 0);
    for (long k = 0; k < size; k += L) {
        vf tanh_m = load(w->tanh_m + k);
        store(w->dm + k, load(w->dm + k) + load(w->d_next + k) * (1.0f - tanh_m * tanh_m));
    }
}

/* Gradient of M~ -> gradient of the attention's residual sum, both in `d`. */
static void mlp_backward(const struct group *g, const struct step *s) {
    const struct call *c = g->c;
    const struct work *w = g->w;
    const struct sums *sums = g->sums;
    const long N = g->z->N, D = g->z->D, size = D * N * L, width = g->p->width;
    float *d = w->d_hidden, *next = w->d_next;

    for (long n = 0; n < N; n++)
        normalise_backward(w->d + n * L, N * L, s->out + n * L, N * L, D, load(s->out_scale + n * L), c->mlp_norm,
                           sums->mlp_norm, sums->mlp_norm_bias);
    memcpy(d, w->d, size * sizeof *d);
    scale_and_shift(s->read, c->attention_norm, c->attention_norm_bias, D, N, w->rows);
    for (long i = g->z->layers - 1; i >= 0; i--) {
        const float *in = i ? s->hidden + (i - 1) * size : w->rows, *weight_t = g->p->mlp_t + i * D * D;
        add_bias(d, N * L, D, N, sums->mlp_bias + i * D * L);
        to_rows(in, N * L, D, N, w->other_rows, width);
        add_weight(d, N * L, D, N, w->other_rows, width, sums->mlp + i * D * width);
        if (i == 0) { /* the residual connection joins here */
            product(D, N, D, weight_t, D, d, N * L, w->d, N * L, 1, 0);
            break;
        }
        product(D, N, D, weight_t, D, d, N * L, next, N * L, 0, 0);
        for (long k = 0; k < size; k += L) store(next + k, pick(load(in + k) <= 0.0f, splat(0), load(next + k)));
        float *swap = d;
        d = next, next = swap;
    }
    for (long n = 0; n < N; n++)
        normalise_backward(w->d + n * L, N * L, s->read + n * L, N * L, D, load(s->read_scale + n * L),
                           c->attention_norm, sums->attention_norm, sums->attention_norm_bias);
}

/* Gradient of the attention's residual sum, in `d` -> gradient of the memory, added to `dm`. */
static void read_backward(const struct group *g, const struct step *s, long column) {
    const struct call *c = g->c;
    const struct work *w = g->w;
    const struct sums *sums = g->sums;
    const long N = g->z->N, R = g->z->R, D = g->z->D, F = g->z->F, V = g->z->V;

    for (long a = 0; a < g->z->A; a++) {
        scale_head(c, g->z, s->qkv, a, w->head);
        attend_backward(N, g->z->K, V, w->head, s->attention + a * N * R * L, w->d + a * V * N * L, w->d_logits,
                        w->d_qkv + a * g->z->head * R * L);
    }
    for (long r = 0; r < R; r++)
        normalise_backward(w->d_qkv + r * L, R * L, s->qkv + r * L, R * L, F, load(s->qkv_scale + r * L), c->qkv_norm,
                           sums->qkv_norm, sums->qkv_norm_bias);
    for (long f = 0; f < F; f++) store(w->d_x_qkv + (f * SPAN + column) * L, load(w->d_qkv + (f * R + N) * L));
    for (long d = 0; d < D && !c->ids; d++) store(w->x + (d * SPAN + column) * L, load(s->x + d * L));
    add_bias(w->d_qkv, R * L, F, R, sums->qkv_bias);
    add_weight(w->d_qkv, R * L, F, N, w->m_rows, g->p->width, sums->qkv);
    for (long k = 0; k < D * N * L; k += L) store(w->dm + k, load(w->dm + k) + load(w->d + k));
    product(D, N, F, g->p->qkv_t, F, w->d_qkv, R * L, w->dm, N * L, 1, 0);
}

/* Gradients of the projections of up to SPAN columns of inputs -> gradients of weights, and of the inputs in lanes.
 * `x_rows` and `input_rows` hold the rows and the inputs. */
static void project_backward(const struct pass *p, const struct sums *sums, const struct work *w, long columns) {
    const struct sizes *z = &p->z;
    const long S = SPAN * L, D = z->D, F = z->F, G2 = 2 * z->G;
    add_weight(w->d_x_qkv, S, F, columns, w->x_rows, p->width, sums->qkv);
    add_weight(w->d_x_gates, S, G2, columns, w->x_rows, p->width, sums->input_gates);
    add_bias(w->d_x_gates, S, G2, columns, sums->gates_bias);
    product(D, columns, F, p->qkv_t, F, w->d_x_qkv, S, w->dx, S, 0, 0);
    product(D, columns, G2, p->input_gates_t, G2, w->d_x_gates, S, w->dx, S, 1, 0);
    add_weight(w->dx, S, D, columns, w->input_rows, p->input_width, sums->input);
    add_bias(w->dx, S, D, columns, sums->input_bias);
    if (p->c->d_inputs) product(z->I, columns, D, p->input_t, D, w->dx, S, w->d_inputs, S, 0, 0);
}

/* Pass back the gradients of the projections of the SPAN steps from t on, or store them until all are known. */
static void inputs_backward(const struct group *g, long t) {
    const struct call *c = g->c;
    const struct pass *p = g->p;
    const struct work *w = g->w;
    const long S = SPAN * L, B = g->z->B, I = g->z->I, F = g->z->F, G2 = 2 * g->z->G;
    const long steps = g->z->T - t < SPAN ? g->z->T - t : SPAN;
    if (c->ids) {
        for (long k = 0; k < steps; k++) {
            float *to = p->d_projected + ((t + k) * B + g->b) * (F + G2);
            from_lanes(w->d_x_qkv + k * L, S, F, to, F + G2, g->rows);
            from_lanes(w->d_x_gates + k * L, S, G2, to + F, F + G2, g->rows);
        }
        return;
    }
    to_rows(w->x, S, g->z->D, steps, w->x_rows, p->width);
    for (long k = 0; k < steps; k++)
        copy_rows(c->inputs + ((t + k) * B + g->b) * I, I, g->rows, w->input_rows + k * L * p->input_width,
                  p->input_width);
    project_backward(p, g->sums, w, steps);
    for (long k = 0; k < steps && c->d_inputs; k++)
        from_lanes(w->d_inputs + k * L, S, I, c->d_inputs + ((t + k) * B + g->b) * I, I, g->rows);
}

/* Add up the gradients of a block of projections that were read by id, and pass them back. */
static void block_backward(const struct pass *p, const struct sums *sums, const struct work *w, long block) {
    const struct call *c = p->c;
    const struct sizes *z = &p->z;
    const long S = SPAN * L, I = z->I, D = z->D, F = z->F, G2 = 2 * z->G, first = block * S;
    struct step step;
    const struct projected projections = projected(c, z, lay_out_step(z, 0, &step));
    long columns = 0;
    sum_rows(p->d_projected, c->ids, z->T * z->B, F + G2, first, z->n - first < S ? z->n - first : S, w->sums);
    for (int rows; columns < SPAN && (rows = rows_in(z, block, columns)) > 0; columns++) {
        const float *from = w->sums + columns * L * (F + G2);
        const long row = first + columns * L;
        to_lanes(from, F + G2, rows, F, w->d_x_qkv + columns * L, S);
        to_lanes(from + F, F + G2, rows, G2, w->d_x_gates + columns * L, S);
        copy_rows(projections.x + row * D, D, rows, w->x_rows + columns * L * p->width, p->width);
        copy_rows(c->inputs + row * I, I, rows, w->input_rows + columns * L * p->input_width, p->input_width);
    }
    project_backward(p, sums, w, columns);
    for (long k = 0; k < columns && c->d_inputs; k++)
        from_lanes(w->d_inputs + k * L, S, I, c->d_inputs + (first + k * L) * I, I, rows_in(z, block, k));
}

/* dm += the gradient `d` of the memories [B,N,D] that the caller passed; null for none. */
static void add_external(const struct group *g, const float *d) {
    const long N = g->z->N, D = g->z->D;
    if (!d) return;
    for (long n = 0; n < N; n++)
        to_lanes(d + (g->b * N + n) * D, N * D, g->rows, D, g->w->d + n * L, N * L);
    for (long k = 0; k < D * N * L; k += L) store(g->w->dm + k, load(g->w->dm + k) + load(g->w->d + k));
}

/* Run a group back through the whole sequence. */
static void backward_group(const struct group *g) {
    const struct call *c = g->c;
    const struct work *w = g->w;
    const long N = g->z->N, D = g->z->D, size = D * N * L, T = g->z->T;
    struct step s;
    size_t kept = lay_out_step(g->z, 0, &s);

    memset(w->dm, 0, size * sizeof *w->dm);
    add_external(g, c->d_last);
    for (long t = T - 1; t >= 0; t--) {
        lay_out_step(g->z, c->saved + (g->number * T + t) * kept, &s);
        add_external(g, c->d_memories ? c->d_memories + t * g->z->B * N * D : 0);
        load_memory(g, t);
        if (g->z->G) {
            gates_backward(g, &s, t % SPAN);
        } else {
            memcpy(w->d, w->dm, size * sizeof *w->d);
            memset(w->dm, 0, size * sizeof *w->dm);
        }
        mlp_backward(g, &s);
        read_backward(g, &s, t % SPAN);
        vi start;
        /* Select instead of multiplying by zero: a gradient that a reset cuts off may not be finite. */
        if (lane_mask(starts_at(c, t, g->b), g->rows, &start))
            for (long k = 0; k < size; k += L) store(w->dm + k, pick(start, splat(0), load(w->dm + k)));
        if (t % SPAN == 0) inputs_backward(g, t);
    }
    for (long n = 0; n < N; n++) from_lanes(w->dm + n * L, N * L, D, c->d_memory + (g->b * N + n) * D, N * D, g->rows);
}

/* Lay out a share's sums and its scratch memory. */
static void prepare_share(const struct pass *p, long share, float *scratch, struct sums *sums, struct work *work) {
    memset(scratch, 0, lay_out_work(&p->z, scratch, work) * sizeof *scratch); /* the padding of rows stays zero */
    lay_out_sums(&p->z, p->sums + share * p->sums_size, sums);
}

static void backward_share(void *context, long share, float *scratch) {
    const struct pass *p = context;
    struct sums sums;
    struct work work;
    prepare_share(p, share, scratch, &sums, &work);
    for (long n = p->z.groups * share / p->shares; n < p->z.groups * (share + 1) / p->shares; n++)
        backward_group(&(struct group){p, p->c, &p->z, &sums, &work, n, n * L, rows_of(&p->z, n)});
}

static void inputs_share(void *context, long share, float *scratch) {
    const struct pass *p = context;
    const long blocks = num_blocks(&p->z);
    struct sums sums;
    struct work work;
    prepare_share(p, share, scratch, &sums, &work);
    for (long block = blocks * share / p->shares; block < blocks * (share + 1) / p->shares; block++)
        block_backward(p, &sums, &work, block);
}

/* Add the sums of all shares and copy them to the tensors. */
static void copy_sums(const struct pass *p) {
    const struct call *c = p->c;
    const struct sizes *z = &p->z;
    struct sums s;
    lay_out_sums(z, p->sums, &s);
    add_shares(p->sums, p->sums_size, p->shares);
    copy_matrix(s.input, z->D, z->I, c->d_input);
    copy_matrix(s.qkv, z->F, z->D, c->d_qkv);
    copy_matrix(s.input_gates, 2 * z->G, z->D, c->d_input_gates);
    copy_matrix(s.gates, 2 * z->G, z->D, c->d_gates);
    copy_vector(s.input_bias, z->D, c->d_input_bias);
    copy_vector(s.qkv_bias, z->F, c->d_qkv_bias);
    copy_vector(s.qkv_norm, z->F, c->d_qkv_norm);
    copy_vector(s.qkv_norm_bias, z->F, c->d_qkv_norm_bias);
    copy_vector(s.gates_bias, 2 * z->G, c->d_input_gates_bias);
    copy_vector(s.gates_bias, 2 * z->G, c->d_gates_bias);
    copy_vector(s.attention_norm, z->D, c->d_attention_norm);
    copy_vector(s.attention_norm_bias, z->D, c->d_attention_norm_bias);
    copy_vector(s.mlp_norm, z->D, c->d_mlp_norm);
    copy_vector(s.mlp_norm_bias, z->D, c->d_mlp_norm_bias);
    for (long i = 0; i < z->layers; i++) {
        copy_matrix(s.mlp + i * z->D * p->width, z->D, z->D, c->d_mlp[2 * i]);
        copy_vector(s.mlp_bias + i * z->D * L, z->D, c->d_mlp[2 * i + 1]);
    }
}

/* Compute all gradients from `saved`. Return 0, or -1 if memory could not be allocated. */
HIDDEN long WITH_LANES(rmc_backward)(const struct call *c) {
    struct pass p = {.c = c, .z = sizes_of(c)};
    const struct sizes *z = &p.z;
    struct sums sums;
    struct work work;
    p.width = (z->D + L - 1) / L * L;
    p.input_width = (z->I + L - 1) / L * L;
    p.shares = z->groups < MAX_SHARES ? z->groups : MAX_SHARES;
    p.sums_size = lay_out_sums(z, 0, &sums);
    size_t all_sums = p.shares * p.sums_size, weights = z->D * (z->I + z->F + 4 * z->G + z->layers * z->D);
    size_t passed = c->ids ? z->T * z->B * (z->F + 2 * z->G) : 0;
    p.sums = aligned_alloc(64, ((all_sums + weights + passed) * sizeof(float) + 63) / 64 * 64);
    if (!p.sums) return -1;
    memset(p.sums, 0, all_sums * sizeof(float));
    p.input_t = p.sums + all_sums;
    p.qkv_t = p.input_t + z->D * z->I;
    p.input_gates_t = p.qkv_t + z->D * z->F;
    p.gates_t = p.input_gates_t + z->D * 2 * z->G;
    p.mlp_t = p.gates_t + z->D * 2 * z->G;
    p.d_projected = p.mlp_t + z->layers * z->D * z->D;
    transposed(c->input, z->D, z->I, p.input_t);
    transposed(c->qkv, z->F, z->D, p.qkv_t);
    transposed(c->input_gates, 2 * z->G, z->D, p.input_gates_t);
    transposed(c->gates, 2 * z->G, z->D, p.gates_t);
    for (long i = 0; i < z->layers; i++) transposed(c->mlp[2 * i], z->D, z->D, p.mlp_t + i * z->D * z->D);

    unsigned before = flush_denormals();
    size_t scratch = lay_out_work(z, 0, &work) * sizeof(float);
    int failed = run_jobs(backward_share, &p, p.shares, c->threads, scratch);
    if (!failed && c->ids) failed = run_jobs(inputs_share, &p, p.shares, c->threads, scratch);
    if (!failed) copy_sums(&p);
    restore_denormals(before);
    free(p.sums);
    return failed;
}

EXPORT(rmc_backward)
