"""Named noise: the same name, the same numbers - on every backend, in every process, for every batch size.

The oracle of the streams is Philox-4x64-10 written out in Python integers from the paper [PHILOX],
keyed by the hash of the name written out as bytes.
"""
import hashlib

import numpy as np
import pytest
import scipy.stats
import standin

from refdiff import backend
from refdiff.rng import Key

MASK = 2**64 - 1


def philox(counter, key):
    """One block of Philox-4x64-10: four 64-bit numbers from a 256-bit counter and a 128-bit key."""
    x, k = list(counter), list(key)
    for _ in range(10):
        high0, low0 = divmod(0xD2E7470EE14C6C93 * x[0], 2**64)
        high1, low1 = divmod(0xCA5A826395121157 * x[2], 2**64)
        x = [high1 ^ x[1] ^ k[0], low1, high0 ^ x[3] ^ k[1], low0]
        k = [(k[0] + 0x9E3779B97F4A7C15) & MASK, (k[1] + 0xBB67AE8584CAA73B) & MASK]
    return x


def raw_stream(name, count):
    """The first 64-bit numbers of the stream of a name, given as the bytes that are hashed."""
    digest = hashlib.blake2b(name, digest_size=16).digest()
    key = int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")
    blocks = [philox((i, 0, 0, 0), key) for i in range(1, count // 4 + 2)]         # NumPy counts before it draws
    return [x for block in blocks for x in block][:count]


NAMES = [(Key(0), b"(0,)"),
         (Key(7).fold("train", 3, "eps"), b"(7, 'train', 3, 'eps')"),
         (Key(2**70).fold(-1), b"(1180591620717411303424, -1)")]


def test_the_oracle_is_philox():
    """Known answers of the authors' test vectors (Random123, kat_vectors): philox4x64 10 rounds."""
    assert philox((0,) * 4, (0,) * 2) == [
        0x16554D9ECA36314C, 0xDB20FE9D672D0FDC, 0xD7E772CEE186176B, 0x7E68B68AEC7BA23B]
    assert philox((MASK,) * 4, (MASK,) * 2) == [
        0x87B092C3013FE90B, 0x438C3C67BE8D0224, 0x9CC7D7C69CD777B6, 0xA09CAEBF594F0BA0]


@pytest.mark.parametrize("key, name", NAMES, ids=str)
def test_a_draw_is_the_philox_stream_of_the_hashed_name(key, name):
    raw = raw_stream(name, 10)
    np.testing.assert_array_equal(key.uniform(10), [(r >> 11) * 2.0**-53 for r in raw])
    digest = hashlib.blake2b(name, digest_size=16).digest()
    numpys = np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))
    np.testing.assert_array_equal(key.normal(10), numpys.standard_normal(10))


PINNED = [1.5091372840488786, -0.8824329654003167, -0.5848226083852981, -1.1984341892513013]


def test_the_normal_stream_is_pinned():
    """Made once by NumPy's own Philox from the hash of b"(7, 'train', 3, 'eps')": published results depend on it."""
    np.testing.assert_array_equal(Key(7).fold("train", 3, "eps").normal(4), PINNED)


def test_folding_one_by_one_or_at_once_is_the_same():
    assert Key(1).fold("a", 2) == Key(1).fold("a").fold(2) == Key(1, ("a", 2))
    assert Key(1).fold() == Key(1)


def test_a_name_of_numpy_integers_is_that_of_python_integers():
    key = Key(np.int64(3)).fold(np.int32(5))
    np.testing.assert_array_equal(key.normal(3), Key(3).fold(5).normal(3))


@pytest.mark.parametrize("other", [Key(2).fold("a", 1), Key(1).fold("b", 1), Key(1).fold("a", 2), Key(1).fold(1, "a"),
                                   Key(1).fold("a", "1"), Key(1).fold("a", 1, 0), Key(1).fold("a1"), Key(1).fold("a"),
                                   Key(1).fold("a', 1, '"), Key(1), Key(11).fold("a", 1)])
def test_another_name_is_another_stream(other):
    assert not np.intersect1d(Key(1).fold("a", 1).uniform(1000), other.uniform(1000)).size


def test_drawing_leaves_no_trace():
    key = Key(5).fold("x")
    first = key.normal((3, 2))
    key.uniform(7), key.integers(0, 9, 3), key.permutation(4), Key(5).normal(2)
    np.testing.assert_array_equal(key.normal((3, 2)), first)


@pytest.mark.parametrize("draw", ["normal", "uniform"])
def test_a_smaller_batch_is_a_prefix_of_a_larger_one(draw):
    key = Key(5).fold("eps")
    large = getattr(key, draw)((6, 4, 4, 1))
    np.testing.assert_array_equal(getattr(key, draw)((2, 4, 4, 1)), large[:2])
    np.testing.assert_array_equal(getattr(key, draw)(6 * 16), large.ravel())


@pytest.mark.parametrize("draw", ["normal", "uniform"])
def test_float32_draws_are_the_float64_draws_to_float32_precision(draw):
    key = Key(3)
    double, single = getattr(key, draw)(1000), getattr(key, draw)(1000, np.float32)
    assert double.dtype == np.float64 and single.dtype == np.float32
    np.testing.assert_allclose(single, double, rtol=2.0**-24, atol=2.0**-24)


def test_a_uniform_draw_never_reaches_one(monkeypatch):
    class Largest:
        def random(self, shape):
            return np.full(shape, 1 - 2.0**-53)
    monkeypatch.setattr(Key, "generator", lambda self: Largest())
    for dtype in (np.float64, np.float32):
        u = Key(0).uniform(2, dtype)
        assert u.dtype == dtype and (u < 1).all() and (u > 1 - 2.0**-23).all()


def test_normals_are_normal_and_uniforms_uniform():
    """Kolmogorov-Smirnov on 20,000 draws of one fixed name each, and over 2,000 names of one draw each."""
    keys = [Key(0).fold("step", i) for i in range(2000)]
    for sample, law in ((Key(0).normal(20_000), "norm"), (Key(0).uniform(20_000), "uniform"),
                        (np.array([k.normal(1)[0] for k in keys]), "norm"),
                        (np.array([k.uniform(1)[0] for k in keys]), "uniform")):
        assert scipy.stats.kstest(sample, law).pvalue > 1e-3


def test_streams_of_neighbouring_names_are_uncorrelated():
    """Of 40 streams of 10,000 normals, the largest of 780 correlations stays under 5 standard errors (1/100)."""
    draws = np.array([Key(0).fold("eps", i).normal(10_000) for i in range(40)])
    correlations = np.corrcoef(draws) - np.eye(40)
    assert np.abs(correlations).max() < 5 / 100


def test_integers_and_permutations_cover_their_range():
    drawn = Key(0).integers(2, 5, (10, 100))
    assert drawn.shape == (10, 100) and drawn.dtype == np.int64 and set(np.unique(drawn)) == {2, 3, 4}
    order = Key(0).permutation(50)
    assert sorted(order) == list(range(50)) and not np.array_equal(order, np.arange(50))


def test_every_draw_is_made_where_the_backend_makes_arrays(monkeypatch):
    key, here = Key(9).fold("eps"), {}
    draws = {"normal": ((3, 2),), "uniform": ((3, 2), np.float32), "integers": (0, 5, 4), "permutation": (6,)}
    for name, args in draws.items():
        here[name] = getattr(key, name)(*args)
    monkeypatch.setattr(backend, "_chosen", standin.xp)
    for name, args in draws.items():
        there = getattr(key, name)(*args)
        assert isinstance(there, standin.StandIn) and there.dtype == here[name].dtype
        np.testing.assert_array_equal(there.get(), here[name])


@pytest.mark.parametrize("seed", [-1, 1.0, "7", None, np.float64(3)])
def test_a_seed_that_is_no_natural_number_is_refused(seed):
    with pytest.raises(ValueError, match="Key: seed is .* wanted an integer >= 0"):
        Key(seed)


@pytest.mark.parametrize("name", [1.5, None, ("a",), b"a"])
def test_a_name_that_is_no_string_or_integer_is_refused(name):
    with pytest.raises(TypeError, match=r"Key.fold: .* wanted a string or an integer"):
        Key(0).fold("a", name)
