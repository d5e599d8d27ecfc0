"""The settled claims: what each figure must show for its verdict, and that the page was written by the command."""
import re
from pathlib import Path

import numpy as np
import pytest

from refdiff import claims
from refdiff.claims import training

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


def test_ddim_repeats_without_noise_and_only_then():
    assert [v for _, v in claims.settle(8).figures] == [0, 2000, 0]


def test_a_prediction_of_noise_is_the_score():
    schedule = training.Denoiser(training.MLP(training.MLPConfig()), training.DenoiserConfig("eps", "linear")).schedule
    assert training.identity(schedule) < 1e-11               # eps by (x - alpha x0)/sigma: up to 100 u per u
    np.testing.assert_allclose(training.amplification(schedule, 1000), [157.407, 1 / 157.407], rtol=1e-4)
    settled = training.eps_x0_v(steps=20, seeds=(0,))
    assert settled.number == 10 and all(len(row) == 2 for row in settled.figures)


def test_an_unknown_claim_is_refused():
    with pytest.raises(ValueError, match="none with the number 12, wanted one of 1, 2"):
        claims.settle(12)
    with pytest.raises(ValueError, match="verdict is 'maybe'"):
        claims.Settled(1, "", "maybe", "", ())


SLOW = {10}


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
        if isinstance(value, (str, int)):
            assert rows[what] == str(value)
        else:
            np.testing.assert_allclose(float(rows[what]), value, rtol=2e-3, err_msg=what)      # printed to four digits
