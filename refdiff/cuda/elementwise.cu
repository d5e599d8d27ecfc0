// Elementwise chains as one kernel each: every entry is read once and written once.

// for every index of 0..total-1, in turns of the whole grid
#define EACH(e, total) \
    for (long long e = (long long)blockIdx.x * blockDim.x + threadIdx.x; e < (total); \
         e += (long long)gridDim.x * blockDim.x)

extern "C" __global__ void silu_forward(
    const REAL* __restrict__ x, REAL* __restrict__ y, REAL* __restrict__ s, long long total)
{
    EACH(e, total) {
        REAL sigma = sigmoid(x[e]);
        s[e] = sigma;
        y[e] = x[e] * sigma;
    }
}

extern "C" __global__ void silu_backward(
    const REAL* __restrict__ x, const REAL* __restrict__ s, const REAL* __restrict__ dy, REAL* __restrict__ dx,
    long long total)
{
    EACH(e, total) dx[e] = silu_slope(x[e], s[e]) * dy[e];
}

// y[n,hw,c] = x (1 + scale[n,c]) + shift[n,c];  gain = 1 + scale, (n, c)
extern "C" __global__ void scale_shift_forward(
    const REAL* __restrict__ x, const REAL* __restrict__ gain, const REAL* __restrict__ shift, REAL* __restrict__ y,
    int hw, int c, long long total)
{
    EACH(e, total) {
        long long row = e / ((long long)hw * c) * c + e % c;
        y[e] = x[e] * gain[row] + shift[row];
    }
}

// The sum of every 2x2 block, times scale: y[n,h,w,c] from x[n,2h,2w,c].
extern "C" __global__ void block_sum(
    const REAL* __restrict__ x, REAL* __restrict__ y, int h, int w, int c, REAL scale, long long total)
{
    EACH(e, total) {
        long long pixel = e / c, row = 2 * (long long)w * c;
        const REAL* from = x + (pixel / w * 2 * w + pixel % w) * 2 * c + e % c;
        y[e] = scale * ((from[0] + from[c]) + (from[row] + from[row + c]));
    }
}
