/* PPO's loss of recorded actions, and all of its gradients: the formulas are those of `ppo_loss` in rl/ppo.py. */
#include "heads.h"

#include <math.h>

#include "gradients.h"
#include "parallel.h"

enum { POLICY_LOSS, VALUE_LOSS, ENTROPY, APPROX_KL, CLIP_FRACTION, LOSS, NUM_FIGURES };

#define BLOCKS_PER_SHARE 2 /* at least, where there are as many */

/* Everything that the shares read. */
struct pass {
    const struct call *c;
    long shares;
    double count, mean, std;
    double (*figures)[NUM_FIGURES]; /* of each share */
    atomic_int invalid;             /* whether an action lies outside its component */
    float *sums;                    /* of each share; null without gradients */
    size_t sums_size;
    float *hidden_layers; /* [2K, stride] rows: the weights of both hidden layers */
    float *policy_t;      /* [K, P] */
    float *projected;     /* [n, 2K] of `heads_forward`; null without ids */
    float *d_projected;   /* [N, 2K] gradients, before those of equal features are added */
};

/* Sums over the rows of a share. Rows of matrices are padded. */
struct sums {
    float *hidden_layers, *hidden_biases; /* [2K, stride] [2K] */
    float *policy, *policy_bias;          /* [P, padded(K)] [P] */
    float *value, *value_bias;            /* [1, padded(K)] [1] */
    float *features;                      /* [2K, padded(X)] the columns of features that are read by id */
};

/* Gradients of a block, and its rows. */
struct work {
    struct block block;
    float *d_logits, *d_values;   /* [P] [1] */
    float *d_hidden;              /* [2K] */
    float *d_log_probs, *weights; /* [1] [1] */
    float *rows, *d_rows;         /* [ROWS, stride] inputs and their gradients */
    float *hidden_rows;           /* [ROWS, padded(K)] */
    float *d_hidden_rows;         /* [ROWS, 2K] */
    float *x_rows;                /* [ROWS, padded(X)] features that are read by id */
};

static long padded(long n) { return (n + L - 1) / L * L; }

/* Stride of rows of inputs: an odd number of vectors, which spreads rows over the sets of the cache. */
static long stride(const struct call *c) {
    long vectors = (c->H + c->X + L - 1) / L;
    return (vectors | 1) * L;
}

static size_t lay_out_sums(const struct call *c, float *base, struct sums *s) {
    size_t at = 0;
    s->hidden_layers = allocate(base, &at, 2 * c->K * stride(c) / L);
    s->hidden_biases = allocate(base, &at, 2 * c->K);
    s->policy = allocate(base, &at, c->P * padded(c->K) / L);
    s->policy_bias = allocate(base, &at, c->P);
    s->value = allocate(base, &at, padded(c->K) / L);
    s->value_bias = allocate(base, &at, 1);
    s->features = allocate(base, &at, c->ids ? 2 * c->K * padded(c->X) / L : 0);
    return at;
}

static size_t lay_out_work(const struct call *c, float *base, struct work *w) {
    size_t at = lay_out_block(c, base, 0, &w->block);
    w->d_logits = allocate(base, &at, c->P * COLUMNS);
    w->d_values = allocate(base, &at, COLUMNS);
    w->d_hidden = allocate(base, &at, 2 * c->K * COLUMNS);
    w->d_log_probs = allocate(base, &at, COLUMNS);
    w->weights = allocate(base, &at, COLUMNS);
    w->rows = allocate(base, &at, COLUMNS * stride(c));
    w->d_rows = allocate(base, &at, COLUMNS * stride(c));
    w->hidden_rows = allocate(base, &at, COLUMNS * padded(c->K));
    w->d_hidden_rows = allocate(base, &at, COLUMNS * 2 * c->K);
    w->x_rows = allocate(base, &at, c->ids ? COLUMNS * padded(c->X) : 0);
    return at;
}

/* Add the losses of a block's rows to `figures`; compute their gradients with respect to log-probability and value. */
static void losses_of_block(struct pass *p, long row, const struct work *w, double *figures) {
    const struct call *c = p->c;
    const float low = c->clip_low, high = c->clip_high, clip_value = c->clip_value;
    for (long r = 0, n = row; r < rows_of(c, row); r++, n++) {
        const float *log_p = w->block.logits + r;
        float log_prob = 0, entropy = 0, weight = c->valid[n] ? 1.0f / (float)p->count : 0.0f;
        for (long a = 0; a < c->A; log_p += c->sizes[a++] * ROWS) {
            long long action = c->actions[n * c->A + a];
            if (action < 0 || action >= c->sizes[a]) {
                p->invalid = 1;
                return;
            }
            log_prob += log_p[action * ROWS];
            entropy += w->block.entropies[a * ROWS + r];
        }
        float advantage = c->advantages[n];
        if (c->normalize) advantage = (advantage - (float)p->mean) / ((float)p->std + 1e-8f);
        float log_ratio = log_prob - c->old_log_probs[n], ratio = expf(log_ratio);
        float clipped = ratio < low ? low : ratio > high ? high : ratio;
        float gain = advantage * ratio, clipped_gain = advantage * clipped;
        float d_ratio = gain > clipped_gain ? 0.0f : -weight * advantage;
        float value = w->block.values[r], change = value - c->old_values[n];
        int fixed = isfinite(clip_value) && !(fabsf(change) <= clip_value); /* a fixed value has no gradient */
        if (fabsf(change) > clip_value) change = copysignf(clip_value, change);
        if (isfinite(clip_value)) value = c->old_values[n] + change;
        float error = value - c->returns[n];

        figures[POLICY_LOSS] -= weight * (gain > clipped_gain ? clipped_gain : gain);
        figures[VALUE_LOSS] += weight * (error * error);
        figures[ENTROPY] += weight * entropy;
        figures[APPROX_KL] += weight * (ratio - 1.0f - log_ratio);
        figures[CLIP_FRACTION] += weight * (clipped != ratio);
        w->d_log_probs[r] = d_ratio * ratio; /* NaN if the ratio is infinite, as in PyTorch */
        w->d_values[r] = fixed ? 0.0f : 2.0f * (float)c->value_coef * weight * error;
        w->weights[r] = weight * (float)c->entropy_coef;
    }
}

/* Compute the gradients of a block's logits. */
static void logits_backward(const struct call *c, long row, const struct work *w) {
    const struct block *b = &w->block;
    const long rows = rows_of(c, row);
    for (long k = 0; k * L < rows; k++) {
        const int count = rows_in(rows, k);
        const vf d_log_prob = load(w->d_log_probs + k * L), weight = load(w->weights + k * L);
        for (long a = 0, i = k * L; a < c->A; a++) {
            const vf entropy = load(b->entropies + a * ROWS + k * L);
            vi action = {0};
            for (int l = 0; l < count; l++) action[l] = (int)c->actions[(row + k * L + l) * c->A + a];
            for (int j = 0; j < c->sizes[a]; j++, i += ROWS) {
                vf p = load(b->probabilities + i), chosen = pick(action == j, splat(1), splat(0));
                store(w->d_logits + i, d_log_prob * (chosen - p) + weight * p * (load(b->logits + i) + entropy));
            }
        }
    }
}

/* Add the weight gradients of a block, and compute the gradients of its inputs. */
static void block_backward(const struct pass *p, long row, const struct work *w, const struct sums *s) {
    const struct call *c = p->c;
    const long H = c->H, X = c->ids ? 0 : c->X, K = c->K, rows = rows_of(c, row), columns = (rows + L - 1) / L;
    const long width = stride(c), vectors = (H + X + L - 1) / L;
    const float *hidden = w->block.hidden, *value_hidden = hidden + K * ROWS;
    float *d_hidden = w->d_hidden, *d_value_hidden = d_hidden + K * ROWS;
    logits_backward(c, row, w);
    for (long k = 0; k < columns; k++) {
        float *to = w->rows + k * L * width;
        copy_rows(c->outputs + (row + k * L) * H, H, rows_in(rows, k), to, width);
        if (X) copy_rows(c->features + (row + k * L) * X, X, rows_in(rows, k), to + H, width);
    }
    to_rows(hidden, ROWS, K, columns, w->hidden_rows, padded(K));
    add_weight(w->d_logits, ROWS, c->P, columns, w->hidden_rows, padded(K), s->policy);
    add_bias(w->d_logits, ROWS, c->P, columns, s->policy_bias);
    to_rows(value_hidden, ROWS, K, columns, w->hidden_rows, padded(K));
    add_weight(w->d_values, ROWS, 1, columns, w->hidden_rows, padded(K), s->value);
    add_bias(w->d_values, ROWS, 1, columns, s->value_bias);

    product(K, columns, c->P, p->policy_t, c->P, w->d_logits, ROWS, d_hidden, ROWS, 0, 0);
    for (long i = 0; i < K; i++)
        for (long k = 0, at = i * ROWS; k < columns; k++, at += L) {
            vf h = load(hidden + at), v = load(value_hidden + at);
            store(d_hidden + at, load(d_hidden + at) * (1.0f - h * h));
            store(d_value_hidden + at, load(w->d_values + k * L) * c->value[i] * (1.0f - v * v));
        }
    product(2 * K, vectors, columns * L, d_hidden, ROWS, w->rows, width, s->hidden_layers, width, 1, 0);
    add_bias(d_hidden, ROWS, 2 * K, columns, s->hidden_biases);
    to_rows(d_hidden, ROWS, 2 * K, columns, w->d_hidden_rows, 2 * K);
    if (c->ids) memcpy(p->d_projected + row * 2 * K, w->d_hidden_rows, rows * 2 * K * sizeof *w->d_hidden_rows);
    if (!c->d_outputs && !c->d_features) return;
    product(rows, vectors, 2 * K, w->d_hidden_rows, 2 * K, p->hidden_layers, width, w->d_rows, width, 0, 0);
    for (long r = 0; r < rows; r++) {
        const float *from = w->d_rows + r * width;
        if (c->d_outputs) memcpy(c->d_outputs + (row + r) * H, from, H * sizeof *from);
        if (X && c->d_features) memcpy(c->d_features + (row + r) * X, from + H, X * sizeof *from);
    }
}

/* Multiply a block of the features that are read by id, each once, with the hidden layers. */
static void project_block(void *context, long block, float *scratch) {
    const struct pass *p = context;
    const struct call *c = p->c;
    const long X = c->X, K = c->K, width = c->H + X, first = block * ROWS, rows = rows_from(c->n, first);
    struct block b;
    lay_out_block(c, scratch, 0, &b);
    const long columns = (rows + L - 1) / L;
    for (long k = 0; k < columns; k++)
        to_lanes(c->features + (first + k * L) * X, X, rows_in(rows, k), X, b.inputs + k * L, ROWS);
    product(K, columns, X, c->policy_hidden + c->H, width, b.inputs, ROWS, b.hidden, ROWS, 0, 0);
    product(K, columns, X, c->value_hidden + c->H, width, b.inputs, ROWS, b.hidden + K * ROWS, ROWS, 0, 0);
    for (long k = 0; k < columns; k++)
        from_lanes(b.hidden + k * L, ROWS, 2 * K, p->projected + (first + k * L) * 2 * K, 2 * K, rows_in(rows, k));
}

/* Add up the gradients of a block of features that were read by id, and pass them back. */
static void features_backward(const struct pass *p, long block, const struct work *w, const struct sums *s) {
    const struct call *c = p->c;
    const long H = c->H, X = c->X, K = c->K, first = block * ROWS, rows = rows_from(c->n, first);
    const long columns = (rows + L - 1) / L, width = padded(X);
    float *sums = w->d_hidden_rows, *d = w->d_hidden;
    sum_rows(p->d_projected, c->ids, c->N, 2 * K, first, rows, sums);
    for (long k = 0; k < columns; k++) {
        to_lanes(sums + k * L * 2 * K, 2 * K, rows_in(rows, k), 2 * K, d + k * L, ROWS);
        copy_rows(c->features + (first + k * L) * X, X, rows_in(rows, k), w->x_rows + k * L * width, width);
    }
    add_weight(d, ROWS, 2 * K, columns, w->x_rows, width, s->features);
    if (!c->d_features) return;
    /* Vectors of the weights begin at multiples of L, so the features' may begin in the middle of one. */
    const long before = H / L * L, vectors = (H + X + L - 1) / L - H / L;
    product(rows, vectors, 2 * K, sums, 2 * K, p->hidden_layers + before, stride(c), w->d_rows, stride(c), 0, 0);
    for (long r = 0; r < rows; r++)
        memcpy(c->d_features + (first + r) * X, w->d_rows + r * stride(c) + H - before, X * sizeof *w->d_rows);
}

static void run_share(void *context, long share, float *scratch) {
    struct pass *p = context;
    const struct call *c = p->c;
    const long blocks = num_blocks(c), end = blocks * (share + 1) / p->shares;
    struct work w;
    struct sums s;
    memset(scratch, 0, lay_out_work(c, scratch, &w) * sizeof *scratch); /* padding, and lanes without rows */
    if (p->sums) {
        memset(p->sums + share * p->sums_size, 0, p->sums_size * sizeof *p->sums);
        lay_out_sums(c, p->sums + share * p->sums_size, &s);
    }
    for (long block = blocks * share / p->shares; block < end && !p->invalid; block++) {
        const long row = block * ROWS, rest = (ROWS - rows_of(c, row)) * sizeof *scratch;
        heads_forward(c, row, p->projected, &w.block);
        log_softmax(c, rows_of(c, row), &w.block);
        if (rest) { /* the last block: no gradients in lanes without rows */
            memset(w.d_log_probs, 0, ROWS * sizeof *scratch);
            memset(w.d_values, 0, ROWS * sizeof *scratch);
            memset(w.weights, 0, ROWS * sizeof *scratch);
        }
        losses_of_block(p, row, &w, p->figures[share]);
        if (p->sums && !p->invalid) block_backward(p, row, &w, &s);
    }
}

static void features_share(void *context, long share, float *scratch) {
    const struct pass *p = context;
    const long blocks = num_feature_blocks(p->c);
    struct work w;
    struct sums s;
    memset(scratch, 0, lay_out_work(p->c, scratch, &w) * sizeof *scratch);
    lay_out_sums(p->c, p->sums + share * p->sums_size, &s);
    for (long block = blocks * share / p->shares; block < blocks * (share + 1) / p->shares; block++)
        features_backward(p, block, &w, &s);
}

/* Count the valid rows, and compute mean and standard deviation of their advantages. */
static void normalisation(struct pass *p) {
    const struct call *c = p->c;
    long count = 0;
    double sum = 0, squares = 0;
    for (long n = 0; n < c->N; n++) count += c->valid[n] != 0;
    p->count = isnan(c->num_valid) ? count : c->num_valid;
    if (p->count < 1) p->count = 1;
    p->mean = c->mean, p->std = c->std;
    if (!c->normalize || !isnan(c->num_valid)) return;
    const double weight = 1.0 / p->count;
    for (long n = 0; n < c->N; n++) sum += weight * (c->valid[n] != 0) * c->advantages[n];
    for (long n = 0; n < c->N; n++) {
        double centred = c->advantages[n] - sum;
        squares += weight * (c->valid[n] != 0) * centred * centred;
    }
    p->mean = sum, p->std = sqrt(squares);
}

/* Add the sums of all shares and copy them to the tensors. */
static void copy_sums(const struct pass *p) {
    const struct call *c = p->c;
    const long K = c->K, width = stride(c);
    struct sums s;
    lay_out_sums(c, p->sums, &s);
    add_shares(p->sums, p->sums_size, p->shares);
    for (long i = 0; i < 2 * K; i++) {
        float *to = i < K ? c->d_policy_hidden + i * (c->H + c->X) : c->d_value_hidden + (i - K) * (c->H + c->X);
        memcpy(to, s.hidden_layers + i * width, (c->H + c->X) * sizeof *to);
        if (c->ids) memcpy(to + c->H, s.features + i * padded(c->X), c->X * sizeof *to);
    }
    copy_vector(s.hidden_biases, K, c->d_policy_hidden_bias);
    copy_vector(s.hidden_biases + K * L, K, c->d_value_hidden_bias);
    copy_matrix(s.policy, c->P, K, c->d_policy);
    copy_vector(s.policy_bias, c->P, c->d_policy_bias);
    copy_matrix(s.value, 1, K, c->d_value);
    copy_vector(s.value_bias, 1, c->d_value_bias);
}

static long num_shares(const struct call *c) {
    long shares = num_blocks(c) / BLOCKS_PER_SHARE;
    return shares < 1 ? 1 : shares > MAX_SHARES ? MAX_SHARES : shares;
}

/* Copy the weights of both hidden layers to padded rows. */
static void copy_hidden_layers(const struct call *c, float *out) {
    const long n = c->H + c->X, width = stride(c);
    for (long i = 0; i < 2 * c->K; i++, out += width) {
        memcpy(out, i < c->K ? c->policy_hidden + i * n : c->value_hidden + (i - c->K) * n, n * sizeof *out);
        memset(out + n, 0, (width - n) * sizeof *out);
    }
}

/* Size of `workspace` in floats. */
long heads_workspace(const struct call *c) {
    struct sums s;
    const size_t by_id = c->ids ? 2 * c->K * (c->n + c->N) : 0;
    return num_shares(c) * lay_out_sums(c, 0, &s) + 2 * c->K * stride(c) + c->K * c->P + by_id;
}

/* Compute `figures` and, if there is a workspace, which ids need, the gradients of the loss. Return 0, 1 if an action
 * lies outside its component, or -1 if memory could not be allocated. */
long heads_loss(const struct call *c) {
    double figures[MAX_SHARES][NUM_FIGURES] = {{0}}, sum[NUM_FIGURES] = {0};
    struct pass p = {.c = c, .shares = num_shares(c), .figures = figures, .sums = c->workspace};
    struct sums s;
    struct work w;
    unsigned before = flush_denormals();
    normalisation(&p);
    if (p.sums) {
        p.sums_size = lay_out_sums(c, 0, &s);
        p.hidden_layers = p.sums + p.shares * p.sums_size;
        p.policy_t = p.hidden_layers + 2 * c->K * stride(c);
        copy_hidden_layers(c, p.hidden_layers);
        transposed(c->policy, c->P, c->K, p.policy_t);
        p.projected = c->ids ? p.policy_t + c->K * c->P : 0;
        p.d_projected = c->ids ? p.projected + 2 * c->K * c->n : 0;
    }
    const size_t scratch = lay_out_work(c, 0, &w) * sizeof(float);
    int failed = run_jobs(project_block, &p, num_feature_blocks(c), threads_for(c), scratch);
    if (!failed) failed = run_jobs(run_share, &p, p.shares, threads_for(c), scratch);
    if (!failed && !p.invalid && c->ids) failed = run_jobs(features_share, &p, p.shares, threads_for(c), scratch);
    if (!failed && !p.invalid) {
        for (long share = 0; share < p.shares; share++)
            for (int i = 0; i < NUM_FIGURES; i++) sum[i] += figures[share][i];
        sum[LOSS] = sum[POLICY_LOSS] + c->value_coef * sum[VALUE_LOSS] - c->entropy_coef * sum[ENTROPY];
        for (int i = 0; i < NUM_FIGURES; i++) c->figures[i] = sum[i];
        if (p.sums) copy_sums(&p);
    }
    restore_denormals(before);
    return failed ? failed : p.invalid;
}
