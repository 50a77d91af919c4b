/* A whole sequence of a one-block Relational Memory Core, forward and backward.
 *
 * The mathematics is that of RMC.recur in rmc.py. Rows of the batch are independent, so L of them at a time run
 * through all of time, with everything they need in the nearest caches; such groups are the jobs of threads.
 */
#include "attention.h"
#include "rmc.h"

#define MAX_SHARES 16 /* weight gradients are added up in so many sums, and these in their order: the same
                         result for any number of threads */

static size_t forward_scratch(const struct sizes *z, size_t step) {
    return step + L * (3 * z->D * z->N + (2 * z->K + z->V) * z->R);
}

/* A head's queries, keys and values [2K + V, R] from what its norm left, which starts at feature `first`. */
static void scale_head(const struct call *c, const struct sizes *z, const float *normal, long first, float *head) {
    for (long i = 0; i < 2 * z->K + z->V; i++) {
        vf weight = splat(c->qkv_norm[first + i]), bias = splat(c->qkv_norm_bias[first + i]);
        for (long r = 0; r < z->R; r++)
            store(head + (i * z->R + r) * L, load(normal + ((first + i) * z->R + r) * L) * weight + bias);
    }
}

/* x [n, N] weight[n] + bias[n] */
static void scale_rows(const float *x, const float *weight, const float *bias, long n, long N, float *out) {
    for (long i = 0; i < n; i++)
        for (long k = i * N * L; k < (i + 1) * N * L; k += L) store(out + k, load(x + k) * weight[i] + bias[i]);
}

static void reset(const struct call *c, const struct sizes *z, long t, long b, int rows, float *m) {
    vi start;
    if (!starting(c, t, b, rows, &start)) return;
    for (long d = 0; d < z->D; d++)
        for (long n = 0; n < z->N; n++) {
            float *at = m + (d * z->N + n) * L;
            store(at, pick(start, splat(c->fresh[n * z->D + d]), load(at)));
        }
}

static void forward_step(const struct call *c, const struct sizes *z, long t, long b, int rows, float *m,
                         const struct step *s, float *scratch) {
    const long N = z->N, R = z->R, D = z->D, F = z->F, size = D * N * L;
    float *content = scratch, *hidden = scratch + size, *head = scratch + 2 * size;

    product(F, N, D, c->qkv, D, m, N * L, s->qkv, R * L, 0, c->qkv_bias);
    to_lanes(c->x_qkv + (t * z->B + b) * F, F, rows, F, s->qkv + N * L, R * L);
    for (long r = 0; r < R; r++) store(s->qkv_scale + r * L, normalise(s->qkv + r * L, R * L, F));

    memcpy(s->read, m, size * sizeof *m);
    for (long a = 0; a < z->A; a++) {
        scale_head(c, z, s->qkv, a * (2 * z->K + z->V), head);
        attend(N, z->K, z->V, head, s->attention + a * N * R * L, s->read + a * z->V * N * L);
    }
    for (long n = 0; n < N; n++) store(s->read_scale + n * L, normalise(s->read + n * L, N * L, D));

    scale_rows(s->read, c->attention_norm, c->attention_norm_bias, D, N, content);
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
    scale_rows(s->out, c->mlp_norm, c->mlp_norm_bias, D, N, content);
    if (!z->G) {
        memcpy(m, content, size * sizeof *m);
        return;
    }

    float *tanh_m = hidden, *i = s->gates, *f = s->gates + z->G * N * L;
    for (long k = 0; k < size; k += L) store(tanh_m + k, tanh_(load(m + k)));
    for (long n = 0; n < N; n++)
        to_lanes(c->x_gates + (t * z->B + b) * 2 * z->G, 2 * z->G, rows, 2 * z->G, s->gates + n * L, N * L);
    product(2 * z->G, N, D, c->gates, D, tanh_m, N * L, s->gates, N * L, 1, 0);
    for (long k = 0; k < 2 * z->G * N * L; k += L) store(s->gates + k, sigmoid(load(s->gates + k)));
    for (long d = 0; d < D; d++)
        for (long n = 0; n < N; n++) {
            long k = (d * N + n) * L, g = z->G == 1 ? n * L : k;
            store(m + k, load(i + g) * tanh_(load(content + k)) + load(f + g) * load(m + k));
        }
}

static void forward_group(void *context, long group, float *scratch) {
    const struct call *c = context;
    struct sizes z = sizes_of(c);
    struct step step;
    size_t kept = lay_out(&z, 0, &step);
    long N = z.N, D = z.D, b = group * L;
    int rows = z.B - b < L ? z.B - b : L;
    float *m = scratch, *rest = m + D * N * L;

    for (long n = 0; n < N; n++) to_lanes(c->memory + (b * N + n) * D, N * D, rows, D, m + n * L, N * L);
    for (long t = 0; t < z.T; t++) {
        lay_out(&z, c->saved ? c->saved + (group * z.T + t) * kept : rest, &step);
        reset(c, &z, t, b, rows, m);
        forward_step(c, &z, t, b, rows, m, &step, c->saved ? rest : rest + kept);
        for (long n = 0; n < N; n++)
            from_lanes(m + n * L, N * L, D, c->memories + ((t * z.B + b) * N + n) * D, N * D, rows);
    }
    for (long n = 0; n < N; n++) from_lanes(m + n * L, N * L, D, c->last + (b * N + n) * D, N * D, rows);
}

/* Floats that `saved` must have room for. */
size_t rmc_saved(const struct call *c) {
    struct sizes z = sizes_of(c);
    struct step step;
    return z.groups * z.T * lay_out(&z, 0, &step);
}

int rmc_forward(const struct call *c) {
    struct sizes z = sizes_of(c);
    struct step step;
    size_t kept = lay_out(&z, 0, &step);
    return run_jobs(forward_group, (void *)c, z.groups, c->threads, forward_scratch(&z, kept) * sizeof(float));
}

/* Gradients of weights, as one share of the groups adds them up: matrices with rows padded to whole vectors,
 * everything else [n] vectors whose lanes are summed in the end. */
struct share {
    float *qkv, *gates, *mlp;                                                  /* [F,W] [2G,W] [layers,D,W] */
    float *qkv_bias, *qkv_norm, *qkv_norm_bias;                                /* [F] */
    float *attention_norm, *attention_norm_bias, *mlp_norm, *mlp_norm_bias;    /* [D] */
    float *mlp_bias;                                                           /* [layers,D] */
};

static size_t lay_out_share(const struct sizes *z, float *base, struct share *s) {
    size_t at = 0, W = (z->D + L - 1) / L;
#define TAKE(vectors) (at += (size_t)(vectors) * L, base ? base + at - (size_t)(vectors) * L : 0)
    *s = (struct share){.qkv = TAKE(z->F * W)};
    s->gates = TAKE(2 * z->G * W);
    s->mlp = TAKE(z->layers * z->D * W);
    s->qkv_bias = TAKE(z->F);
    s->qkv_norm = TAKE(z->F);
    s->qkv_norm_bias = TAKE(z->F);
    s->attention_norm = TAKE(z->D);
    s->attention_norm_bias = TAKE(z->D);
    s->mlp_norm = TAKE(z->D);
    s->mlp_norm_bias = TAKE(z->D);
    s->mlp_bias = TAKE(z->layers * z->D);
#undef TAKE
    return at;
}

struct backward {
    const struct call *call;
    struct sizes z;
    long shares, width; /* width: D padded to whole vectors */
    size_t share_size;
    float *sums;                            /* [shares, share_size] */
    float *qkv_t, *gates_t, *mlp_t;         /* weights, transposed */
};

/* Scratch of a group, [D,N] each but for those with a size. */
struct work {
    float *dm, *m, *tanh_m, *d, *d_hidden, *d_hidden2, *rows;
    float *m_rows, *in_rows;    /* [N L, W]: one row a lane */
    float *d_gates, *d_x_gates; /* [2G,N] [2G] */
    float *head, *d_qkv;        /* [2K + V,R] [F,R] */
    float *d_logits;            /* [N,R] */
};

static size_t lay_out_work(const struct sizes *z, float *base, struct work *w) {
    size_t at = 0, W = (z->D + L - 1) / L, DN = z->D * z->N;
#define TAKE(vectors) (at += (size_t)(vectors) * L, base ? base + at - (size_t)(vectors) * L : 0)
    *w = (struct work){.dm = TAKE(DN)};
    w->m = TAKE(DN);
    w->tanh_m = TAKE(DN);
    w->d = TAKE(DN);
    w->d_hidden = TAKE(DN);
    w->d_hidden2 = TAKE(DN);
    w->rows = TAKE(DN);
    w->m_rows = TAKE(z->N * L * W);
    w->in_rows = TAKE(z->N * L * W);
    w->d_gates = TAKE(2 * z->G * z->N);
    w->d_x_gates = TAKE(2 * z->G);
    w->head = TAKE((2 * z->K + z->V) * z->R);
    w->d_qkv = TAKE(z->F * z->R);
    w->d_logits = TAKE(z->N * z->R);
#undef TAKE
    return at;
}

/* d_weight [n, W] += d [n, N] x [D, N]^T, by way of x as rows. */
static void add_weight(const struct backward *p, const float *d, ptrdiff_t d_step, long n, const float *x,
                       float *x_rows, float *d_weight) {
    const struct sizes *z = &p->z;
    for (long k = 0; x && k < z->N; k++)
        from_lanes(x + k * L, z->N * L, z->D, x_rows + k * L * p->width, p->width, L);
    product(n, p->width / L, z->N * L, d, d_step, x_rows, p->width, d_weight, p->width, 1, 0);
}

/* d_bias [n] += the sum of d [n, N] over N. */
static void add_bias(const float *d, ptrdiff_t d_step, long n, long N, float *d_bias) {
    for (long i = 0; i < n; i++) {
        vf sum = load(d_bias + i * L);
        for (long k = 0; k < N; k++) sum += load(d + i * d_step + k * L);
        store(d_bias + i * L, sum);
    }
}

/* The memory that step t read, as rows and as lanes. */
static void recall(const struct backward *p, long t, long b, int rows, const struct work *w) {
    const struct call *c = p->call;
    const long N = p->z.N, D = p->z.D;
    const float *memory = t ? c->memories + (t - 1) * p->z.B * N * D : c->memory;
    for (long l = 0; l < L; l++) {
        int fresh = l < rows && c->starts && c->starts[t * p->z.B + b + l];
        for (long n = 0; n < N; n++) {
            float *row = w->m_rows + (n * L + l) * p->width;
            if (l < rows)
                memcpy(row, fresh ? c->fresh + n * D : memory + ((b + l) * N + n) * D, D * sizeof *row);
            else
                memset(row, 0, D * sizeof *row);
        }
    }
    for (long n = 0; n < N; n++) to_lanes(w->m_rows + n * L * p->width, p->width, L, D, w->m + n * L, N * L);
}

/* From the gradient of M' in `dm` to that of M~ in `d`; `dm` becomes what reaches M without attention. */
static void gates_backward(const struct backward *p, const struct share *sum, const struct step *s, long t, long b,
                           int rows, const struct work *w) {
    const struct call *c = p->call;
    const struct sizes *z = &p->z;
    const long N = z->N, D = z->D, G = z->G, size = D * N * L;
    const float *i = s->gates, *f = s->gates + G * N * L;
    float *di = w->d_gates, *df = w->d_gates + G * N * L;

    scale_rows(s->out, c->mlp_norm, c->mlp_norm_bias, D, N, w->d);
    if (G == 1) memset(w->d_gates, 0, 2 * N * L * sizeof *di);
    for (long d = 0; d < D; d++)
        for (long n = 0; n < N; n++) {
            long k = (d * N + n) * L, g = G == 1 ? n * L : k;
            vf dm = load(w->dm + k), content = tanh_(load(w->d + k)), m = load(w->m + k);
            vf ig = load(i + g), fg = load(f + g);
            vf d_ig = dm * content * ig * (1.0f - ig), d_fg = dm * m * fg * (1.0f - fg);
            if (G == 1) d_ig += load(di + g), d_fg += load(df + g);
            store(di + g, d_ig);
            store(df + g, d_fg);
            store(w->d + k, dm * ig * (1.0f - content * content));
            store(w->dm + k, dm * fg);
            store(w->tanh_m + k, tanh_(m));
        }
    memset(w->d_x_gates, 0, 2 * G * L * sizeof *w->d_x_gates);
    add_bias(w->d_gates, N * L, 2 * G, N, w->d_x_gates);
    from_lanes(w->d_x_gates, L, 2 * G, c->d_x_gates + (t * z->B + b) * 2 * G, 2 * G, rows);
    add_weight(p, w->d_gates, N * L, 2 * G, w->tanh_m, w->in_rows, sum->gates);
    product(D, N, 2 * G, p->gates_t, 2 * G, w->d_gates, N * L, w->d_hidden, N * L, 0, 0);
    for (long k = 0; k < size; k += L) {
        vf tanh_m = load(w->tanh_m + k);
        store(w->dm + k, load(w->dm + k) + load(w->d_hidden + k) * (1.0f - tanh_m * tanh_m));
    }
}

/* From the gradient of M~ to that of what was read, both in `d`. */
static void mlp_backward(const struct backward *p, const struct share *sum, const struct step *s,
                         const struct work *w) {
    const struct call *c = p->call;
    const long N = p->z.N, D = p->z.D, size = D * N * L;
    float *d = w->d_hidden, *next = w->d_hidden2;

    for (long n = 0; n < N; n++)
        normalise_backward(w->d + n * L, N * L, s->out + n * L, N * L, D, load(s->out_scale + n * L), c->mlp_norm,
                           sum->mlp_norm, sum->mlp_norm_bias);
    memcpy(d, w->d, size * sizeof *d);
    scale_rows(s->read, c->attention_norm, c->attention_norm_bias, D, N, w->rows);
    for (long i = p->z.layers - 1; i >= 0; i--) {
        const float *in = i ? s->hidden + (i - 1) * size : w->rows, *weight_t = p->mlp_t + i * D * D;
        add_bias(d, N * L, D, N, sum->mlp_bias + i * D * L);
        add_weight(p, d, N * L, D, in, w->in_rows, sum->mlp + i * D * p->width);
        if (!i) {
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
                           c->attention_norm, sum->attention_norm, sum->attention_norm_bias);
}

/* From the gradient of what was read, in `d`, to that of the memory, added to `dm`. */
static void read_backward(const struct backward *p, const struct share *sum, const struct step *s, long t, long b,
                          int rows, const struct work *w) {
    const struct call *c = p->call;
    const struct sizes *z = &p->z;
    const long N = z->N, R = z->R, D = z->D, F = z->F, H = 2 * z->K + z->V;

    for (long a = 0; a < z->A; a++) {
        scale_head(c, z, s->qkv, a * H, w->head);
        attend_backward(N, z->K, z->V, w->head, s->attention + a * N * R * L, w->d + a * z->V * N * L, w->d_logits,
                        w->d_qkv + a * H * R * L);
    }
    for (long r = 0; r < R; r++)
        normalise_backward(w->d_qkv + r * L, R * L, s->qkv + r * L, R * L, F, load(s->qkv_scale + r * L), c->qkv_norm,
                           sum->qkv_norm, sum->qkv_norm_bias);
    from_lanes(w->d_qkv + N * L, R * L, F, c->d_x_qkv + (t * z->B + b) * F, F, rows);
    add_bias(w->d_qkv, R * L, F, N, sum->qkv_bias);
    add_weight(p, w->d_qkv, R * L, F, 0, w->m_rows, sum->qkv);
    for (long k = 0; k < D * N * L; k += L) store(w->dm + k, load(w->dm + k) + load(w->d + k));
    product(D, N, F, p->qkv_t, F, w->d_qkv, R * L, w->dm, N * L, 1, 0);
}

/* dm += the gradient of memories [B,N,D]; `scratch` [D,N]. */
static void add_outside(const struct sizes *z, const float *d, long b, int rows, float *dm, float *scratch) {
    if (!d) return;
    for (long n = 0; n < z->N; n++)
        to_lanes(d + (b * z->N + n) * z->D, z->N * z->D, rows, z->D, scratch + n * L, z->N * L);
    for (long k = 0; k < z->D * z->N * L; k += L) store(dm + k, load(dm + k) + load(scratch + k));
}

static void backward_group(const struct backward *p, long group, const struct share *sum, const struct work *w) {
    const struct call *c = p->call;
    const struct sizes *z = &p->z;
    const long N = z->N, D = z->D, size = D * N * L, b = group * L, all = z->B * N * D;
    int rows = z->B - b < L ? z->B - b : L;
    struct step s;
    size_t kept = lay_out(z, 0, &s);

    memset(w->dm, 0, size * sizeof *w->dm);
    add_outside(z, c->d_last, b, rows, w->dm, w->d);
    for (long t = z->T - 1; t >= 0; t--) {
        lay_out(z, c->saved + (group * z->T + t) * kept, &s);
        add_outside(z, c->d_memories ? c->d_memories + t * all : 0, b, rows, w->dm, w->d);
        recall(p, t, b, rows, w);
        if (z->G) {
            gates_backward(p, sum, &s, t, b, rows, w);
        } else {
            memcpy(w->d, w->dm, size * sizeof *w->d);
            memset(w->dm, 0, size * sizeof *w->dm);
        }
        mlp_backward(p, sum, &s, w);
        read_backward(p, sum, &s, t, b, rows, w);
        vi start;
        if (starting(c, t, b, rows, &start)) /* chosen and not multiplied: what is cut may not be finite */
            for (long k = 0; k < size; k += L) store(w->dm + k, pick(start, splat(0), load(w->dm + k)));
    }
    for (long n = 0; n < N; n++) from_lanes(w->dm + n * L, N * L, D, c->d_memory + (b * N + n) * D, N * D, rows);
}

static void backward_share(void *context, long share, float *scratch) {
    const struct backward *p = context;
    struct share sum;
    struct work w;
    size_t size = lay_out_work(&p->z, scratch, &w);
    memset(scratch, 0, size * sizeof *scratch); /* what pads the rows stays zero */
    lay_out_share(&p->z, p->sums + share * p->share_size, &sum);
    for (long g = p->z.groups * share / p->shares; g < p->z.groups * (share + 1) / p->shares; g++)
        backward_group(p, g, &sum, &w);
}

/* The first share += the others, and from there to the tensors. */
static void collect(const struct backward *p) {
    const struct call *c = p->call;
    const struct sizes *z = &p->z;
    struct share s;
    lay_out_share(z, p->sums, &s);
    for (long i = 1; i < p->shares; i++)
        for (size_t k = 0; k < p->share_size; k += L)
            store(p->sums + k, load(p->sums + k) + load(p->sums + i * p->share_size + k));

    struct { const float *from; float *to; long n; } matrices[] = {{s.qkv, c->d_qkv, z->F}, {s.gates, c->d_gates, 2 * z->G}};
    struct { const float *from; float *to; long n; } vectors[] = {
        {s.qkv_bias, c->d_qkv_bias, z->F},
        {s.qkv_norm, c->d_qkv_norm, z->F},
        {s.qkv_norm_bias, c->d_qkv_norm_bias, z->F},
        {s.attention_norm, c->d_attention_norm, z->D},
        {s.attention_norm_bias, c->d_attention_norm_bias, z->D},
        {s.mlp_norm, c->d_mlp_norm, z->D},
        {s.mlp_norm_bias, c->d_mlp_norm_bias, z->D},
    };
    for (int k = 0; k < 2; k++)
        for (long i = 0; i < matrices[k].n; i++)
            memcpy(matrices[k].to + i * z->D, matrices[k].from + i * p->width, z->D * sizeof(float));
    for (size_t k = 0; k < sizeof vectors / sizeof *vectors; k++)
        for (long i = 0; i < vectors[k].n; i++) vectors[k].to[i] = sum_of_lanes(load(vectors[k].from + i * L));
    for (long i = 0; i < z->layers * z->D; i++) {
        long layer = i / z->D, d = i % z->D;
        memcpy(c->d_mlp[2 * layer] + d * z->D, s.mlp + i * p->width, z->D * sizeof(float));
        c->d_mlp[2 * layer + 1][d] = sum_of_lanes(load(s.mlp_bias + i * L));
    }
}

int rmc_backward(const struct call *c) {
    struct backward p = {.call = c, .z = sizes_of(c)};
    const struct sizes *z = &p.z;
    struct share share;
    struct work work;
    p.shares = z->groups < MAX_SHARES ? z->groups : MAX_SHARES;
    p.width = (z->D + L - 1) / L * L;
    p.share_size = lay_out_share(z, 0, &share);
    size_t sums = p.shares * p.share_size, weights = z->D * (z->F + 2 * z->G + z->layers * z->D);
    size_t bytes = ((sums + weights) * sizeof(float) + 63) / 64 * 64;
    p.sums = aligned_alloc(64, bytes);
    if (!p.sums) return -1;
    memset(p.sums, 0, sums * sizeof(float));
    p.qkv_t = p.sums + sums;
    p.gates_t = p.qkv_t + z->D * z->F;
    p.mlp_t = p.gates_t + z->D * 2 * z->G;
    transposed(c->qkv, z->F, z->D, p.qkv_t);
    if (z->G) transposed(c->gates, 2 * z->G, z->D, p.gates_t);
    for (long i = 0; i < z->layers; i++) transposed(c->mlp[2 * i], z->D, z->D, p.mlp_t + i * z->D * z->D);

    unsigned before = flush_denormals();
    int failed = run_jobs(backward_share, &p, p.shares, c->threads, lay_out_work(z, 0, &work) * sizeof(float));
    if (!failed) collect(&p);
    restore_denormals(before);
    free(p.sums);
    return failed;
}
