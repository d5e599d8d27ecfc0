// What every kernel here shares. The type REAL, float or double, is defined above this text.
//
// Written for any compiler of CUDA C++ without a header, and so that a processor can run it (tests/cuda): no inline
// assembly, blocks of one dimension, and every thread of a block reaches every barrier.

#define THREADS 256     // of a block, at most
#define WARP 32

__device__ inline REAL sigmoid(REAL x)
{
    return REAL(1) / (REAL(1) + exp(-x));       // e^-x = infinity gives 0
}

// SiLU: y = z sigma(z), y' = sigma (1 + z (1 - sigma)).
__device__ inline REAL silu_slope(REAL z, REAL s)
{
    return s * (REAL(1) + z * (REAL(1) - s));
}
