// GroupNorm of channels-last images x[n,hw,c], alone and with time and SiLU (ops/norm_silu.py): one kernel each way.
//
// A block owns one image and `width` neighbouring channels, whole groups of `group` channels each, so that it needs
// no other block. Its threads stand in rows of `lanes` = min(width, 32): a row reads neighbouring channels of one
// pixel, the rows take the pixels in turn. Where a group is wider than a row (then width = group), the lanes go over
// it in strips. A sum goes down the rows first, which gives one number per channel, and then along the lanes.
//
//     forward     xhat = (x + e - mean)/sqrt(var + eps),  v = (gamma xhat + beta) gain + half,  y = v (1 + tanh v)
//     backward    dv = dy/dv dy,  g = gamma gain dv,  dx = (g - mean g - xhat mean(g xhat))/sqrt(var + eps)
//
// With SiLU, e, gain = (1 + scale)/2 and half = shift/2 are [n,c], and x is kept: xhat = (x - centre) rs, centre =
// mean - e, and dy/dv are found again, each time they are wanted. Alone, e = shift = 0, gain = 1, y = v: xhat is kept.

struct Place {
    int lanes, lane, row, rows;     // the thread's channels are lane, lane + lanes, ..; its pixels row, row + rows, ..
    int per;                        // lanes of one group
    int channel;                    // the block's first channel
    long long image;
};

__device__ inline Place place(int c, int group, int width)
{
    Place at;
    at.lanes = width < WARP ? width : WARP;
    at.lane = threadIdx.x % at.lanes;
    at.row = threadIdx.x / at.lanes;
    at.rows = blockDim.x / at.lanes;
    at.per = group < at.lanes ? group : at.lanes;
    at.channel = blockIdx.x % (c / width) * width;
    at.image = blockIdx.x / (c / width);
    return at;
}

// The sum of value down the rows: threads of row 0 get that of their lane, the others nothing of use.
__device__ inline REAL sum_down(REAL value, Place at)
{
    __shared__ REAL partial[THREADS];
    partial[threadIdx.x] = value;
    __syncthreads();
    if (at.row == 0)
        for (int i = 1; i < at.rows; i++) value += partial[i * at.lanes + at.lane];
    __syncthreads();
    return value;
}

// The sum of row 0's values over the lanes of a group, given to every thread of those lanes.
__device__ inline REAL sum_along(REAL value, Place at)
{
    __shared__ REAL total[WARP];
    if (at.row == 0) total[at.lane] = value;
    __syncthreads();
    REAL sum = 0;
    int first = at.lane / at.per * at.per;
    for (int i = 0; i < at.per; i++) sum += total[first + i];
    __syncthreads();
    return sum;
}

// 1 + tanh v.
__device__ inline REAL one_plus_tanh(REAL v)
{
    return REAL(2) * sigmoid(REAL(2) * v);
}

// dy/dv of y = v (1 + tanh v).
__device__ inline REAL half_silu_slope(REAL v)
{
    REAL t = one_plus_tanh(v);
    return t * (REAL(1) + v * (REAL(2) - t));
}

template <bool SILU>
__device__ inline void forward(const REAL* x, const REAL* time, const REAL* gamma, const REAL* beta, const REAL* gain,
                               const REAL* half, REAL* y, REAL* kept, REAL* centre, REAL* rs, int hw, int c, int group,
                               int width, REAL eps)
{
    Place at = place(c, group, width);
    long long start = at.image * hw * c + at.channel, edge = at.image * c + at.channel;
    REAL m = REAL(hw) * REAL(group), sum = 0, square = 0;
    for (int k = at.lane; k < width; k += at.lanes) {
        REAL moved = SILU ? time[edge + k] : REAL(0);
        for (int i = at.row; i < hw; i += at.rows) sum += x[start + (long long)i * c + k] + moved;
    }
    REAL mean = sum_along(sum_down(sum, at), at) / m;
    for (int k = at.lane; k < width; k += at.lanes) {
        REAL middle = SILU ? mean - time[edge + k] : mean;
        for (int i = at.row; i < hw; i += at.rows) {
            REAL d = x[start + (long long)i * c + k] - middle;
            square += d * d;
        }
    }
    REAL r = REAL(1) / sqrt(sum_along(sum_down(square, at), at) / m + eps);
    for (int k = at.lane; k < width; k += at.lanes) {
        REAL a = gamma[at.channel + k], b = beta[at.channel + k];
        if (SILU) a *= gain[edge + k], b = b * gain[edge + k] + half[edge + k];
        REAL middle = SILU ? mean - time[edge + k] : mean;
        if (at.row == 0) {
            rs[edge + k] = r;
            if (SILU) centre[edge + k] = middle;
        }
        for (int i = at.row; i < hw; i += at.rows) {
            long long e = start + (long long)i * c + k;
            REAL normal = (x[e] - middle) * r, v = a * normal + b;
            if (SILU) {
                y[e] = v * one_plus_tanh(v);
            } else {
                y[e] = v;
                kept[e] = normal;
            }
        }
    }
}

// kept is xhat, or with SiLU x. dgamma and dbeta come per image, (n, c): whoever calls sums them.
template <bool SILU>
__device__ inline void backward(const REAL* dy, const REAL* kept, const REAL* centre, const REAL* rs, const REAL* gamma,
                                const REAL* beta, const REAL* gain, const REAL* half, REAL* dx, REAL* de, REAL* dgamma,
                                REAL* dbeta, REAL* dscale, REAL* dshift, int hw, int c, int group, int width)
{
    Place at = place(c, group, width);
    long long start = at.image * hw * c + at.channel, edge = at.image * c + at.channel;
    REAL m = REAL(hw) * REAL(group), mean = 0, tilt = 0;        // mean g, mean(g xhat)
    for (int strip = 0; strip < width; strip += at.lanes) {
        int k = strip + at.lane;
        REAL sum = 0, dot = 0;
        if (k < width) {
            REAL middle = SILU ? centre[edge + k] : REAL(0), r = SILU ? rs[edge + k] : REAL(1), a = 0, b = 0;
            if (SILU) {
                a = gamma[at.channel + k] * gain[edge + k];
                b = beta[at.channel + k] * gain[edge + k] + half[edge + k];
            }
            for (int i = at.row; i < hw; i += at.rows) {
                long long e = start + (long long)i * c + k;
                REAL normal = (kept[e] - middle) * r, dv = SILU ? half_silu_slope(a * normal + b) * dy[e] : dy[e];
                sum += dv;
                dot += dv * normal;
            }
        }
        sum = sum_down(sum, at);
        dot = sum_down(dot, at);
        if (at.row == 0 && k < width) {
            REAL a = gamma[at.channel + k], by = SILU ? gain[edge + k] : REAL(1);
            if (SILU) {
                dshift[edge + k] = REAL(0.5) * sum;
                dscale[edge + k] = REAL(0.5) * (dot * a + sum * beta[at.channel + k]);
            }
            dbeta[edge + k] = sum * by;
            dgamma[edge + k] = dot * by;
            mean += a * by * sum;
            tilt += a * by * dot;
        }
    }
    mean = sum_along(mean, at) / m;
    tilt = sum_along(tilt, at) / m;
    for (int strip = 0; strip < width; strip += at.lanes) {
        int k = strip + at.lane;
        REAL sum = 0;
        if (k < width) {
            REAL a = gamma[at.channel + k] * (SILU ? gain[edge + k] : REAL(1)), r = rs[edge + k];
            REAL b = SILU ? beta[at.channel + k] * gain[edge + k] + half[edge + k] : REAL(0);
            REAL middle = SILU ? centre[edge + k] : REAL(0), scale = SILU ? r : REAL(1);
            for (int i = at.row; i < hw; i += at.rows) {
                long long e = start + (long long)i * c + k;
                REAL normal = (kept[e] - middle) * scale;
                REAL g = a * (SILU ? half_silu_slope(a * normal + b) * dy[e] : dy[e]);
                REAL d = (g - mean - normal * tilt) * r;
                dx[e] = d;
                sum += d;
            }
        }
        if (SILU) {
            sum = sum_down(sum, at);
            if (at.row == 0 && k < width) de[edge + k] = sum;
        }
    }
}

extern "C" __global__ void group_norm_forward(
    const REAL* __restrict__ x, const REAL* __restrict__ gamma, const REAL* __restrict__ beta, REAL* __restrict__ y,
    REAL* __restrict__ xhat, REAL* __restrict__ rs, int hw, int c, int group, int width, REAL eps)
{
    forward<false>(x, 0, gamma, beta, 0, 0, y, xhat, 0, rs, hw, c, group, width, eps);
}

extern "C" __global__ void norm_silu_forward(
    const REAL* __restrict__ x, const REAL* __restrict__ e, const REAL* __restrict__ gamma,
    const REAL* __restrict__ beta, const REAL* __restrict__ gain, const REAL* __restrict__ half, REAL* __restrict__ y,
    REAL* __restrict__ centre, REAL* __restrict__ rs, int hw, int c, int group, int width, REAL eps)
{
    forward<true>(x, e, gamma, beta, gain, half, y, 0, centre, rs, hw, c, group, width, eps);
}

extern "C" __global__ void group_norm_backward(
    const REAL* __restrict__ dy, const REAL* __restrict__ xhat, const REAL* __restrict__ rs,
    const REAL* __restrict__ gamma, REAL* __restrict__ dx, REAL* __restrict__ dgamma, REAL* __restrict__ dbeta, int hw,
    int c, int group, int width)
{
    backward<false>(dy, xhat, 0, rs, gamma, 0, 0, 0, dx, 0, dgamma, dbeta, 0, 0, hw, c, group, width);
}

extern "C" __global__ void norm_silu_backward(
    const REAL* __restrict__ dy, const REAL* __restrict__ x, const REAL* __restrict__ centre,
    const REAL* __restrict__ rs, const REAL* __restrict__ gamma, const REAL* __restrict__ beta,
    const REAL* __restrict__ gain, const REAL* __restrict__ half, REAL* __restrict__ dx, REAL* __restrict__ de,
    REAL* __restrict__ dgamma, REAL* __restrict__ dbeta, REAL* __restrict__ dscale, REAL* __restrict__ dshift, int hw,
    int c, int group, int width)
{
    backward<true>(dy, x, centre, rs, gamma, beta, gain, half, dx, de, dgamma, dbeta, dscale, dshift, hw, c, group,
                   width);
}
