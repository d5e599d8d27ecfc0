// The windows of a channels-last image, gathered into the rows of a matrix: the convolution is then one product.
//
//     rows[(n,p,q), (i,j,c)] = u[n, step p + i - top, step q + j - top, c],   u[n, spread a, spread b] = x[n, a, b],
//
// u is 0 between those entries and outside. Forward: spread 1. The transpose, which is a convolution of the spread-out
// dy: step 1 (refdiff/ops/conv.py). Neither padding nor spreading is ever written to memory.
// A block takes the windows' row i of one row p of the output; grid: n p k blocks.

template <typename T>
__device__ inline void gather(const T* x, T* rows, int h, int w, int c, int p, int q, int k, int step, int spread,
                              int top)
{
    int i = blockIdx.x % k, at_p = blockIdx.x / k % p;
    long long n = blockIdx.x / k / p;
    int a = step * at_p + i - top;
    bool row_there = a >= 0 && a % spread == 0 && a / spread < h;
    const T* line = x + (n * h + a / spread) * w * c;
    T* out = rows + (n * p + at_p) * q * k * k * c + (long long)i * k * c;
    for (int e = threadIdx.x; e < q * k * c; e += blockDim.x) {
        int at_q = e / (k * c), rest = e % (k * c), b = step * at_q + rest / c - top;
        bool there = row_there && b >= 0 && b % spread == 0 && b / spread < w;
        out[(long long)at_q * k * k * c + rest] = there ? line[(long long)(b / spread) * c + rest % c] : T();
    }
}

struct __align__(16) Sixteen {                              // bytes: four floats or two doubles, moved at once
    double a, b;
};

extern "C" __global__ void windows(
    const REAL* __restrict__ x, REAL* __restrict__ rows, int h, int w, int c, int p, int q, int k, int step, int spread,
    int top)
{
    gather(x, rows, h, w, c, p, q, k, step, spread, top);
}

// The same where c is a multiple of 4 floats or 2 doubles and both arrays begin at a multiple of 16 bytes.
extern "C" __global__ void windows_wide(
    const REAL* __restrict__ x, REAL* __restrict__ rows, int h, int w, int c, int p, int q, int k, int step, int spread,
    int top)
{
    gather((const Sixteen*)x, (Sixteen*)rows, h, w, c / int(sizeof(Sixteen) / sizeof(REAL)), p, q, k, step, spread,
           top);
}
