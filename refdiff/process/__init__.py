"""The mathematics of noise: x_t = alpha_t x_0 + sigma_t eps, and what follows from it. Imports no network.

level            one noise level (t, alpha, sigma)
schedules        discrete schedules: linear, scaled_linear, cosine
gaussian         q(x_t | x_s), q(x_s | x_t, x_0) and the fixed variances
parameterization predictions (eps, x0, v, score, velocity) and preconditionings
grids            the levels that a sampler visits
maps             denoisers made from denoisers
exact            worlds whose answers are known; affine: the exact output law of a sampler on one of them
"""
