/* A barrier between processes that share memory. */
#include <sched.h>
#include <stdatomic.h>
#include <time.h>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#define STRIDE 8     /* numbers from one process's counter to the next: each has a cache line of its own */
#define SPINS 2000   /* polls before the core is offered to others, some 50 microseconds */
#define YIELDS 1000  /* polls before this process sleeps in between */

/* The fields of `_Barrier` in training/shared_sum.py, in the same order. */
struct call {
    long rank, size;
    long number;       /* of this meeting, one more than that of the last */
    long microseconds; /* to wait at most */
    _Atomic long *arrived; /* [size,STRIDE] number of the last meeting at which each process arrived */
};

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return 1e6 * time.tv_sec + 1e-3 * time.tv_nsec;
}

/* Arrive, and wait until all processes have. Return 0, or 1 if some have not: call again to wait on. */
long barrier_wait(const struct call *c) {
    const struct timespec pause = {.tv_nsec = 50000};
    double end = 0;
    long polls = 0;
    atomic_store_explicit(&c->arrived[c->rank * STRIDE], c->number, memory_order_release);
    for (long other = 0; other < c->size; other++)
        while (atomic_load_explicit(&c->arrived[other * STRIDE], memory_order_acquire) < c->number) {
            if (++polls < SPINS) {
#if defined(__SSE2__)
                _mm_pause();
#endif
                continue;
            }
            if (polls == SPINS) end = now() + c->microseconds;
            if (now() > end) return 1;
            if (polls < SPINS + YIELDS)
                sched_yield();
            else
                nanosleep(&pause, 0);
        }
    return 0;
}
