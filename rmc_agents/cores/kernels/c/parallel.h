/* Independent jobs on a few threads, with denormal numbers flushed to zero while they run. */
#ifndef RMC_AGENTS_PARALLEL_H
#define RMC_AGENTS_PARALLEL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#if defined(__SSE__)
#include <xmmintrin.h>
#endif

/* Gates and attention saturate during training, and denormal numbers make a CPU many times slower. */
static unsigned flush_denormals(void) {
#if defined(__SSE__)
    unsigned before = _mm_getcsr();
    _mm_setcsr(before | 0x8040); /* flush to zero, denormals are zero */
    return before;
#else
    return 0;
#endif
}

static void restore_denormals(unsigned before) {
#if defined(__SSE__)
    _mm_setcsr(before);
#else
    (void)before;
#endif
}

typedef void job_function(void *context, long job, float *scratch);

struct jobs {
    job_function *run;
    void *context;
    long count;
    size_t scratch; /* bytes of scratch memory per thread; aligned, not cleared */
    atomic_long next;
    atomic_int failed;
};

static void *work(void *argument) {
    struct jobs *jobs = argument;
    unsigned before = flush_denormals();
    float *scratch = aligned_alloc(64, (jobs->scratch + 63) / 64 * 64);
    if (!scratch) jobs->failed = 1;
    long job;
    while (scratch && (job = atomic_fetch_add(&jobs->next, 1)) < jobs->count) jobs->run(jobs->context, job, scratch);
    free(scratch);
    restore_denormals(before);
    return 0;
}

/* Run all jobs on `threads` threads, the caller's included. Return 0, or -1 if memory could not be allocated.
 * The assignment of jobs to threads is arbitrary, so a job's result may depend only on its number. */
static int run_jobs(job_function *run, void *context, long count, long threads, size_t scratch) {
    struct jobs jobs = {.run = run, .context = context, .count = count, .scratch = scratch};
    pthread_t others[64];
    long started = 0;
    if (threads > count) threads = count;
    while (started < threads - 1 && started < 64 && !pthread_create(&others[started], 0, work, &jobs)) started++;
    work(&jobs);
    while (started > 0) pthread_join(others[--started], 0);
    return jobs.failed ? -1 : 0;
}

#endif
