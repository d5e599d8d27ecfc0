"""Consistency functions, guidance, and the Frechet distance of Gaussians."""
from .levels import Levels
from .worlds import predict


def boundary(sigma, sigma_min, sigma_data, num, c):
    """(c_skip, c_out) with f(x, sigma_min) = x. (CM sec. C)"""
    sigma, low, data = num.real(sigma), num.real(sigma_min), num.real(sigma_data)
    if not (0 <= low <= sigma and data > 0):
        raise ValueError(f"consistency: sigma {sigma}, sigma_min {low}, sigma_data {data}: wanted sigma >= sigma_min")
    shifted = sigma - low if c.boundary == "shifted" else sigma
    return (data ** 2 / (shifted ** 2 + data ** 2), data * shifted / num.sqrt(data ** 2 + sigma ** 2))


def consistency_boundary(sigma, sigma_min, sigma_data, num, c):
    return dict(zip(("c_skip", "c_out"), boundary(sigma, sigma_min, sigma_data, num, c)))


def consistency_multistep(sigmas, x, noise, denoiser, num, c, sigma_min="0.002", sigma_data="0.5"):
    """x after f at sigmas[0] and, for every next tau, noise of sqrt(tau^2 - sigma_min^2) and f. (CM alg. 1)

    f = c_skip x + c_out F for the network F = (D - a x)/b of the world's denoiser D, a and b those of EDM.
    """
    levels, data, low = Levels("edm", None, num), num.real(sigma_data), num.real(sigma_min)
    taus, x = [num.real(s) for s in sigmas], num.array(x)
    if not taus or any(a <= b for a, b in zip(taus, [*taus[1:], low])):
        raise ValueError(f"consistency: sigmas are {sigmas}, wanted strictly falling, above sigma_min")
    for i, tau in enumerate(taus):
        if i > 0:
            gap = (tau - low) * (tau + low) if c.renoise == "sqrt(tau^2-min^2)" else tau * tau
            x = x + num.sqrt(gap) * num.array(noise[i - 1])
        D, _ = predict(denoiser, x, levels.at(tau), num)
        c_skip, c_out = boundary(tau, low, data, num, c)
        a = data ** 2 / (tau ** 2 + data ** 2)
        b = tau * data / num.sqrt(tau ** 2 + data ** 2)
        x = num.keep(c_skip * x + c_out * (D - a * x) / b)
    return {"x": x}


def guidance(conditional, unconditional, scale, num, c, rescale="0"):
    """u + s (c - u); rescale = phi brings every row's standard deviation back towards c's. (CFG eq. 6)"""
    good, bad = num.array(conditional), num.array(unconditional)
    scale, phi = num.real(scale), num.real(rescale)
    if not 0 <= phi <= 1:
        raise ValueError(f"guidance: rescale is {phi}, wanted 0..1")
    guided = (1 + scale) * good - scale * bad if c.guidance_scale == "w" else bad + scale * (good - bad)
    if phi == 0:
        return {"value": guided}
    rows = []
    for a, b in zip(good, guided):
        rows.append(phi * _std(a, num) / _std(b, num) * b + (1 - phi) * b)
    return {"value": num.array(rows)}


def _std(row, num):
    mean = sum(row) / len(row)
    total = sum((v - mean) ** 2 for v in row)
    if total == 0:
        raise ValueError("guidance: a constant row cannot be rescaled")
    return num.sqrt(total / len(row))


# ---- Frechet distance

def moments(rows, num, c):
    """Mean and covariance of rows (n, d), lists."""
    n, d = len(rows), len(rows[0])
    if n < 2:
        raise ValueError("frechet: one vector has no covariance, wanted n >= 2")
    mean = [sum(row[j] for row in rows) / n for j in range(d)]
    below = n if c.covariance_divisor == "n" else n - 1
    return mean, [[sum((row[i] - mean[i]) * (row[j] - mean[j]) for row in rows) / below for j in range(d)]
                  for i in range(d)]


def frechet(a, b, num, c):
    """|m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^1/2) of two sets of vectors (n, d). (FID eq. 6)

    The trace of the root is the sum of the singular values of X_a^T X_b, X the centred rows over sqrt(n - 1): those of
    the smaller Gram matrix, by Jacobi rotations, so that covariances without inverse need no care.
    """
    a, b = num.array(a), num.array(b)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise ValueError(f"frechet: shapes {a.shape} and {b.shape}, wanted (n, d) and (m, d)")
    (m_a, C_a), (m_b, C_b) = moments(a, num, c), moments(b, num, c)
    centred = []
    for rows, mean in ((a, m_a), (b, m_b)):
        below = len(rows) if c.covariance_divisor == "n" else len(rows) - 1
        centred.append((rows - num.array(mean)) / num.sqrt(num.real(below)))
    cross = centred[0] @ centred[1].T                          # its singular values are those of C_a^1/2 C_b^1/2
    overlap = sum(_singular_values(cross.tolist(), num))
    d = len(m_a)
    squared = (sum((p - q) ** 2 for p, q in zip(m_a, m_b)) + sum(C_a[i][i] + C_b[i][i] for i in range(d)) - 2 * overlap)
    squared = max(squared, num.real(0))
    return {"distance": num.sqrt(squared) if c.frechet_power == "root" else squared}


def _singular_values(matrix, num):
    """One-sided Jacobi: columns are rotated until they are orthogonal; their lengths are the singular values."""
    if len(matrix) < len(matrix[0]):
        matrix = [list(row) for row in zip(*matrix)]
    columns = [list(column) for column in zip(*matrix)]
    small = num.real("1e-60") if num.dtype is object else num.real("1e-32")
    size = sum(v * v for column in columns for v in column)
    for _ in range(60):
        turned = False
        for i in range(len(columns)):
            for j in range(i + 1, len(columns)):
                p, q = columns[i], columns[j]
                dot, pp, qq = sum(u * v for u, v in zip(p, q)), sum(u * u for u in p), sum(v * v for v in q)
                if dot == 0 or dot * dot <= small * pp * qq or dot * dot <= small * small * size * size:
                    continue
                turned = True
                tau = (qq - pp) / (2 * dot)
                tan = (1 if tau >= 0 else -1) / (abs(tau) + num.sqrt(1 + tau * tau))
                cos = 1 / num.sqrt(1 + tan * tan)
                sin = cos * tan
                columns[i], columns[j] = ([cos * u - sin * v for u, v in zip(p, q)],
                                          [sin * u + cos * v for u, v in zip(p, q)])
        if not turned:
            break
    return [num.sqrt(sum(u * u for u in column)) for column in columns]


OPERATIONS = {
    name: (lambda function: lambda num, c, **inputs: function(num=num, c=c, **inputs))(function)
    for name, function in (("consistency_boundary", consistency_boundary), ("consistency_multistep",
                           consistency_multistep), ("guidance", guidance), ("frechet", frechet))}
