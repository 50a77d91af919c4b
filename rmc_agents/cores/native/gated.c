/* A whole sequence of an Elman RNN, an LSTM or a GRU, forward and backward.
 *
 * The mathematics is that of `recur` in gated.py. L rows of the batch at a time, a group, lie in the lanes of a
 * vector and run through all of time; such groups are the jobs of threads.
 *
 * T time, B batch, I input size, H hidden size, G gates, W = G H; inside a group [n] is n vectors.
 */
#include "gradients.h"
#include "parallel.h"

#define SPAN 4 /* steps whose inputs are projected, and whose weight gradients are taken, in one product */

enum kind { RNN, LSTM, GRU };

/* The same fields, in the same order, as `_Call` in gated.py. Tensors are contiguous. */
struct call {
    long kind, T, B, I, H, threads;
    const float *inputs, *h, *c;                        /* [T,B,I] [B,H] [B,H]; c is null but for an LSTM */
    const unsigned char *starts;                        /* [T,B] or null */
    const float *input, *input_bias, *hidden;           /* [W,I] [W] [W,H] */
    const float *hidden_bias;                           /* [W], null but for a GRU */
    float *outputs, *last_h, *last_c, *saved;           /* [T,B,H] [B,H] [B,H]; saved: `gated_saved` floats or null */
    const float *d_outputs, *d_last_h, *d_last_c;       /* each may be null */
    float *d_inputs, *d_h, *d_c;                        /* d_inputs may be null */
    float *d_input, *d_input_bias, *d_hidden, *d_hidden_bias;
};

static const long NUM_GATES[] = {[RNN] = 1, [LSTM] = 4, [GRU] = 3};

static long width(const struct call *c) { return NUM_GATES[c->kind] * c->H; }
static long groups(const struct call *c) { return (c->B + L - 1) / L; }
static long padded(long n) { return (n + L - 1) / L * L; }
static int rows_of(const struct call *c, long b) { return c->B - b < L ? (int)(c->B - b) : L; }
static long span(const struct call *c, long t) { return c->T - t < SPAN ? c->T - t : SPAN; }
static const unsigned char *starts_at(const struct call *c, long t, long b) {
    return c->starts ? c->starts + t * c->B + b : 0;
}
static long threads_for(const struct call *c) {
    return (double)width(c) * (c->I + c->H) * c->T * c->B < 1e7 ? 1 : c->threads; /* a thread's start takes time, too */
}

/* What a step keeps for the backward pass. */
struct step {
    float *gates; /* [W] after their sigmoid or tanh: RNN h; LSTM i, f, g, o; GRU r, z, n */
    float *extra; /* [H] LSTM: the new c; GRU: U_n h + b_n */
};

static size_t lay_out_step(const struct call *c, float *base, struct step *s) {
    size_t at = 0;
    s->gates = take(base, &at, width(c));
    s->extra = take(base, &at, c->kind == RNN ? 0 : c->H);
    return at;
}

/* x [n] becomes zero in the lanes that start an episode. */
static void reset(const unsigned char *starts, int rows, float *x, long n) {
    vi start;
    if (!x || !flagged(starts, rows, &start)) return;
    for (long i = 0; i < n; i++) store(x + i * L, pick(start, splat(0), load(x + i * L)));
}

struct forward_work {
    float *h, *c, *inputs, *x_gates; /* [H] [H] [I,SPAN] [W,SPAN] */
    float *step;
};

static size_t lay_out_forward(const struct call *c, float *base, struct forward_work *w) {
    struct step step;
    size_t at = 0;
    w->h = take(base, &at, c->H);
    w->c = take(base, &at, c->H);
    w->inputs = take(base, &at, c->I * SPAN);
    w->x_gates = take(base, &at, width(c) * SPAN);
    w->step = take(base, &at, lay_out_step(c, 0, &step) / L);
    return at;
}

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

static void forward_group(void *context, long group, float *scratch) {
    const struct call *c = context;
    const long b = group * L, H = c->H, W = width(c), S = SPAN * L;
    const int rows = rows_of(c, b);
    struct forward_work w;
    struct step s;
    lay_out_forward(c, scratch, &w);
    size_t kept = lay_out_step(c, 0, &s);

    to_lanes(c->h + b * H, H, rows, H, w.h, L);
    if (c->c) to_lanes(c->c + b * H, H, rows, H, w.c, L);
    for (long t = 0; t < c->T; t++) {
        long column = t % SPAN;
        if (column == 0) {
            for (long k = 0; k < span(c, t); k++)
                to_lanes(c->inputs + ((t + k) * c->B + b) * c->I, c->I, rows, c->I, w.inputs + k * L, S);
            product(W, span(c, t), c->I, c->input, c->I, w.inputs, S, w.x_gates, S, 0, c->input_bias);
        }
        reset(starts_at(c, t, b), rows, w.h, H);
        if (c->c) reset(starts_at(c, t, b), rows, w.c, H);
        lay_out_step(c, c->saved ? c->saved + (group * c->T + t) * kept : w.step, &s);
        for (long k = 0; k < W; k++) store(s.gates + k * L, load(w.x_gates + (k * SPAN + column) * L));
        forward_step(c, &s, w.h, w.c);
        from_lanes(w.h, L, H, c->outputs + (t * c->B + b) * H, H, rows);
    }
    from_lanes(w.h, L, H, c->last_h + b * H, H, rows);
    if (c->c) from_lanes(w.c, L, H, c->last_c + b * H, H, rows);
}

/* Gradients of weights, as one share of the groups adds them up; see rmc_backward.c. */
struct sums {
    float *input, *hidden, *input_bias, *hidden_bias; /* [W,I] [W,H], rows padded; [W] [W] */
};

static size_t lay_out_sums(const struct call *c, float *base, struct sums *s) {
    size_t at = 0;
    s->input = take(base, &at, width(c) * padded(c->I) / L);
    s->hidden = take(base, &at, width(c) * padded(c->H) / L);
    s->input_bias = take(base, &at, width(c));
    s->hidden_bias = take(base, &at, c->kind == GRU ? width(c) : 0);
    return at;
}

struct backward_work {
    float *dh, *dc, *c, *outside;  /* [H] */
    float *d_x, *d_hidden;         /* [W,SPAN] of x's and of h's part of the gates: different in a GRU alone */
    float *d_inputs;               /* [I,SPAN] */
    float *input_rows, *h_rows;    /* [SPAN L] rows, padded */
};

static size_t lay_out_backward(const struct call *c, float *base, struct backward_work *w) {
    size_t at = 0;
    w->dh = take(base, &at, c->H);
    w->dc = take(base, &at, c->H);
    w->c = take(base, &at, c->H);
    w->outside = take(base, &at, c->H);
    w->d_x = take(base, &at, width(c) * SPAN);
    w->d_hidden = c->kind == GRU ? take(base, &at, width(c) * SPAN) : w->d_x;
    w->d_inputs = take(base, &at, c->I * SPAN);
    w->input_rows = take(base, &at, SPAN * padded(c->I));
    w->h_rows = take(base, &at, SPAN * padded(c->H));
    return at;
}

struct pass {
    const struct call *c;
    long shares;
    size_t sums_size;
    float *sums, *input_t, *hidden_t;
};

/* The state that step t read, [B,H]. */
static const float *h_before(const struct call *c, long t) { return t ? c->outputs + (t - 1) * c->B * c->H : c->h; }

/* d_gates of `column` from dh (and dc, which goes on to the step before); dh becomes what skips the gates. */
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
        } else {
            vf r = load(gates + k), z = load(gates + size + k), n = load(gates + 2 * size + k);
            vf dn = dh * (1.0f - z) * (1.0f - n * n), dr = dn * load(extra + k) * r * (1.0f - r);
            vf dz = dh * (load(w->c + k) - n) * z * (1.0f - z); /* c holds the h that the step read */
            store(d_x + to, dr), store(d_hidden + to, dr);
            store(d_x + SPAN * size + to, dz), store(d_hidden + SPAN * size + to, dz);
            store(d_x + 2 * SPAN * size + to, dn), store(d_hidden + 2 * SPAN * size + to, dn * r);
            store(w->dh + k, dh * z);
        }
    }
}

/* Gradients of the weights and inputs of steps t, t + 1, ... */
static void project_backward(const struct pass *p, const struct sums *sums, long t, long b, int rows,
                             const struct backward_work *w) {
    const struct call *c = p->c;
    const long S = SPAN * L, W = width(c), H = c->H, I = c->I, steps = span(c, t);
    for (long k = 0; k < steps; k++) {
        float *h_rows = w->h_rows + k * L * padded(H);
        const unsigned char *starts = starts_at(c, t + k, b);
        copy_rows(c->inputs + ((t + k) * c->B + b) * I, I, rows, w->input_rows + k * L * padded(I), padded(I));
        copy_rows(h_before(c, t + k) + b * H, H, rows, h_rows, padded(H));
        for (int l = 0; starts && l < rows; l++)
            if (starts[l]) memset(h_rows + l * padded(H), 0, H * sizeof *h_rows);
    }
    add_weight(w->d_x, S, W, steps, w->input_rows, padded(I), sums->input);
    add_weight(w->d_hidden, S, W, steps, w->h_rows, padded(H), sums->hidden);
    add_bias(w->d_x, S, W, steps, sums->input_bias);
    if (c->kind == GRU) add_bias(w->d_hidden, S, W, steps, sums->hidden_bias);
    if (!c->d_inputs) return;
    product(I, steps, W, p->input_t, W, w->d_x, S, w->d_inputs, S, 0, 0);
    for (long k = 0; k < steps; k++)
        from_lanes(w->d_inputs + k * L, S, I, c->d_inputs + ((t + k) * c->B + b) * I, I, rows);
}

static void backward_group(const struct pass *p, const struct sums *sums, long group, const struct backward_work *w) {
    const struct call *c = p->c;
    const long b = group * L, T = c->T, H = c->H, W = width(c), size = H * L;
    const int rows = rows_of(c, b);
    struct step s, before;
    size_t kept = lay_out_step(c, 0, &s);

    memset(w->dh, 0, size * sizeof *w->dh);
    memset(w->dc, 0, size * sizeof *w->dc);
    if (c->d_last_h) to_lanes(c->d_last_h + b * H, H, rows, H, w->dh, L);
    if (c->d_last_c) to_lanes(c->d_last_c + b * H, H, rows, H, w->dc, L);
    for (long t = T - 1; t >= 0; t--) {
        lay_out_step(c, c->saved + (group * T + t) * kept, &s);
        if (c->d_outputs) {
            to_lanes(c->d_outputs + (t * c->B + b) * H, H, rows, H, w->outside, L);
            for (long k = 0; k < size; k += L) store(w->dh + k, load(w->dh + k) + load(w->outside + k));
        }
        if (c->kind == GRU)
            to_lanes(h_before(c, t) + b * H, H, rows, H, w->c, L);
        else if (c->kind == LSTM && t == 0)
            to_lanes(c->c + b * H, H, rows, H, w->c, L);
        else if (c->kind == LSTM)
            lay_out_step(c, c->saved + (group * T + t - 1) * kept, &before), memcpy(w->c, before.extra, size * sizeof *w->c);
        if (c->kind != RNN) reset(starts_at(c, t, b), rows, w->c, H);
        backward_step(c, &s, t % SPAN, w);
        product(H, 1, W, p->hidden_t, W, w->d_hidden + t % SPAN * L, SPAN * L, w->dh, L, 1, 0);
        reset(starts_at(c, t, b), rows, w->dh, H);
        reset(starts_at(c, t, b), rows, w->dc, H);
        if (t % SPAN == 0) project_backward(p, sums, t, b, rows, w);
    }
    from_lanes(w->dh, L, H, c->d_h + b * H, H, rows);
    if (c->kind == LSTM) from_lanes(w->dc, L, H, c->d_c + b * H, H, rows);
}

static void backward_share(void *context, long share, float *scratch) {
    const struct pass *p = context;
    struct sums sums;
    struct backward_work work;
    long all = groups(p->c);
    memset(scratch, 0, lay_out_backward(p->c, scratch, &work) * sizeof *scratch); /* what pads the rows stays zero */
    lay_out_sums(p->c, p->sums + share * p->sums_size, &sums);
    for (long group = all * share / p->shares; group < all * (share + 1) / p->shares; group++)
        backward_group(p, &sums, group, &work);
}

/* Floats that `saved` must have room for. */
long gated_saved(const struct call *c) {
    struct step s;
    return groups(c) * c->T * lay_out_step(c, 0, &s);
}

long gated_forward(const struct call *c) {
    struct forward_work w;
    return run_jobs(forward_group, (void *)c, groups(c), threads_for(c), lay_out_forward(c, 0, &w) * sizeof(float));
}

long gated_backward(const struct call *c) {
    struct sums sums;
    struct backward_work w;
    struct pass p = {.c = c, .shares = groups(c) < MAX_SHARES ? groups(c) : MAX_SHARES};
    const long W = width(c);
    p.sums_size = lay_out_sums(c, 0, &sums);
    size_t all_sums = p.shares * p.sums_size, bytes = (all_sums + W * (c->I + c->H)) * sizeof(float);
    p.sums = aligned_alloc(64, (bytes + 63) / 64 * 64);
    if (!p.sums) return -1;
    memset(p.sums, 0, all_sums * sizeof(float));
    p.input_t = p.sums + all_sums;
    p.hidden_t = p.input_t + W * c->I;
    transposed(c->input, W, c->I, p.input_t);
    transposed(c->hidden, W, c->H, p.hidden_t);
    int failed = run_jobs(backward_share, &p, p.shares, threads_for(c), lay_out_backward(c, 0, &w) * sizeof(float));
    if (!failed) {
        add_up(p.sums, p.sums_size, p.shares);
        lay_out_sums(c, p.sums, &sums);
        copy_matrix(sums.input, W, c->I, c->d_input);
        copy_matrix(sums.hidden, W, c->H, c->d_hidden);
        copy_vector(sums.input_bias, W, c->d_input_bias);
        if (c->kind == GRU) copy_vector(sums.hidden_bias, W, c->d_hidden_bias);
    }
    free(p.sums);
    return failed;
}
