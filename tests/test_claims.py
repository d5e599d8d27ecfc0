"""The settled claims: what each figure must show for its verdict, and that the page was written by the command."""
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from refdiff import claims
from refdiff.claims import training
from refdiff.cli import main
from refdiff.process import schedules

PAGE = Path(__file__).resolve().parents[1] / "papers" / "claims.md"


def figures(number):
    return dict(claims.settle(number).figures)


def test_the_accumulated_noise_is_what_is_predicted():
    f = figures(1)
    for t in (100, 500, 1000):
        best = f[f"t = {t}: of the best guess of that noise, sqrt(beta_t)/sigma_t E[eps given x_t]"]
        assert best < f[f"t = {t}: as a guess of the noise of step t (variance 1)"]
        share = f[f"t = {t}: sqrt(beta_t)/sigma_t"]
        mine = f[f"t = {t}: error of E[eps given x_t] as a guess of eps (variance 1)"]
        # by the tower rule: 1 - share^2 (1 - error of eps); 20,000 draws, five standard errors of a square
        np.testing.assert_allclose(best, 1 - share ** 2 * (1 - mine), atol=5 * (2 / 20000) ** .5)


def test_the_schedules_figures_are_closed_forms():
    f = figures(4)
    assert f["beta_2"] == f"{1e-4 + .0199 / 999:.8f}" and f["T for which beta_2 would be .0002"] == 200
    f = figures(2)
    ends = np.cos(np.array([.508, .008]) / 1.008 * np.pi / 2) ** 2
    np.testing.assert_allclose(f["abar_500"], ends[0] / ends[1])
    np.testing.assert_allclose(f["abar_T after the clip"], 2.4288e-9, rtol=1e-4)
    assert f["steps that the clip changes"] == 1


def test_a_wrong_alpha_is_seen_at_once():
    f = figures(3)
    assert f["greatest error of 50 steps, alpha = abar"] < .1 < f["greatest error, alpha = 1 - beta"]


def test_the_terminal_mismatch_pulls_the_mean_towards_zero():
    f = figures(5)
    linear, scaled, cosine = (f[f"{name}: after DDIM's 1000 steps from N(0, 1)"]
                              for name in ("linear", "scaled_linear", "cosine"))
    assert scaled < linear < cosine < 0
    np.testing.assert_allclose([f["linear: SNR at T"], f["scaled_linear: sqrt(abar_T), the factor of x_0 in x_T"]],
                               [4.0358e-5 / (1 - 4.0358e-5), .0046601 ** .5], rtol=1e-4)


def test_a_first_order_sampler_still_gains_beyond_a_thousand_steps():
    f = figures(6)
    ratio = f["DDIM, 1000 steps (1000 evaluations)"] / f["DDIM, 4000 steps (4000 evaluations)"]
    assert 3.6 < ratio < 4.4 and f["Heun, 50 steps (100 evaluations)"] < f["DDIM, 1000 steps (1000 evaluations)"]


def test_fifty_steps_cost_a_twentieth_and_their_law_is_further_off():
    f = figures(7)
    law = {steps: f[f"DDIM, {steps} steps: Frechet distance of the output law"] for steps in (10, 50, 1000)}
    assert law[10] > law[50] > law[1000] > 0
    ddpm = [f[f"DDPM, variance {v}, 1000 steps: Frechet distance of the output law"] for v in ("small", "large")]
    assert law[50] > max(law[1000], *ddpm)                  # "further off than 1000 steps of either"
    flow = [f[f"DDIM, {steps} steps: greatest error of a sample against the exact flow"] for steps in (50, 1000)]
    assert 15 < flow[0] / flow[1] < 25                                          # of first order: 20
    # the affine law of DDIM at Gaussian data against its closed form: N = 1000 is within 1e-5 of the data's
    assert law[1000] < 1e-5 < f["DDPM, variance small, 1000 steps: Frechet distance of the output law"] < 1e-4


def test_ddim_repeats_without_noise_and_only_then():
    assert [v for _, v in claims.settle(8).figures] == [0, 2000, 0]


def test_a_prediction_of_noise_is_the_score():
    schedule = training.Denoiser(training.MLP(training.MLPConfig()), training.DenoiserConfig("eps", "linear")).schedule
    assert training.identity(schedule) < 1e-11               # eps by (x - alpha x0)/sigma: up to 100 u per u
    np.testing.assert_allclose(training.amplification(schedule, 1000), [157.407, 1 / 157.407], rtol=1e-4)
    settled = training.eps_x0_v(steps=20, seeds=(0,))
    assert settled.number == 10 and all(len(row) == 2 for row in settled.figures)


def test_the_bound_weighs_low_noise_more():
    f = figures(11)
    schedule = schedules.linear()
    for t in (2, 500):                       # beta_t^2/(2 beta-tilde_t (1 - beta_t)(1 - abar_t)), beta-tilde put in
        beta, before = schedule.beta[t], schedule.alpha_bar[t - 1]
        weight = f[f"t = {t}: weight of the square error of eps in the bound, in nats"]
        np.testing.assert_allclose(weight, beta / (2 * (1 - before) * (1 - beta)), rtol=1e-9)
    early, middle = (f[f"error .1 in eps at t = {r}, .0001 of L_simple: bits/dim added"] for r in ("2..11", "491..500"))
    assert early > 10 * middle > 0
    assert 2 <= f["bits/dim of the ideal denoiser on four grey levels, whose entropy is 2"] < 4


def test_guided_samples_leave_the_law_of_their_class():
    f = figures(13)
    moments = {s: tuple(map(float, f[f"s = {s} (w = {w}): mean, standard deviation of the samples"].split(", ")))
               for s, w in (("1", "0"), ("4", "3"), ("7.5", "6.5"))}
    np.testing.assert_allclose(moments["1"], (.5, .25), atol=.005)         # a thousand quantiles, sigma ends at .001
    assert moments["7.5"][0] > moments["4"][0] > .5 and moments["7.5"][1] < moments["4"][1] < .25


def test_an_unknown_claim_is_refused():
    with pytest.raises(ValueError, match="none with the number 12, wanted one of 1, 2"):
        claims.settle(12)
    with pytest.raises(ValueError, match="verdict is 'maybe'"):
        claims.Settled(1, "", "maybe", "", ())


def test_all_numbers_are_known_before_the_first_is_measured(monkeypatch, tmp_path):
    monkeypatch.setattr("refdiff.cli.settling.settle", None)
    done = CliRunner().invoke(main, ["claims", "5", "99", "--markdown", str(tmp_path / "c.md")])
    assert done.exit_code == 2 and "none with the number 99" in done.output
    assert claims.known([5, 2]) == [5, 2] and claims.known() == sorted(claims.CLAIMS)


SLOW = {10}
MEASURED_IN_SECONDS = "time of"           # a ratio of times differs from run to run


@pytest.mark.parametrize("number", sorted(claims.CLAIMS))
def test_the_page_shows_what_the_command_measures(number):
    page = PAGE.read_text()
    section = re.search(rf"## {number}\. .*?(?=\n## |\Z)", page, re.S)
    assert section, f"papers/claims.md has no claim {number}; run refdiff claims --markdown papers/claims.md"
    if number in SLOW:
        return
    settled = claims.settle(number)
    assert f"**{settled.verdict.capitalize()}.** {settled.because}" in section[0]
    rows = dict(re.findall(r"^\| (.+) \| (.+) \|$", section[0], re.M))
    for what, value in settled.figures:
        if what.startswith(MEASURED_IN_SECONDS):
            assert float(rows[what]) > 5
        elif isinstance(value, (str, int)):
            assert rows[what] == str(value)
        else:
            np.testing.assert_allclose(float(rows[what]), value, rtol=2e-3, err_msg=what)      # printed to four digits
