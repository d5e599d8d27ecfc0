// Sums down the rows of x[b,rows,c], and of x y: out[b,part,c] from rows rows part/parts .. rows (part+1)/parts - 1.
// A second launch sums the parts. Blocks of 32 lanes, neighbouring columns, by blockDim/32 rows; b parts ceil(c/32) of
// them.
// The order of every sum is fixed by the sizes: the same bits on every run.

template <bool DOT>
__device__ inline void sum_part(const REAL* x, const REAL* y, REAL* out, int rows, int c, int parts)
{
    __shared__ REAL partial[THREADS];
    int strips = (c + WARP - 1) / WARP, lane = threadIdx.x % WARP, row = threadIdx.x / WARP;
    int column = blockIdx.x % strips * WARP + lane, part = blockIdx.x / strips % parts;
    long long b = blockIdx.x / strips / parts;
    long long first = (long long)rows * part / parts, last = (long long)rows * (part + 1) / parts;
    REAL sum = 0;
    if (column < c)
        for (long long i = first + row; i < last; i += blockDim.x / WARP) {
            long long e = (b * rows + i) * c + column;
            sum += DOT ? x[e] * y[e] : x[e];
        }
    partial[threadIdx.x] = sum;
    __syncthreads();
    if (row == 0 && column < c) {
        for (int i = WARP + lane; i < blockDim.x; i += WARP) sum += partial[i];
        out[(b * parts + part) * c + column] = sum;
    }
}

extern "C" __global__ void sum_rows(const REAL* __restrict__ x, REAL* __restrict__ out, int rows, int c, int parts)
{
    sum_part<false>(x, 0, out, rows, c, parts);
}

extern "C" __global__ void dot_rows(
    const REAL* __restrict__ x, const REAL* __restrict__ y, REAL* __restrict__ out, int rows, int c, int parts)
{
    sum_part<true>(x, y, out, rows, c, parts);
}
