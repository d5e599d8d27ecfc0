"""Interpolating polynomials and their integrals against exponentials, by Lagrange's basis and power series."""


def basis(nodes):
    """Coefficients, lowest first, of the polynomials that are 1 at one node and 0 at the others."""
    made = []
    for i, node in enumerate(nodes):
        row = [node * 0 + 1]
        for j, other in enumerate(nodes):
            if j != i:
                shifted = [0 * node, *row]
                row = [(a - other * b) / (node - other) for a, b in zip(shifted, [*row, 0 * node])]
        made.append(row)
    return made


def weights(nodes, moments):
    """w with sum_m w_m f(u_m) the integral of the polynomial through f at the nodes; moments: of 1, u, u^2, .."""
    return [sum(a * m for a, m in zip(row, moments)) for row in basis(nodes)]


def decaying(h, n, num):
    """int_0^h e^-(h-u) u^k du, k = 0..n-1."""
    if abs(h) >= 2:
        made = [-num.expm1(-h)]
        for k in range(1, n):
            made.append(h ** k - k * made[-1])
        return made
    made = []
    for k in range(n):                                   # h^(k+1) sum_j k! (-h)^j/(k+1+j)!
        term = h ** (k + 1) / (k + 1)
        total, j = term, 0
        while abs(term) > abs(total) * num.real("1e-60"):
            j += 1
            term = -term * h / (k + 1 + j)
            total += term
        made.append(total)
    return made


def growing(h, n, num):
    """int_0^h e^-u u^k du, k = 0..n-1; h None is infinity."""
    if h is None:
        made = [num.real(1)]
        for k in range(1, n):
            made.append(k * made[-1])
        return made
    if h >= 2:
        made, decay = [-num.expm1(-h)], num.exp(-h)
        for k in range(1, n):
            made.append(k * made[-1] - h ** k * decay)
        return made
    made = []
    for k in range(n):                                   # h^(k+1) sum_j (-h)^j/(j! (k+1+j))
        power, j = h ** (k + 1), 0
        total = power / (k + 1)
        while abs(power) > abs(total) * num.real("1e-60"):
            j += 1
            power = -power * h / j
            total += power / (k + 1 + j)
        made.append(total)
    return made


def integral(f, a, b, num):
    """int_a^b f by tanh-sinh: the trapezoidal rule after u = tanh(pi/2 sinh v), which forgives a singular end b = 0.

    f may be of arrays; the ends are left out.
    """
    half, total = (b - a) / 2, 0
    per_unit, reach = (24, 5) if num.dtype is object else (16, 4)
    for i in range(-reach * per_unit, reach * per_unit + 1):
        up = num.exp(num.real(i) / per_unit)
        rest = 2 / (1 + num.exp(num.pi / 2 * (up - 1 / up)))                # 1 - tanh w, from 2 to 0
        total = total + num.pi / 4 * (up + 1 / up) * rest * (2 - rest) * f(b - half * rest)
    return half / per_unit * total
