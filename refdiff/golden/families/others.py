"""Consistency functions, guidance, thresholding, and the Frechet distance, of rank-deficient covariances too."""
from .build import build, numbers
from .samplers import WORLDS


def _consistency():
    for low, data in (("0.002", "0.5"), ("0.01", "1")):
        for sigma in (low, "0.1", "0.5", "80"):
            yield build(f"consistency/boundary/min{low}/data{data}/sigma{sigma}", "consistency_boundary", {
                "sigma": sigma, "sigma_min": low, "sigma_data": data}, "CM sec. C", ("boundary",))
    yield build("consistency/boundary/invalid/below-min", "consistency_boundary", {
        "sigma": "0.001", "sigma_min": "0.002", "sigma_data": "0.5"}, "CM sec. C", invalid=True)
    for world in WORLDS:
        for name, sigmas in (("one", ["80"]), ("two", ["80", "0.821"]), ("four", ["80", "24.4", "5.84", "0.9"])):
            yield build(f"consistency/multistep/{name}/{world}", "consistency_multistep", {
                "sigmas": sigmas, "x": numbers(1, (2, 2), -160, 160), "noise": [
                    numbers(5 + i, (2, 2)) for i in range(len(sigmas) - 1)] or None, "denoiser": WORLDS[world],
                "sigma_min": "0.002", "sigma_data": "0.5"}, "CM alg. 1", ("boundary", "renoise"), operations=40)
    yield build("consistency/multistep/invalid/rising", "consistency_multistep", {
        "sigmas": ["1", "2"], "x": [["1"]], "noise": [[["1"]]], "denoiser": WORLDS["gaussian"],
        "sigma_min": "0.002", "sigma_data": "0.5"}, "CM alg. 1", invalid=True)


def _guidance():
    for scale in ("0", "1", "1.5", "7.5", "-2"):
        yield build(f"guidance/scale{scale}", "guidance", {
            "conditional": numbers(11, (2, 3)), "unconditional": numbers(12, (2, 3)), "scale": scale}, "CFG eq. 6",
            ("guidance_scale",))
    for phi in ("0.7", "1"):
        yield build(f"guidance/scale7.5/rescale{phi}", "guidance", {
            "conditional": numbers(11, (2, 5)), "unconditional": numbers(12, (2, 5)), "scale": "7.5",
            "rescale": phi}, "ZTSNR sec. 3.4", ("guidance_scale",))
    for what, change in (("rescale-2", {"rescale": "2"}), ("scale-nan", {"scale": "nan", "rescale": "-1"})):
        yield build(f"guidance/invalid/{what}", "guidance", {
            "conditional": numbers(11, (2, 3)), "unconditional": numbers(12, (2, 3)), "scale": "3", **change},
            "CFG eq. 6", invalid=True)


def _threshold():
    for name, shape, spread, options in (
            ("p0.995", (3, 9), 3, {"percentile": "0.995"}), ("p0.9/cap1.5", (3, 9), 3, {"percentile": "0.9",
                                                                                      "cap": "1.5"}),
            ("p0.5/limit0.8", (2, 8), 2, {"percentile": "0.5", "limit": "0.8"}),
            ("p1", (2, 5), 4, {"percentile": "1"}), ("one-entry", (3, 1), 4, {"percentile": "0.995"}),
            ("p0.995/cap1", (2, 9), 3, {"percentile": "0.995", "cap": "1"}),
            ("inside", (2, 6), 0.5, {"percentile": "0.995"})):
        yield build(f"threshold/{name}", "threshold", {"x0": numbers(21, shape, -spread, spread), **options},
                    "DYNTHR sec. 2.3", ("clip",))
    for what, options in (("percentile-0", {"percentile": "0"}), ("percentile-99.5", {"percentile": "99.5"}),
                          ("limit-0", {"limit": "0"}), ("cap-below-limit", {"limit": "1", "cap": "0.5"})):
        yield build(f"threshold/invalid/{what}", "threshold", {
            "x0": numbers(21, (2, 3)), "percentile": "0.9", **options}, "DYNTHR sec. 2.3", invalid=True)


def _frechet():
    for name, n, m, d, seed in (("plane", 8, 9, 2, 1), ("space", 12, 10, 3, 2), ("full", 20, 20, 6, 3),
                                ("rank-deficient", 4, 5, 6, 4), ("two-vectors", 2, 2, 5, 5),
                                ("one-number", 6, 7, 1, 6)):
        yield build(f"frechet/{name}", "frechet", {"a": numbers(seed, (n, d)), "b": numbers(seed + 9, (m, d), -1, 3)},
                    "FID eq. 6", ("covariance_divisor", "frechet_power"), operations=100)
    rows = numbers(7, (6, 3))
    constant = [[row[0], "0.25", row[2]] for row in rows]
    shifted = [[f"{float(v) + 0.5:.3f}" for v in row] for row in rows]
    yield build("frechet/constant-feature", "frechet", {"a": constant, "b": rows}, "FID eq. 6",
                ("covariance_divisor",), operations=100)
    yield build("frechet/shifted", "frechet", {"a": rows, "b": shifted}, "FID eq. 6", ("frechet_power",),
                operations=100)
    yield build("frechet/invalid/one-vector", "frechet", {"a": [["1", "2"]], "b": [["1", "2"], ["2", "3"]]},
                "FID eq. 6", invalid=True)
    yield build("frechet/invalid/other-features", "frechet", {"a": [["1"], ["2"]], "b": [["1", "2"], ["2", "3"]]},
                "FID eq. 6", invalid=True)


def cases():
    """The cases of the family, for store.make."""
    return [*_consistency(), *_guidance(), *_threshold(), *_frechet()]
