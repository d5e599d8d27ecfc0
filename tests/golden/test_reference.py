"""The reference against what it shares nothing with: closed forms, exact flows, other methods that must coincide."""
import math

import mpmath
import numpy as np
import pytest
import scipy.linalg

from refdiff.golden import store
from refdiff.golden.families.build import condition, flat, is_number, numbers
from refdiff.golden.reference import levels, polynomials, singlestep, tables, worlds
from refdiff.golden.reference.answer import answer
from refdiff.golden.reference.numbers import FLOAT, exact, perturbed

EXACT = exact(50)
GAUSSIAN = {"world": "gaussian", "mean": "0.5", "std": "0.7"}
X = [["0.3", "-1.2"], ["2", "0.1"]]
NOISE = [numbers(i, (2, 2)) for i in range(40)]


def trajectory(sampler, steps, num=FLOAT, schedule="linear", T=1000, rule="trailing", final="zero", world=GAUSSIAN,
               **options):
    return answer("trajectory", {"sampler": sampler, "schedule": schedule, "T": T, "steps": steps, "rule": rule,
                                 "final": final, "x": X, "denoiser": world, "noise": NOISE, **options}, num)["x"]


def close(a, b, rtol=1e-40):
    a, b = flat(a), flat(b)
    assert len(a) == len(b)
    assert max(abs(p - q) for p, q in zip(a, b)) <= EXACT.real(rtol) * max(abs(q) for q in b)


# ---- schedules and levels

@pytest.mark.parametrize("name, at, value", [
    ("linear", 1000, 4.0358e-5), ("scaled_linear", 1000, 0.0046601), ("cosine", 999, 2.4288e-6),
    ("cosine", 1000, 2.4288e-9), ("sigmoid", 500, 0.302), ("sigmoid_alpha_bar", 1000, 3.0e-7)])
def test_schedules_have_the_constants_that_are_known(name, at, value):
    made = answer("schedule", {"name": name, "T": 1000}, EXACT)["alpha_bar"]
    assert float(made[at]) == pytest.approx(value, rel=4e-3)


def test_abar_is_the_product_of_one_minus_beta():
    for name in ("linear", "cosine", "sigmoid_alpha_bar"):
        made = answer("schedule", {"name": name, "T": 100}, EXACT)
        product = [EXACT.real(1)]
        for beta in made["beta"][1:]:
            product.append(product[-1] * (1 - beta))
        close(made["alpha_bar"], product)
        close(made["one_minus_alpha_bar"], [1 - p for p in product])


def test_cosine_is_its_definition_where_it_is_not_clipped():
    made = answer("schedule", {"name": "cosine", "T": 50}, EXACT)["alpha_bar"]
    with mpmath.workdps(50):
        f = [mpmath.cos((mpmath.mpf(t) / 50 + mpmath.mpf("0.008")) / mpmath.mpf("1.008") * mpmath.pi / 2) ** 2
             for t in range(50)]
        close(made[:50], [v / f[0] for v in f])


@pytest.mark.parametrize("T, t, params", [(1000, 999, {}), (1000, 500, {}), (1000, 1, {}), (50, 49, {"s": "0.2"}),
                                          (1000, 1000, {}), (100, 100, {"beta_max": "0.9"})])
def test_the_cosines_steepness_is_the_slope_of_abar_in_its_angle(T, t, params):
    made = tables.table("cosine", T, EXACT, **params)
    s, cut = EXACT.real(params.get("s", "0.008")), EXACT.real(params.get("beta_max", "0.999"))
    last = max(u for u in range(t + 1) if made.beta[u] != cut)                # the betas after it do not move with it
    with mpmath.workdps(50):
        angle, d = (mpmath.mpf(last) / T + mpmath.mpf(s)) / (1 + mpmath.mpf(s)) * mpmath.pi / 2, mpmath.mpf("1e-25")
        slope = abs(mpmath.cos(angle * (1 + d)) ** 2 / mpmath.cos(angle) ** 2 - 1) / d
    assert float(made.steepness[t]) == pytest.approx(float(slope), rel=1e-15)
    assert (float(made.steepness[t]) > 1900) == ((T, t) in ((1000, 999), (1000, 1000)))


def test_the_jabri_sigmoid_is_its_definition():
    made = answer("schedule", {"name": "sigmoid_alpha_bar", "T": 20}, EXACT)["alpha_bar"]
    with mpmath.workdps(50):
        S = [1 / (1 + mpmath.exp(-(mpmath.mpf(-3) + mpmath.mpf(6) * t / 20))) for t in range(21)]
        close(made[:20], [(S[20] - s) / (S[20] - S[0]) for s in S[:20]])


@pytest.mark.parametrize("rule, T, S, times", [
    ("leading", 1000, 10, [901, 801, 701, 601, 501, 401, 301, 201, 101, 1, 0]),
    ("trailing", 1000, 10, [1000, 900, 800, 700, 600, 500, 400, 300, 200, 100, 0]),
    ("linspace", 1000, 10, [1000, 889, 778, 667, 556, 445, 334, 223, 112, 1, 0]),
    ("quadratic", 1000, 10, [801, 633, 484, 356, 247, 159, 89, 40, 10, 1, 0]),
    ("stride", 100, 30, [*range(88, 0, -3), 0])])
def test_grids_are_those_that_papers_and_code_list(rule, T, S, times):
    assert answer("grid", {"schedule": "linear", "T": T, "rule": rule, "steps": S, "final": "zero"})["t"] == times


def test_a_tie_is_rounded_as_it_is_asked_for():
    assert levels.times("trailing", 1000, 16, "even")[0] == 62 and levels.times("trailing", 1000, 16, "up")[0] == 63
    assert levels.times("trailing", 1000, 16, "ceil")[0] == 63 and levels.times("trailing", 1000, 16, "floor")[0] == 62


def test_uniform_lambda_is_uniform_in_lambda():
    made = levels.grid("vp", None, "uniform_lambda", 7, "none", EXACT)
    lam = [levels.lam(level, EXACT) for level in made]
    close([b - a for a, b in zip(lam, lam[1:])], [(lam[-1] - lam[0]) / 7] * 7, "1e-38")


# ---- polynomials

@pytest.mark.parametrize("h", ["0.01", "0.7", "2.5", "9"])
@pytest.mark.parametrize("k", [0, 1, 3])
def test_moments_are_their_integrals(h, k):
    with mpmath.workdps(50):
        h = mpmath.mpf(h)
        decaying = mpmath.quad(lambda u: mpmath.exp(-(h - u)) * u ** k, [0, h])
        growing = mpmath.quad(lambda u: mpmath.exp(-u) * u ** k, [0, h])
        close([polynomials.decaying(EXACT.real(h), k + 1, EXACT)[k]], [decaying], "1e-38")
        close([polynomials.growing(EXACT.real(h), k + 1, EXACT)[k]], [growing], "1e-38")


def test_weights_integrate_polynomials_exactly():
    nodes = [EXACT.real(v) for v in ("0", "-0.3", "-1.1")]
    w = polynomials.weights(nodes, [EXACT.real(1), EXACT.real(1) / 2, EXACT.real(1) / 3])
    close([sum(a * (2 - 3 * u + 5 * u * u) for a, u in zip(w, nodes))], [2 - EXACT.real(3) / 2 + EXACT.real(5) / 3])


# ---- steps

def step(sampler, num=EXACT, schedule="linear", T=1000, t=500, s=480, noise=NOISE[0], **options):
    return answer("step", {"sampler": sampler, "schedule": schedule, "T": T, "t": t, "s": s, "x": X,
                           "prediction": numbers(9, (2, 2)), "noise": noise, **options}, num)["x"]


def test_ddim_with_eta_1_is_ddpm_and_ancestral_and_sde_dpmpp():
    ddpm = step("ddpm", variance="small")
    for other in (step("ddim", eta="1"), step("euler_ancestral", eta="1"), step("ancestral", variance="small"),
                  step("sde_dpmpp", order=1, tau="1")):
        close(other, ddpm)


def test_ddim_without_noise_is_euler_and_the_first_order_of_all():
    ddim = step("ddim", eta="0")
    for sampler in ("euler", "dpmpp", "lms", "plms", "deis", "unipc"):
        close(step(sampler, **({} if sampler == "euler" else {"order": 1})), ddim)


def test_ddpm_is_the_papers_algorithm_2():
    """x_{t-1} = (x - beta/sqrt(1 - abar) eps)/sqrt(alpha) + sqrt(beta) z, as it is printed."""
    t, made = 500, answer("schedule", {"name": "linear", "T": 1000}, EXACT)
    beta, noise = made["beta"][t], made["one_minus_alpha_bar"][t]
    x, eps, z = (EXACT.array(v) for v in (X, numbers(9, (2, 2)), NOISE[0]))
    wanted = (x - beta / EXACT.sqrt(noise) * eps) / EXACT.sqrt(1 - beta) + EXACT.sqrt(beta) * z
    close(step("ddpm", t=t, s=t - 1, variance="large"), wanted)


def test_the_posterior_is_equation_7():
    t, made = 300, answer("schedule", {"name": "linear", "T": 1000}, EXACT)
    beta, a, before = made["beta"][t], made["alpha_bar"][t], made["alpha_bar"][t - 1]
    got = answer("posterior", {"x0": X, "x_t": NOISE[1], "schedule": "linear", "T": 1000, "t": t}, EXACT)
    x0, x_t = EXACT.array(X), EXACT.array(NOISE[1])
    close(got["mean"], EXACT.sqrt(before) * beta / (1 - a) * x0 + EXACT.sqrt(1 - beta) * (1 - before) / (1 - a) * x_t)
    close([got["variance"]], [(1 - before) / (1 - a) * beta])


def test_dpm_solver_3_is_algorithm_2_of_its_paper_and_the_network_is_called_at_its_two_points():
    """Level by level with e^h, as printed; the network's answers are drawn."""
    made = levels.Levels("linear", 1000, EXACT)
    s, t = made.at(500), made.at(480)
    h, x = levels.lam(t, EXACT) - levels.lam(s, EXACT), EXACT.array(X)
    eps, *inside = (EXACT.array(numbers(i, (2, 2))) for i in (9, 40, 41))
    r1, r2 = EXACT.real(1) / 3, EXACT.real(2) / 3
    (alpha1, sigma1), (alpha2, sigma2) = (
        (1 / EXACT.sqrt(1 + ratio ** 2), ratio / EXACT.sqrt(1 + ratio ** 2))
        for ratio in (EXACT.exp(-levels.lam(s, EXACT) - r * h) for r in (r1, r2)))
    u1 = alpha1 / s.alpha * x - sigma1 * EXACT.expm1(r1 * h) * eps
    D1, D2 = inside[0] - eps, inside[1] - eps
    u2 = (alpha2 / s.alpha * x - sigma2 * EXACT.expm1(r2 * h) * eps
          - sigma2 * r2 / r1 * (EXACT.expm1(r2 * h) / (r2 * h) - 1) * D1)
    end = (t.alpha / s.alpha * x - t.sigma * EXACT.expm1(h) * eps - t.sigma / r2 * (EXACT.expm1(h) / h - 1) * D2)
    asked, answers = [], iter(inside)

    def model(y, level):
        asked.append(y)
        return next(answers)
    close(singlestep.dpm(x, None, eps, s, t, EXACT, model, made.of_lambda, 3), end, "1e-45")
    close(asked[0], u1, "1e-45")
    close(asked[1], u2, "1e-45")


def test_a_step_of_deis_in_t_integrates_a_parabola_in_t_exactly():
    t, s, before = (EXACT.real(v) for v in ("0.5", "0.45", "0.55"))
    got = answer("step", {"sampler": "deis", "schedule": "vp", "T": None, "t": t, "s": s, "x": [["0"]], "order": 2,
                          "prediction": [[3 + 2 * t]], "earlier_t": [before], "earlier": [[[3 + 2 * before]]],
                          "variable": "t"}, EXACT)["x"][0, 0]
    with mpmath.workdps(50):
        def B(u):
            return mpmath.mpf("0.1") * u + mpmath.mpf("19.9") * u * u / 2

        def by_parts(u):
            return mpmath.sqrt(mpmath.expm1(B(u)))
        end = (3 + 2 * s) * by_parts(s) - (3 + 2 * t) * by_parts(t) - 2 * mpmath.quad(by_parts, [t, s])
        close([got], [mpmath.exp(-B(s) / 2) * end], "1e-40")


def test_a_singular_end_is_integrated_to_all_digits():
    close([polynomials.integral(lambda u: 1 / EXACT.sqrt(u), EXACT.real(4), EXACT.real(0), EXACT)], [EXACT.real(-4)],
          "1e-45")
    got = polynomials.integral(lambda u: np.array([1 / u ** 0.5, u * u]), 4.0, 0.0, FLOAT)
    np.testing.assert_allclose(got, [-4, -64 / 3], rtol=1e-12)


@pytest.mark.parametrize("case", store.load("threshold/p*"), ids=lambda case: case.id)
def test_thresholding_takes_numpys_quantile(case):
    given = case.inputs
    limit, cap = given.get("limit", 1.0), given.get("cap", np.inf)
    s = np.clip(np.quantile(abs(given["x0"]), given["percentile"], axis=1, keepdims=True), limit, cap)
    np.testing.assert_allclose(case.expected["x0"], np.clip(given["x0"], -s, s) * limit / s, rtol=1e-13)
    assert abs(case.expected["x0"]).max() <= limit * (1 + 1e-15)


# ---- trajectories

def flow(schedule="linear", T=1000, start=1000, end=0, num=EXACT):
    world = {"world": "gaussian", "mean": num.real("0.5"), "std": num.real("0.7")}
    made = levels.Levels(schedule, T, num)
    return worlds.exact_flow(world, num.array(X), made.at(start), made.at(end))


@pytest.mark.parametrize("sampler, options, order", [
    ("ddim", {"eta": "0"}, 1), ("euler", {}, 1), ("heun", {}, 2),
    ("dpmpp", {"order": 2, "lower_order_final": "never"}, 2),
    ("unipc", {"order": 2, "lower_order_final": "never", "corrector": "never"}, 2), ("lms", {"order": 2}, 2),
    ("deis", {"order": 2, "variable": "lambda"}, 2), ("deis", {"order": 2, "variable": "t"}, 2),
    ("dpm", {"order": 2}, 2), ("dpm", {"order": 2, "solver_rule": "exact"}, 2), ("dpm", {"order": 3}, 3),
    ("dpm", {"order": 3, "solver_rule": "exact"}, 3)])
def test_solvers_converge_to_the_exact_flow_with_their_order(sampler, options, order):
    grid = {"schedule": "edm", "T": None, "rule": "karras", "final": "none",
            "grid_options": {"sigma_min": "0.1", "sigma_max": "10"}}
    world = {"world": "gaussian", "mean": 0.5, "std": 0.7}
    levels_ = levels.Levels("edm", None, FLOAT)
    truth = worlds.exact_flow(world, np.array(X, dtype=float), levels_.at(10.0), levels_.at(0.1))
    errors = [abs(trajectory(sampler, S, **grid, **options) - truth).max() for S in (64, 128)]
    assert order - 0.35 < math.log2(errors[0] / errors[1]) < order + 0.7, errors


def test_heun_with_many_steps_ends_where_the_flow_does():
    got = trajectory("heun", 500).astype(float)
    np.testing.assert_allclose(got, flow().astype(float), rtol=1e-3)


def test_a_mixture_of_one_part_is_the_gaussian():
    one = {"world": "mixture", "weights": ["1"], "means": ["0.5"], "stds": ["0.7"]}
    close(trajectory("ddim", 5, EXACT, world=one), trajectory("ddim", 5, EXACT))


def test_the_mixtures_denoiser_is_its_integral():
    world = {"world": "mixture", "weights": ["0.3", "0.7"], "means": ["-1", "0.8"], "stds": ["0.2", "0.4"]}
    level = levels.Levels("edm", None, FLOAT).at(0.9)
    grid = np.linspace(-6, 6, 40001)
    prior = sum(w / s * np.exp(-(grid - m) ** 2 / (2 * s * s)) for w, m, s in ((0.3, -1, 0.2), (0.7, 0.8, 0.4)))
    weight = prior * np.exp(-(0.4 - grid) ** 2 / (2 * 0.81))
    got, _ = worlds.predict(world, np.array([[0.4]]), level, FLOAT)
    assert got[0, 0] == pytest.approx(float((grid * weight).sum() / weight.sum()), rel=1e-10)


@pytest.mark.parametrize("name", ["ddim-constant-eps", "euler-constant-eps", "heun-line", "dpmpp1-constant-x0"])
def test_one_step_methods_end_on_the_integral(name):
    case = store.load(f"exactness/{name}/n4")[0]
    world, x = case.inputs["denoiser"], case.inputs["x"]
    a, b = 10.0, 0.1
    coefficients = world["coefficients"]
    if world["kind"] == "eps":
        end = x + sum(c * (b ** (k + 1) - a ** (k + 1)) / (k + 1) for k, c in enumerate(coefficients))
    else:
        end = coefficients[0] + b / a * (x - coefficients[0])
    np.testing.assert_allclose(case.expected["x"], end, rtol=1e-14)


def test_multistep_methods_leave_the_integral_only_by_their_first_steps():
    """With as much history as they need, a step of lms 3 on a parabola and of dpmpp 2 on a line is the integral."""
    u = [EXACT.real(v) for v in ("3", "4", "5")]
    f = [EXACT.real("0.3") + EXACT.real("0.11") * v - EXACT.real("0.02") * v * v for v in u]
    got = answer("step", {"sampler": "lms", "schedule": "edm", "T": None, "t": "3", "s": "2", "x": [["1"]],
                          "prediction": [[f[0]]], "earlier_t": ["4", "5"], "earlier": [[[f[1]]], [[f[2]]]]}, EXACT)
    F = [EXACT.real("0.3") * v + EXACT.real("0.055") * v ** 2 - EXACT.real("0.02") / 3 * v ** 3
         for v in (EXACT.real(2), EXACT.real(3))]
    close(got["x"], [1 + F[0] - F[1]])
    lam = [-EXACT.log(v) for v in u[:2]]
    got = answer("step", {"sampler": "dpmpp", "schedule": "edm", "T": None, "t": "3", "s": "2", "x": [["1"]],
                          "kind": "x0", "order": 2, "solver_rule": "exact", "prediction": [[lam[0]]],
                          "earlier_t": ["4"], "earlier": [[[lam[1]]]]}, EXACT)
    h = EXACT.log(EXACT.real(3) / 2)
    with mpmath.workdps(50):
        end = mpmath.quad(lambda v: mpmath.exp(-(h - v)) * (lam[0] + v), [0, h])
    close(got["x"], [EXACT.real(2) / 3 + end], "1e-38")


# ---- training, distances

def test_adam_is_written_out():
    """Two updates by hand at 50 digits."""
    got = answer("adamw", {"theta": ["1"], "grads": [["2"], ["-1"]], "lr": "0.1"}, EXACT)
    b1, b2, eps = EXACT.real("0.9"), EXACT.real("0.999"), EXACT.real("1e-8")
    lr, theta = EXACT.real("0.1"), EXACT.real(1)
    m1, v1 = (1 - b1) * 2, (1 - b2) * 4
    theta -= lr * 2 / (EXACT.sqrt(EXACT.real(4)) + eps)
    m2, v2 = b1 * m1 - (1 - b1), b2 * v1 + (1 - b2)
    theta -= lr * (m2 / (1 - b1 ** 2)) / (EXACT.sqrt(v2 / (1 - b2 ** 2)) + eps)
    close(got["theta"], [theta])
    close([got["m"][0], got["v"][0]], [m2, v2])


def test_the_decoders_bins_sum_to_one():
    total = sum(2 ** -float(answer("bound_decoder", {"x0": [[2 * g / 255 - 1]], "mean": [[0.3]], "log_var": -4.0}
                                   )["bits"][0]) for g in range(256))
    assert total == pytest.approx(1, abs=1e-12)


def test_the_divergence_of_two_normals_is_its_integral():
    got = answer("bound_term", {"x0": [["0.4"]], "x_t": [["0.7"]], "x0_hat": [["-0.2"]], "schedule": "linear",
                                "T": 10, "t": 5, "kind": "large"})["bits"][0]
    q = answer("posterior", {"x0": [["0.4"]], "x_t": [["0.7"]], "schedule": "linear", "T": 10, "t": 5})
    p = answer("posterior", {"x0": [["-0.2"]], "x_t": [["0.7"]], "schedule": "linear", "T": 10, "t": 5,
                             "variance": "large"})
    m, s, m2, s2 = float(q["mean"][0][0]), q["variance"] ** 0.5, float(p["mean"][0][0]), p["variance"] ** 0.5
    z = np.linspace(-12, 12, 200001)
    x = m + s * z
    log_q, log_p = -z * z / 2 - math.log(s), -((x - m2) / s2) ** 2 / 2 - math.log(s2)
    nats = np.trapezoid(np.exp(-z * z / 2) / math.sqrt(2 * math.pi) * (log_q - log_p), z)
    assert got == pytest.approx(nats / math.log(2), rel=1e-9)


@pytest.mark.parametrize("n, m, d", [(20, 30, 3), (40, 40, 5)])
def test_frechet_is_scipys_square_root_where_there_is_one(n, m, d):
    rng = np.random.default_rng(n)
    a, b = rng.normal(size=(n, d)), rng.normal(size=(m, d)) * 2 + 1
    C, D = np.cov(a.T), np.cov(b.T)
    wanted = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(C + D - 2 * scipy.linalg.sqrtm(C @ D).real)
    assert float(answer("frechet", {"a": a, "b": b}, EXACT)["distance"]) == pytest.approx(wanted, rel=1e-11)


def test_frechet_of_a_set_and_its_shift_is_the_shift():
    case = store.load("frechet/shifted")[0]
    assert case.expected["distance"] == pytest.approx(3 * 0.25, rel=1e-14)


def test_the_consistency_function_is_the_identity_at_its_least_sigma():
    got = answer("consistency_boundary", {"sigma": "0.002", "sigma_min": "0.002", "sigma_data": "0.5"}, EXACT)
    assert got["c_skip"] == 1 and got["c_out"] == 0


# ---- numbers

def test_float64_agrees_with_fifty_digits_on_every_case_within_its_tolerance():
    """The reference in float64 is what audits call: it must be as good as the tolerances ask of others."""
    worst = []
    for case in store.load():
        if case.oracle.startswith("mpmath") and case.verdict != "invalid":
            got = answer(case.operation, _plain(case.inputs))
            for field, wanted in case.expected.items():
                a, b = (np.array([float(v) for v in flat(value)]) for value in (got[field], wanted))
                scale = abs(b).max() or 1.0
                worst.append((abs(a - b).max() / scale / case.tolerance["float64"], case.id))
    assert max(worst)[0] <= 1, sorted(worst)[-5:]


def _plain(value):
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    return value


def test_a_condition_number_is_the_slope_of_the_worst_input():
    """x/alpha - sigma/alpha eps at alpha = 1e-3: an error of 1e-20 in sigma eps is 1e-17 of x0 or so."""
    inputs = {"kind": "eps", "to": "x0", "value": [["0.3"]], "x": [["0.3001"]], "alpha": "0.001", "sigma": "0.9999995"}
    truth = answer("convert", inputs, EXACT)
    analytic = 0.3 / 0.001 / float(abs(truth["value"][0][0]))
    assert analytic / 10 < condition("convert", inputs, truth, EXACT) < 10 * analytic


def test_perturbed_numbers_repeat_and_stay_within_delta():
    one, other = ([num.stored(EXACT.real(1)) - 1 for _ in range(100)] for num in (perturbed(EXACT, 3),) * 2)
    again = perturbed(EXACT, 3)
    assert one == [again.stored(EXACT.real(1)) - 1 for _ in range(100)] and one != other
    assert 0 < max(abs(v) for v in one + other) <= EXACT.real("1e-20") < 2 * max(abs(v) for v in one)


def test_what_reads_as_a_number_is_one():
    assert is_number("1e-9") and is_number("nan") and not is_number("small")


def test_the_reference_shares_no_code_with_the_rooms():
    import ast
    from pathlib import Path

    import refdiff.golden.reference as package
    for path in Path(package.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level > 1:
                assert node.level == 2 and node.module == "conventions", (path.name, node.module)
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [
                node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            assert not any(name.startswith("refdiff") for name in names), path.name
