/* Forward and backward pass of an Elman RNN, an LSTM, a GRU or a minGRU over a whole sequence.
 *
 * It computes what `recur` in cores/gated.py and mingru.py does. The gates of a minGRU do not read its state. A group is L rows of the batch, held in the lanes of vectors; it
 * runs through all time steps. The groups are the jobs of the threads.
 *
 * Axes: T time, B batch, I input size, H hidden size, W = H times the number of gates, n inputs that are read by
 * id. Within a group, [k] is k vectors.
 */
#include "gradients.h"
#include "parallel.h"

#define SPAN 4 /* number of steps whose inputs are projected, and whose weight gradients are taken, in one product */

enum kind { RNN, LSTM, GRU, MINGRU };

/* The fields of `_Call` in gated_native.py, in the same order. Tensors are contiguous. */
struct call {
    long kind, T, B, I, H, n, threads, lanes;
    const float *inputs, *h, *c;                        /* [T,B,I], or [n,I] with ids; [B,H] [B,H]; `c`
                                                         * is null except for an LSTM */
    const unsigned char *starts;                        /* [T,B] or null */
    const float *input, *input_bias, *hidden;           /* [W,I] [W] [W,H]; `hidden` is null for a minGRU */
    const float *hidden_bias;                           /* [W]; null except for a GRU */
    const int *ids;                                     /* [T,B] the row of the n inputs that is read; or null */
    float *outputs, *last_h, *last_c, *saved;           /* [T,B,H] [B,H] [B,H]; `saved`: `gated_saved` floats, or null */
    const float *d_outputs, *d_last_h, *d_last_c;       /* each may be null */
    float *d_inputs, *d_h, *d_c;                        /* d_inputs may be null */
    float *d_input, *d_input_bias, *d_hidden, *d_hidden_bias;
};

static const long NUM_GATES[] = {[RNN] = 1, [LSTM] = 4, [GRU] = 3, [MINGRU] = 2};

static long width(const struct call *c) { return NUM_GATES[c->kind] * c->H; }
static long groups(const struct call *c) { return (c->B + L - 1) / L; }
static long padded(long n) { return (n + L - 1) / L * L; }
static int rows_of(const struct call *c, long b) { return c->B - b < L ? (int)(c->B - b) : L; }
static long num_blocks(const struct call *c) { return c->ids ? (c->n + SPAN * L - 1) / (SPAN * L) : 0; }
/* Number of rows of column `column` of a block of the n inputs; 0 or less after the last. */
static int rows_in(const struct call *c, long block, long column) {
    long left = c->n - (block * SPAN + column) * L;
    return left < L ? (int)left : L;
}
static long span(const struct call *c, long t) { return c->T - t < SPAN ? c->T - t : SPAN; }
static const unsigned char *starts_at(const struct call *c, long t, long b) {
    return c->starts ? c->starts + t * c->B + b : 0;
}

/* Results of a step that the backward pass needs. */
struct step {
    float *gates; /* [W] after the sigmoid or tanh: RNN h; LSTM i, f, g, o; GRU r, z, n; minGRU z, c */
    float *extra; /* [H] LSTM: the new c; GRU: U_n h + b_n */
};

static size_t lay_out_step(const struct call *c, float *base, struct step *s) {
    size_t at = 0;
    s->gates = allocate(base, &at, width(c));
    s->extra = allocate(base, &at, c->kind == LSTM || c->kind == GRU ? c->H : 0);
    return at;
}

/* Size of the results of a step in `saved`. The gates of a minGRU follow from projections that are kept. */
static size_t kept_size(const struct call *c) {
    struct step s;
    return c->kind == MINGRU && c->ids ? 0 : lay_out_step(c, 0, &s);
}

/* Projections [n,W] of inputs that are read by id. They follow the results of all steps in `saved`. */
static float *projected(const struct call *c) { return c->saved + groups(c) * c->T * kept_size(c); }

/* Set x [n] to zero in the lanes that start an episode. */
static void reset(const unsigned char *starts, int rows, float *x, long n) {
    vi start;
    if (!x || !lane_mask(starts, rows, &start)) return;
    for (long i = 0; i < n; i++) store(x + i * L, pick(start, splat(0), load(x + i * L)));
}

/* Scratch memory of a group in the forward pass. */
struct forward_work {
    float *h, *c, *inputs, *x_gates; /* [H] [H] [I,SPAN] [W,SPAN] */
    float *step;                     /* results of a step that are not kept */
};

static size_t lay_out_forward(const struct call *c, float *base, struct forward_work *w) {
    struct step step;
    size_t at = 0;
    w->h = allocate(base, &at, c->H);
    w->c = allocate(base, &at, c->H);
    w->inputs = allocate(base, &at, c->I * SPAN);
    w->x_gates = allocate(base, &at, width(c) * SPAN);
    w->step = allocate(base, &at, lay_out_step(c, 0, &step) / L);
    return at;
}

/* Gates and candidates of a minGRU, in the place of the projected input. */
static void activate(float *gates, long size) {
    for (long k = 0; k < size; k += L) {
        vf x = load(gates + size + k), z = load(gates + k);
        z = pick(z < -87.0f, splat(0), sigmoid(z)); /* candidates are not bounded: 0, where sigmoid clamps */
        store(gates + k, z);
        store(gates + size + k, pick(x >= 0, x + 0.5f, sigmoid(x)));
    }
}

/* Advance `h` and `cell` by one step, in place. The gates hold the projected input and are overwritten. */
static void forward_step(const struct call *c, const struct step *s, float *h, float *cell) {
    const long H = c->H, size = H * L;
    float *gates = s->gates, *extra = s->extra;
    switch (c->kind) {
    case RNN:
        product(H, 1, H, c->hidden, H, h, L, gates, L, 1, 0);
        for (long k = 0; k < size; k += L) {
            vf new = tanh_(load(gates + k));
            store(gates + k, new);
            store(h + k, new);
        }
        break;
    case LSTM:
        product(4 * H, 1, H, c->hidden, H, h, L, gates, L, 1, 0);
        for (long k = 0; k < size; k += L) {
            vf i = sigmoid(load(gates + k)), f = sigmoid(load(gates + size + k));
            vf g = tanh_(load(gates + 2 * size + k)), o = sigmoid(load(gates + 3 * size + k));
            vf new = f * load(cell + k) + i * g;
            store(gates + k, i), store(gates + size + k, f), store(gates + 2 * size + k, g);
            store(gates + 3 * size + k, o), store(extra + k, new);
            store(cell + k, new);
            store(h + k, o * tanh_(new));
        }
        break;
    case MINGRU:
        activate(gates, size);
        for (long k = 0; k < size; k += L) {
            vf z = load(gates + k);
            store(h + k, (1.0f - z) * load(h + k) + z * load(gates + size + k));
        }
        break;
    default:
        product(2 * H, 1, H, c->hidden, H, h, L, gates, L, 1, c->hidden_bias);
        product(H, 1, H, c->hidden + 2 * H * H, H, h, L, extra, L, 0, c->hidden_bias + 2 * H);
        for (long k = 0; k < size; k += L) {
            vf r = sigmoid(load(gates + k)), z = sigmoid(load(gates + size + k));
            vf n = tanh_(load(gates + 2 * size + k) + r * load(extra + k));
            store(gates + k, r), store(gates + size + k, z), store(gates + 2 * size + k, n);
            store(h + k, n + z * (load(h + k) - n));
        }
    }
}

/* Project a block of the inputs that are read by id, each once. */
static void project_block(void *context, long block, float *scratch) {
    const struct call *c = context;
    const long W = width(c), S = SPAN * L, first = block * S;
    struct forward_work w;
    long columns = 0;
    lay_out_forward(c, scratch, &w);
    for (; columns < SPAN && rows_in(c, block, columns) > 0; columns++)
        to_lanes(c->inputs + (first + columns * L) * c->I, c->I, rows_in(c, block, columns), c->I,
                 w.inputs + columns * L, S);
    product(W, columns, c->I, c->input, c->I, w.inputs, S, w.x_gates, S, 0, c->input_bias);
    for (long k = 0; k < columns; k++)
        from_lanes(w.x_gates + k * L, S, W, projected(c) + (first + k * L) * W, W, rows_in(c, block, k));
}

/* Project the inputs of the SPAN steps from t on, or read their projections. */
static void read_inputs(const struct call *c, long t, long b, int rows, const struct forward_work *w) {
    const long W = width(c), S = SPAN * L, steps = span(c, t);
    for (long k = 0; k < steps; k++) {
        const long at = (t + k) * c->B + b;
        if (c->ids) gather_lanes(projected(c), c->ids + at, rows, W, w->x_gates + k * L, S);
        else to_lanes(c->inputs + at * c->I, c->I, rows, c->I, w->inputs + k * L, S);
    }
    if (!c->ids) product(W, steps, c->I, c->input, c->I, w->inputs, S, w->x_gates, S, 0, c->input_bias);
}

/* Run a group through the whole sequence. */
static void forward_group(void *context, long group, float *scratch) {
    const struct call *c = context;
    const long b = group * L, H = c->H, W = width(c);
    const int rows = rows_of(c, b);
    struct forward_work w;
    struct step s;
    lay_out_forward(c, scratch, &w);
    const size_t kept = kept_size(c);

    to_lanes(c->h + b * H, H, rows, H, w.h, L);
    if (c->c) to_lanes(c->c + b * H, H, rows, H, w.c, L);
    for (long t = 0; t < c->T; t++) {
        long column = t % SPAN;
        if (column == 0) read_inputs(c, t, b, rows, &w);
        reset(starts_at(c, t, b), rows, w.h, H);
        if (c->c) reset(starts_at(c, t, b), rows, w.c, H);
        lay_out_step(c, c->saved && kept ? c->saved + (group * c->T + t) * kept : w.step, &s);
        for (long k = 0; k < W; k++) store(s.gates + k * L, load(w.x_gates + (k * SPAN + column) * L));
        forward_step(c, &s, w.h, w.c);
        from_lanes(w.h, L, H, c->outputs + (t * c->B + b) * H, H, rows);
    }
    from_lanes(w.h, L, H, c->last_h + b * H, H, rows);
    if (c->c) from_lanes(w.c, L, H, c->last_c + b * H, H, rows);
}

/* Weight gradients that one share, a range of groups, accumulates; as in rmc_backward.c. */
struct sums {
    float *input, *hidden, *input_bias, *hidden_bias; /* [W,I] [W,H], rows padded; [W] [W] */
};

static size_t lay_out_sums(const struct call *c, float *base, struct sums *s) {
    size_t at = 0;
    s->input = allocate(base, &at, width(c) * padded(c->I) / L);
    s->hidden = allocate(base, &at, c->hidden ? width(c) * padded(c->H) / L : 0);
    s->input_bias = allocate(base, &at, width(c));
    s->hidden_bias = allocate(base, &at, c->kind == GRU ? width(c) : 0);
    return at;
}

/* Scratch memory of a share in the backward pass. */
struct backward_work {
    float *dh, *dc, *c, *outside;  /* [H] */
    float *d_x, *d_hidden;         /* [W,SPAN] gradients of the gate terms of x and of h, which differ only in a GRU */
    float *d_inputs;               /* [I,SPAN] */
    float *input_rows, *h_rows;    /* [SPAN L] padded rows */
    float *sums;                   /* [SPAN L] rows of W floats */
    float *step;                   /* results of a step that were not kept */
};

static size_t lay_out_backward(const struct call *c, float *base, struct backward_work *w) {
    size_t at = 0;
    w->dh = allocate(base, &at, c->H);
    w->dc = allocate(base, &at, c->H);
    w->c = allocate(base, &at, c->H);
    w->outside = allocate(base, &at, c->H);
    w->d_x = allocate(base, &at, width(c) * SPAN);
    w->d_hidden = c->kind == GRU ? allocate(base, &at, width(c) * SPAN) : w->d_x;
    w->d_inputs = allocate(base, &at, c->I * SPAN);
    w->input_rows = allocate(base, &at, SPAN * padded(c->I));
    w->h_rows = allocate(base, &at, SPAN * padded(c->H));
    w->sums = allocate(base, &at, c->ids ? SPAN * width(c) : 0);
    struct step step;
    w->step = allocate(base, &at, kept_size(c) ? 0 : lay_out_step(c, 0, &step) / L);
    return at;
}

/* A backward pass: its call, its sums and the transposed weights. */
struct pass {
    const struct call *c;
    long shares;
    size_t sums_size;
    float *sums, *input_t, *hidden_t;
    float *d_projected; /* gradients of projections that were read by id: [T,B,W], or, if `added`, [shares,n,W] */
    int added;          /* whether each share adds them up: for a minGRU whose inputs are few */
};

/* The output before step t, [B,H], before resets. */
static const float *h_before(const struct call *c, long t) { return t ? c->outputs + (t - 1) * c->B * c->H : c->h; }

/* Gradients of the output in `dh` and of the cell in `dc` -> gradients of the gates in column `column`. `dc` becomes
 * the gradient of the previous cell, and `dh` that of the previous output where it does not pass through the gates. */
static void backward_step(const struct call *c, const struct step *s, long column, const struct backward_work *w) {
    const long H = c->H, size = H * L;
    const float *gates = s->gates, *extra = s->extra;
    float *d_x = w->d_x + column * L, *d_hidden = w->d_hidden + column * L;
    for (long k = 0, to = 0; k < size; k += L, to += SPAN * L) {
        vf dh = load(w->dh + k);
        if (c->kind == RNN) {
            vf h = load(gates + k);
            store(d_x + to, dh * (1.0f - h * h));
            store(w->dh + k, splat(0));
        } else if (c->kind == LSTM) {
            vf i = load(gates + k), f = load(gates + size + k), g = load(gates + 2 * size + k);
            vf o = load(gates + 3 * size + k), tanh_c = tanh_(load(extra + k));
            vf dc = load(w->dc + k) + dh * o * (1.0f - tanh_c * tanh_c);
            store(d_x + to, dc * g * i * (1.0f - i));
            store(d_x + SPAN * size + to, dc * load(w->c + k) * f * (1.0f - f));
            store(d_x + 2 * SPAN * size + to, dc * i * (1.0f - g * g));
            store(d_x + 3 * SPAN * size + to, dh * tanh_c * o * (1.0f - o));
            store(w->dc + k, dc * f);
            store(w->dh + k, splat(0));
        } else if (c->kind == MINGRU) {
            vf z = load(gates + k), n = load(gates + size + k);
            vf slope = pick(n >= 0.5f, splat(1), n * (1.0f - n)); /* n is a sigmoid below 1/2, and linear above */
            store(d_x + to, dh * (n - load(w->c + k)) * z * (1.0f - z)); /* `c` holds the previous h */
            store(d_x + SPAN * size + to, dh * z * slope);
            store(w->dh + k, dh * (1.0f - z));
        } else {
            vf r = load(gates + k), z = load(gates + size + k), n = load(gates + 2 * size + k);
            vf dn = dh * (1.0f - z) * (1.0f - n * n), dr = dn * load(extra + k) * r * (1.0f - r);
            vf dz = dh * (load(w->c + k) - n) * z * (1.0f - z); /* `c` holds the previous h */
            store(d_x + to, dr), store(d_hidden + to, dr);
            store(d_x + SPAN * size + to, dz), store(d_hidden + SPAN * size + to, dz);
            store(d_x + 2 * SPAN * size + to, dn), store(d_hidden + 2 * SPAN * size + to, dn * r);
            store(w->dh + k, dh * z);
        }
    }
}

/* Gradients `d_x` of the projections of up to SPAN columns of inputs, which `input_rows` holds -> gradients of the
 * weights, and of the inputs in lanes. */
static void project_backward(const struct pass *p, const struct sums *sums, const struct backward_work *w,
                             long columns) {
    const long S = SPAN * L, W = width(p->c), I = p->c->I;
    add_weight(w->d_x, S, W, columns, w->input_rows, padded(I), sums->input);
    add_bias(w->d_x, S, W, columns, sums->input_bias);
    if (p->c->d_inputs) product(I, columns, W, p->input_t, W, w->d_x, S, w->d_inputs, S, 0, 0);
}

/* Add the weight gradients of the SPAN steps from t on. Pass back the gradients of the projections of their inputs,
 * or store them until all are known. */
static void steps_backward(const struct pass *p, const struct sums *sums, long share, long t, long b, int rows,
                           const struct backward_work *w) {
    const struct call *c = p->c;
    const long S = SPAN * L, W = width(c), H = c->H, I = c->I, steps = span(c, t);
    for (long k = 0; k < steps && c->hidden; k++) {
        float *h_rows = w->h_rows + k * L * padded(H);
        const unsigned char *starts = starts_at(c, t + k, b);
        copy_rows(h_before(c, t + k) + b * H, H, rows, h_rows, padded(H));
        for (int l = 0; starts && l < rows; l++)
            if (starts[l]) memset(h_rows + l * padded(H), 0, H * sizeof *h_rows);
    }
    if (c->hidden) add_weight(w->d_hidden, S, W, steps, w->h_rows, padded(H), sums->hidden);
    if (c->kind == GRU) add_bias(w->d_hidden, S, W, steps, sums->hidden_bias);
    for (long k = 0; k < steps; k++) {
        const long at = (t + k) * c->B + b;
        if (p->added) {
            from_lanes(w->d_x + k * L, S, W, w->sums, W, rows);
            add_rows(w->sums, c->ids + at, rows, W, p->d_projected + share * c->n * W);
        } else if (c->ids) from_lanes(w->d_x + k * L, S, W, p->d_projected + at * W, W, rows);
        else copy_rows(c->inputs + at * I, I, rows, w->input_rows + k * L * padded(I), padded(I));
    }
    if (c->ids) return;
    project_backward(p, sums, w, steps);
    for (long k = 0; k < steps && c->d_inputs; k++)
        from_lanes(w->d_inputs + k * L, S, I, c->d_inputs + ((t + k) * c->B + b) * I, I, rows);
}

/* Add up the gradients of a block of projections that were read by id, and pass them back. */
static void block_backward(const struct pass *p, const struct sums *sums, const struct backward_work *w, long block) {
    const struct call *c = p->c;
    const long S = SPAN * L, W = width(c), I = c->I, first = block * S;
    long columns = 0;
    const long count = c->n - first < S ? c->n - first : S;
    if (p->added) {
        memcpy(w->sums, p->d_projected + first * W, count * W * sizeof(float));
        for (long share = 1; share < p->shares; share++) {
            const float *from = p->d_projected + (share * c->n + first) * W;
            for (long i = 0; i < count * W; i++) w->sums[i] += from[i];
        }
    } else sum_rows(p->d_projected, c->ids, c->T * c->B, W, first, count, w->sums);
    for (int rows; columns < SPAN && (rows = rows_in(c, block, columns)) > 0; columns++) {
        to_lanes(w->sums + columns * L * W, W, rows, W, w->d_x + columns * L, S);
        copy_rows(c->inputs + (first + columns * L) * I, I, rows, w->input_rows + columns * L * padded(I), padded(I));
    }
    project_backward(p, sums, w, columns);
    for (long k = 0; k < columns && c->d_inputs; k++)
        from_lanes(w->d_inputs + k * L, S, I, c->d_inputs + (first + k * L) * I, I, rows_in(c, block, k));
}

/* Run a group back through the whole sequence. */
static void backward_group(const struct pass *p, const struct sums *sums, long share, long group,
                           const struct backward_work *w) {
    const struct call *c = p->c;
    const long b = group * L, T = c->T, H = c->H, W = width(c), size = H * L;
    const int rows = rows_of(c, b);
    struct step s, before;
    const size_t kept = kept_size(c);

    memset(w->dh, 0, size * sizeof *w->dh);
    memset(w->dc, 0, size * sizeof *w->dc);
    if (c->d_last_h) to_lanes(c->d_last_h + b * H, H, rows, H, w->dh, L);
    if (c->d_last_c) to_lanes(c->d_last_c + b * H, H, rows, H, w->dc, L);
    for (long t = T - 1; t >= 0; t--) {
        lay_out_step(c, kept ? c->saved + (group * T + t) * kept : w->step, &s);
        if (!kept) {
            gather_lanes(projected(c), c->ids + t * c->B + b, rows, W, s.gates, L);
            activate(s.gates, size);
        }
        if (c->d_outputs) {
            to_lanes(c->d_outputs + (t * c->B + b) * H, H, rows, H, w->outside, L);
            for (long k = 0; k < size; k += L) store(w->dh + k, load(w->dh + k) + load(w->outside + k));
        }
        if (c->kind == GRU || c->kind == MINGRU)
            to_lanes(h_before(c, t) + b * H, H, rows, H, w->c, L);
        else if (c->kind == LSTM && t == 0)
            to_lanes(c->c + b * H, H, rows, H, w->c, L);
        else if (c->kind == LSTM) {
            lay_out_step(c, c->saved + (group * T + t - 1) * kept, &before);
            memcpy(w->c, before.extra, size * sizeof *w->c);
        }
        if (c->kind != RNN) reset(starts_at(c, t, b), rows, w->c, H);
        backward_step(c, &s, t % SPAN, w);
        if (c->hidden) product(H, 1, W, p->hidden_t, W, w->d_hidden + t % SPAN * L, SPAN * L, w->dh, L, 1, 0);
        reset(starts_at(c, t, b), rows, w->dh, H);
        reset(starts_at(c, t, b), rows, w->dc, H);
        if (t % SPAN == 0) steps_backward(p, sums, share, t, b, rows, w);
    }
    from_lanes(w->dh, L, H, c->d_h + b * H, H, rows);
    if (c->kind == LSTM) from_lanes(w->dc, L, H, c->d_c + b * H, H, rows);
}

/* Lay out a share's sums and its scratch memory. */
static void prepare_share(const struct pass *p, long share, float *scratch, struct sums *sums,
                          struct backward_work *work) {
    memset(scratch, 0, lay_out_backward(p->c, scratch, work) * sizeof *scratch); /* the padding of rows stays zero */
    lay_out_sums(p->c, p->sums + share * p->sums_size, sums);
}

static void backward_share(void *context, long share, float *scratch) {
    const struct pass *p = context;
    struct sums sums;
    struct backward_work work;
    long all = groups(p->c);
    prepare_share(p, share, scratch, &sums, &work);
    for (long group = all * share / p->shares; group < all * (share + 1) / p->shares; group++)
        backward_group(p, &sums, share, group, &work);
}

static void inputs_share(void *context, long share, float *scratch) {
    const struct pass *p = context;
    const long blocks = num_blocks(p->c);
    struct sums sums;
    struct backward_work work;
    prepare_share(p, share, scratch, &sums, &work);
    for (long block = blocks * share / p->shares; block < blocks * (share + 1) / p->shares; block++)
        block_backward(p, &sums, &work, block);
}

/* Size of `saved` in floats. */
HIDDEN long WITH_LANES(gated_saved)(const struct call *c) {
    return groups(c) * c->T * kept_size(c) + (c->ids ? c->n * width(c) : 0);
}

/* Compute the outputs, the last state and, if not null, `saved`, which ids need. Return 0, or -1 if memory could not
 * be allocated. */
HIDDEN long WITH_LANES(gated_forward)(const struct call *c) {
    struct forward_work w;
    const size_t scratch = lay_out_forward(c, 0, &w) * sizeof(float);
    int failed = run_jobs(project_block, (void *)c, num_blocks(c), c->threads, scratch);
    return failed ? failed : run_jobs(forward_group, (void *)c, groups(c), c->threads, scratch);
}

/* Compute all gradients from `saved`. Return 0, or -1 if memory could not be allocated. */
HIDDEN long WITH_LANES(gated_backward)(const struct call *c) {
    struct sums sums;
    struct backward_work w;
    struct pass p = {.c = c, .shares = groups(c) < MAX_SHARES ? groups(c) : MAX_SHARES};
    const long W = width(c);
    p.sums_size = lay_out_sums(c, 0, &sums);
    p.added = c->kind == MINGRU && c->ids && p.shares * c->n <= c->T * c->B;
    size_t all_sums = p.shares * p.sums_size, passed = !c->ids ? 0 : (p.added ? p.shares * c->n : c->T * c->B) * W;
    size_t bytes = (all_sums + W * (c->I + (c->hidden ? c->H : 0)) + passed) * sizeof(float);
    size_t scratch = lay_out_backward(c, 0, &w) * sizeof(float);
    p.sums = aligned_alloc(64, (bytes + 63) / 64 * 64);
    if (!p.sums) return -1;
    memset(p.sums, 0, all_sums * sizeof(float));
    p.input_t = p.sums + all_sums;
    p.hidden_t = p.input_t + W * c->I;
    p.d_projected = p.hidden_t + (c->hidden ? W * c->H : 0);
    if (p.added) memset(p.d_projected, 0, passed * sizeof(float));
    transposed(c->input, W, c->I, p.input_t);
    if (c->hidden) transposed(c->hidden, W, c->H, p.hidden_t);
    int failed = run_jobs(backward_share, &p, p.shares, c->threads, scratch);
    if (!failed && c->ids) failed = run_jobs(inputs_share, &p, p.shares, c->threads, scratch);
    if (!failed) {
        add_shares(p.sums, p.sums_size, p.shares);
        lay_out_sums(c, p.sums, &sums);
        copy_matrix(sums.input, W, c->I, c->d_input);
        if (c->hidden) copy_matrix(sums.hidden, W, c->H, c->d_hidden);
        copy_vector(sums.input_bias, W, c->d_input_bias);
        if (c->kind == GRU) copy_vector(sums.hidden_bias, W, c->d_hidden_bias);
    }
    free(p.sums);
    return failed;
}

EXPORT(gated_saved)
EXPORT(gated_forward)
EXPORT(gated_backward)
