"""A denoiser moved from one family to another answers the same question: on worlds whose every answer is known."""
import math

import numpy as np
import planted
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refdiff.process import families, schedules, transfer
from refdiff.process.exact import Mixture
from refdiff.process.level import Level, ve
from refdiff.process.parameterization import KINDS, LimitError, Prediction

ALL = (*KINDS, "F")
D = .7
WORLD = Mixture([.3, .7], [[-1., .2], [.8, -.4]], [[[.16, .05], [.05, .2]], [[.25, 0.], [0., .1]]])
X = np.random.default_rng(2).standard_normal((5, 2))
FAMILIES = {"ve": families.VarianceExploding(), "vp": families.VP(), "subvp": families.SubVP(),
            "flow": families.Flow(shift=3.), "trigflow": families.TrigFlow(.5), "cosine": families.Cosine(),
            "laplace": families.Laplace(), "geometric": families.Geometric(),
            "linear": families.Interpolated(schedules.linear(1000))}


def trained_on(family, kind):
    """The world as a network of one kind, that is right at the family's levels and wrong wherever else it is asked."""
    def denoiser(x, level):
        own = family.level(level.t)
        np.testing.assert_allclose([own.alpha, own.sigma], [level.alpha, level.sigma], rtol=1e-9)
        return WORLD(x, level).to(kind, D)
    return denoiser


def check_transfer(module=transfer):
    """Every kind, at levels of any (alpha, sigma), equals the world asked directly.

    What differs is the rounding of lambda, some u (1 + |lambda|), times the slope of x_0 and eps in lambda.
    """
    for name, family in FAMILIES.items():
        for level in (ve(.7), ve(2.), Level(.3, .7, .3), Level(5, .6, .8), Level(1, 3.1, 40.)):
            x = (level.alpha + level.sigma) * X
            for kind in ALL:
                got = module.transfer(trained_on(family, kind), family)(x, level)
                assert got.kind == kind and got.level is level and got.x is x
                for target in ALL:
                    want = getattr(WORLD(x, level).to("x0", D), target)
                    np.testing.assert_allclose(getattr(got, target), want, rtol=1e-11, atol=1e-12 * np.abs(want).max(),
                                               err_msg=f"{name}, {kind} -> {target} at {level}")


def test_a_transferred_denoiser_is_the_world_at_any_level():
    check_transfer()


def test_on_its_own_family_a_transfer_changes_nothing_and_is_idempotent():
    for name, family in FAMILIES.items():
        for lam in (-3., -.4, 2.5):
            level = family.at(lam)
            for kind in ALL:
                plain = trained_on(family, kind)
                once = transfer.transfer(plain, family)
                twice = transfer.transfer(once, family)
                want = plain(X, level).value
                for moved in (once, twice):
                    np.testing.assert_allclose(moved(X, level).value, want, rtol=1e-11, atol=1e-12, err_msg=name)


def test_there_and_back_is_the_identity():
    for a in FAMILIES.values():
        for b in FAMILIES.values():
            denoiser = trained_on(a, "v")
            back = transfer.transfer(transfer.transfer(denoiser, a), b)
            level = a.at(.8)
            np.testing.assert_allclose(back(X, level).value, denoiser(X, level).value, rtol=1e-11, atol=1e-12)


@given(st.sampled_from(sorted(FAMILIES)), st.sampled_from(ALL), st.floats(-3.9, 4), st.floats(-2, 2))
def test_any_scale_of_x_is_the_same_question(name, kind, lam, log_scale):
    """(c alpha, c sigma) with c x: x_0, eps and F stay, v is c times larger, the score c times smaller."""
    moved = transfer.transfer(trained_on(FAMILIES[name], kind), FAMILIES[name])
    one, c = families.TrigFlow().at(lam), math.exp(log_scale)
    a, b = moved(X, one), moved(c * X, Level(one.t, c * one.alpha, c * one.sigma))
    np.testing.assert_allclose(b.value, a.value * c ** {"v": 1, "score": -1}.get(kind, 0), rtol=1e-10, atol=1e-11)


def test_rows_have_their_own_level():
    angle = np.array([.3, .6, .9, 1.2, 1.4])
    rows = Level(angle, np.cos(angle), np.sin(angle))
    for kind in ALL:
        moved = transfer.transfer(lambda x, level: WORLD(x, level).to(kind, D), families.VP())
        whole = moved(X, rows)
        for i in range(5):
            one = Level(angle[i], rows.alpha[i], rows.sigma[i])
            np.testing.assert_allclose(whole.value[i:i + 1], moved(X[i:i + 1], one).value, rtol=1e-11)


def test_the_ends_are_asked_where_the_family_has_them_and_refused_by_name_elsewhere():
    pure, clean = Level(1., 0., 2.), Level(0., .5, 0.)
    for name in ("flow", "trigflow", "cosine", "laplace"):
        family = FAMILIES[name]
        for kind in ("v", "velocity", "x0", "F"):
            seen = transfer.transfer(trained_on(family, kind), family)(X, pure)
            np.testing.assert_allclose(seen.x0, np.broadcast_to(WORLD.posterior_mean(X, pure), X.shape), rtol=1e-13)
            np.testing.assert_allclose(seen.eps, X / 2, rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(transfer.transfer(trained_on(family, "x0"), family)(X, clean).x0, 2 * X, rtol=1e-14)
    with pytest.raises(LimitError, match="alpha = 0"):
        transfer.transfer(lambda x, level: Prediction("eps", x, x, level), families.Flow())(X, pure).x0
    for name, level in (("vp", pure), ("ve", pure), ("linear", pure), ("geometric", ve(51.))):
        with pytest.raises(ValueError, match="(?s)(lambda is|finite)"):
            transfer.transfer(trained_on(FAMILIES[name], "v"), FAMILIES[name])(X, level)


def test_a_map_that_answers_for_another_point_keeps_it():
    """The answer's own x comes back in the asked level's scale."""
    def elsewhere(x, level):
        return WORLD(x + 1., level)
    level = ve(2.)
    got = transfer.transfer(elsewhere, families.VP())(X, level)
    r = math.hypot(1., 2.)                                           # x/r is the VP network's input
    np.testing.assert_allclose(got.x, X + r, rtol=1e-13)
    np.testing.assert_allclose(got.x0, WORLD(X + r, level).x0, rtol=1e-12)


def test_dtype_is_kept():
    x = X.astype(np.float32)
    for kind in ALL:
        got = transfer.transfer(lambda y, level: WORLD(y, level).to(kind, D), families.VP())(x, ve(1.))
        assert got.value.dtype == got.x.dtype == np.float32


MUTANTS = [("(own.alpha + own.sigma) / (", "(own.alpha + 1.001 * own.sigma) / ("),
           ("asked = expand(r, x) * x", "asked = 1 * x"), ('"v": 1,', '"v": 0,'), ('"score": -1', '"score": 1'),
           ("denoiser(asked, own)", "denoiser(asked, level)"), ("family.at(level.lam)", "family.at(2 * level.lam)")]


@pytest.mark.parametrize("old, new", MUTANTS, ids=range(len(MUTANTS)))
def test_every_mutant_is_killed(old, new):
    with pytest.raises((AssertionError, ValueError)):
        check_transfer(planted.mutant("process.transfer", (old, new)))
