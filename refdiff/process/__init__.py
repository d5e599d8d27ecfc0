"""The mathematics of noise: x_t = alpha_t x_0 + sigma_t eps, and what follows from it. Imports no network.

level            one noise level (t, alpha, sigma)
schedules        discrete schedules: linear, scaled_linear, quadratic, cosine, both sigmoids, zero terminal SNR
families         continuous ones: VE, VP, sub-VP, flow, TrigFlow, cosine, Laplace; family: what each can be asked
sde              the SDE of a family, both ways, and its probability-flow ODE
gaussian         q(x_t | x_s), q(x_s | x_t, x_0) and the fixed variances
parameterization predictions (eps, x0, v, score, both velocities, F), their condition numbers, preconditionings
weights          of the loss at a level; times: where in time it is evaluated
grids            the levels that a sampler visits; family_grids: in a family's own time or in lambda
transfer         a denoiser of one family at the levels of another
maps             denoisers made from denoisers
exact            worlds whose answers are known; affine: the exact output law of a sampler on one of them
likelihood       log p of a denoiser by its PF-ODE, refused unless it converged; bound: the variational bound, by terms
"""
