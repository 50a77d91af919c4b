/* Actions, their log-probabilities and values from the outputs of a core: the heads' forward pass. */
#include "heads.h"

#include <math.h>

#include "parallel.h"

void heads_forward(const struct call *c, long row, const float *projected, const struct block *b) {
    const long H = c->H, K = c->K, rows = rows_of(c, row), columns = (rows + L - 1) / L;
    const long width = H + c->X, X = projected ? 0 : c->X;
    const int add = projected != 0;
    float *value_hidden = b->hidden + K * ROWS;
    for (long k = 0; k < columns; k++) {
        const long from = row + k * L;
        to_lanes(c->outputs + from * H, H, rows_in(rows, k), H, b->inputs + k * L, ROWS);
        if (X) to_lanes(c->features + from * X, X, rows_in(rows, k), X, b->inputs + H * ROWS + k * L, ROWS);
        if (add) gather_lanes(projected, c->ids + from, rows_in(rows, k), 2 * K, b->hidden + k * L, ROWS);
    }
    product(K, columns, H + X, c->policy_hidden, width, b->inputs, ROWS, b->hidden, ROWS, add, c->policy_hidden_bias);
    product(K, columns, H + X, c->value_hidden, width, b->inputs, ROWS, value_hidden, ROWS, add, c->value_hidden_bias);
    for (long i = 0; i < 2 * K; i++)
        for (long k = 0; k < columns; k++) {
            float *x = b->hidden + i * ROWS + k * L;
            store(x, tanh_(load(x)));
        }
    product(c->P, columns, K, c->policy, K, b->hidden, ROWS, b->logits, ROWS, 0, c->policy_bias);
    product(1, columns, K, c->value, K, value_hidden, ROWS, b->values, ROWS, 0, c->value_bias);
}

void log_softmax(const struct call *c, long rows, const struct block *b) {
    for (long k = 0; k * L < rows; k++) {
        float *logits = b->logits + k * L, *probabilities = b->probabilities + k * L;
        for (long a = 0; a < c->A; a++) {
            const long size = c->sizes[a] * ROWS;
            vf highest = load(logits), sum = splat(0), entropy = splat(0);
            for (long i = ROWS; i < size; i += ROWS) highest = greater(highest, load(logits + i));
            for (long i = 0; i < size; i += ROWS) sum += exponential(load(logits + i) - highest);
            vf log_sum = sum;
            for (int l = 0; l < L; l++) log_sum[l] = logf(sum[l]);
            for (long i = 0; i < size; i += ROWS) {
                vf log_p = load(logits + i) - highest - log_sum, p = exponential(log_p);
                store(logits + i, log_p), store(probabilities + i, p);
                entropy -= p * log_p;
            }
            store(b->entropies + a * ROWS + k * L, entropy);
            logits += size, probabilities += size;
        }
    }
}

/* Draw the actions of a block by the Gumbel-max trick: argmax of logit - log(exponential noise). */
static void choose(const struct call *c, long row, const struct block *b) {
    for (long r = 0; r < rows_of(c, row); r++) {
        const float *noise = c->noise ? c->noise + (row + r) * c->P : 0, *logits = b->logits + r;
        for (long a = 0; a < c->A; a++) {
            float best = -INFINITY;
            long long chosen = 0;
            for (long i = 0; i < c->sizes[a]; i++) {
                float score = *logits - (noise ? logf(*noise) : 0.0f);
                if (score > best) best = score, chosen = i;
                logits += ROWS, noise += noise ? 1 : 0;
            }
            c->chosen[(row + r) * c->A + a] = chosen;
        }
    }
}

static void act_on_block(void *context, long number, float *scratch) {
    const struct call *c = context;
    const long row = number * ROWS, rows = rows_of(c, row);
    struct block b;
    lay_out_block(c, scratch, 0, &b);
    heads_forward(c, row, 0, &b);
    choose(c, row, &b);
    log_softmax(c, rows, &b);
    memcpy(c->values + row, b.values, rows * sizeof(float));
    for (long r = 0; r < rows; r++) {
        const float *log_p = b.logits + r;
        float sum = 0;
        for (long a = 0; a < c->A; log_p += c->sizes[a++] * ROWS) sum += log_p[c->chosen[(row + r) * c->A + a] * ROWS];
        c->log_probs[row + r] = sum;
    }
}

/* Compute `chosen`, `log_probs` and `values`. Return 0, or -1 if memory could not be allocated. */
long heads_act(const struct call *c) {
    struct block b;
    return run_jobs(act_on_block, (void *)c, num_blocks(c), threads_for(c), lay_out_block(c, 0, 0, &b) * sizeof(float));
}
