// Softmax of the rows s[rows,m], one warp per row: p = e^(scale s - max)/sum, ds = scale p (dp - sum dp p).
// scale > 0 is that of attention, 1/sqrt(d).

__device__ inline REAL warp_sum(REAL value)
{
    for (int d = WARP / 2; d > 0; d /= 2) value += __shfl_xor_sync(0xffffffff, value, d);
    return value;
}

__device__ inline REAL warp_max(REAL value)
{
    for (int d = WARP / 2; d > 0; d /= 2) {
        REAL other = __shfl_xor_sync(0xffffffff, value, d);
        value = value < other ? other : value;
    }
    return value;
}

__device__ inline long long warp_row()
{
    return (long long)blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP;
}

extern "C" __global__ void softmax_forward(
    const REAL* __restrict__ s, REAL* __restrict__ p, long long rows, int m, REAL scale)
{
    long long row = warp_row();
    int lane = threadIdx.x % WARP;
    if (row >= rows) return;                                // the whole warp
    s += row * m;
    p += row * m;
    REAL top = scale * s[0], sum = 0;
    for (int i = lane; i < m; i += WARP) top = top < scale * s[i] ? scale * s[i] : top;
    top = warp_max(top);
    for (int i = lane; i < m; i += WARP) {
        REAL e = exp(scale * s[i] - top);
        p[i] = e;
        sum += e;
    }
    sum = warp_sum(sum);
    for (int i = lane; i < m; i += WARP) p[i] /= sum;       // its own entries: no other thread's are read
}

extern "C" __global__ void softmax_backward(
    const REAL* __restrict__ p, const REAL* __restrict__ dp, REAL* __restrict__ ds, long long rows, int m, REAL scale)
{
    long long row = warp_row();
    int lane = threadIdx.x % WARP;
    if (row >= rows) return;
    p += row * m;
    dp += row * m;
    ds += row * m;
    REAL dot = 0;
    for (int i = lane; i < m; i += WARP) dot += dp[i] * p[i];
    dot = warp_sum(dot);
    for (int i = lane; i < m; i += WARP) ds[i] = scale * (p[i] * (dp[i] - dot));
}
