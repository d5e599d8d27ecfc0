// CUDA's words for an ordinary processor: blocks one after another, the threads of a block as fibers that take turns
// at barriers. `order` says who goes first (0 forwards, 1 backwards, else shuffled): a missing barrier shows as other
// numbers. A barrier that not every thread reaches is an error, as it is on a device. No C++ header: it compiles fast.
#include <setjmp.h>
#include <ucontext.h>

#define __global__
#define __device__
#define __shared__ static
#define __align__(n) alignas(n)

extern "C" double exp(double), sqrt(double);
extern "C" float expf(float), sqrtf(float);
static inline float exp(float x) { return expf(x); }
static inline float sqrt(float x) { return sqrtf(x); }

struct Index { unsigned x; };
static Index threadIdx, blockIdx, blockDim, gridDim;

enum State { READY, AT_BLOCK, AT_WARP, DONE };
struct Fiber { ucontext_t start; jmp_buf place; bool begun; State state; char stack[1 << 15]; };
static Fiber fibers[256];
static ucontext_t caller;
static jmp_buf scheduler;
static volatile int current;
static void (*body)();

static void pause(State state)
{
    fibers[current].state = state;
    if (!_setjmp(fibers[current].place)) _longjmp(scheduler, 1);
}

static void live()
{
    for (;;) {
        body();
        pause(DONE);
    }
}

static void go_on(int i)
{
    Fiber& fiber = fibers[i];
    current = i;
    threadIdx.x = i;
    if (_setjmp(scheduler)) return;
    if (fiber.begun) _longjmp(fiber.place, 1);
    fiber.begun = true;
    getcontext(&fiber.start);
    fiber.start.uc_stack.ss_sp = fiber.stack;
    fiber.start.uc_stack.ss_size = sizeof fiber.stack;
    makecontext(&fiber.start, live, 0);
    swapcontext(&caller, &fiber.start);
}

static void __syncthreads() { pause(AT_BLOCK); }

template <typename T> static T __shfl_xor_sync(unsigned, T value, int d)
{
    static T slot[256];
    slot[current] = value;
    pause(AT_WARP);
    T got = slot[current ^ d];
    pause(AT_WARP);
    return got;
}

static int launch(int grid, int block, int order, void (*kernel)())
{
    int turn[256];
    unsigned random = order;
    body = kernel;
    blockDim.x = block;
    gridDim.x = grid;
    for (int i = 0; i < block; i++) turn[i] = order == 1 ? block - 1 - i : i;
    for (int i = block - 1; order > 1 && i > 0; i--) {
        int j = (random = random * 1664525u + 1013904223u) % (i + 1), other = turn[i];
        turn[i] = turn[j];
        turn[j] = other;
    }
    for (int b = 0; b < grid; b++) {
        blockIdx.x = b;
        for (int i = 0; i < block; i++) fibers[i].state = READY;
        for (;;) {
            for (int i = 0; i < block; i++)
                if (fibers[turn[i]].state == READY) go_on(turn[i]);
            int done = 0, waiting = 0, released = 0;
            for (int i = 0; i < block; i++) done += fibers[i].state == DONE, waiting += fibers[i].state == AT_BLOCK;
            if (done == block) break;
            for (int first = 0; first < block; first += 32) {
                int last = first + 32 < block ? first + 32 : block, ready = 0;
                for (int i = first; i < last; i++) ready += fibers[i].state == AT_WARP;
                if (ready == last - first)
                    for (int i = first; i < last; i++) fibers[i].state = READY, released++;
            }
            if (!released && waiting == block)
                for (int i = 0; i < block; i++) fibers[i].state = READY, released++;
            if (!released) {                        // a barrier that some thread never reaches
                for (int i = 0; i < block; i++) fibers[i].begun = false;
                return 1;
            }
        }
    }
    return 0;
}
