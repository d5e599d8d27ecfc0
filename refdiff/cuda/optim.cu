// AdamW and the moving average of theta: one pass over the vectors.
//
//     g = factor grad;  m <- beta1 m + (1 - beta1) g;  v <- beta2 v + (1 - beta2) g^2
//     theta <- theta - (lr (m/correct1)/(sqrt(v/correct2) + eps) + decay theta);  ema <- keep ema + (1 - keep) theta
//
// correct1 = 1 - beta1^t, correct2 = 1 - beta2^t; the numbers come in double and are rounded to REAL here, once.

template <bool EMA>
__device__ inline void update(REAL* theta, const REAL* grad, REAL* m, REAL* v, REAL* ema, double factor, double beta1,
                              double beta2, double correct1, double correct2, double lr, double eps, double decay,
                              double keep, long long total)
{
    REAL clip = REAL(factor), b1 = REAL(beta1), a1 = REAL(1 - beta1), b2 = REAL(beta2), a2 = REAL(1 - beta2);
    REAL c1 = REAL(correct1), c2 = REAL(correct2), rate = REAL(lr), least = REAL(eps), shrink = REAL(decay);
    REAL old = REAL(keep), fresh = REAL(1 - keep);
    for (long long e = (long long)blockIdx.x * blockDim.x + threadIdx.x; e < total;
         e += (long long)gridDim.x * blockDim.x) {
        REAL g = clip * grad[e], mean = b1 * m[e] + a1 * g, square = b2 * v[e] + a2 * g * g;
        REAL next = theta[e] - (rate * (mean / c1) / (sqrt(square / c2) + least) + shrink * theta[e]);
        m[e] = mean;
        v[e] = square;
        theta[e] = next;
        if (EMA) ema[e] = old * ema[e] + fresh * next;
    }
}

extern "C" __global__ void adamw(
    REAL* __restrict__ theta, const REAL* __restrict__ grad, REAL* __restrict__ m, REAL* __restrict__ v, double factor,
    double beta1, double beta2, double correct1, double correct2, double lr, double eps, double decay, long long total)
{
    update<false>(theta, grad, m, v, 0, factor, beta1, beta2, correct1, correct2, lr, eps, decay, 0, total);
}

extern "C" __global__ void adamw_ema(
    REAL* __restrict__ theta, const REAL* __restrict__ grad, REAL* __restrict__ m, REAL* __restrict__ v,
    REAL* __restrict__ ema, double factor, double beta1, double beta2, double correct1, double correct2, double lr,
    double eps, double decay, double keep, long long total)
{
    update<true>(theta, grad, m, v, ema, factor, beta1, beta2, correct1, correct2, lr, eps, decay, keep, total);
}
