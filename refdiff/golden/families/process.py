"""q-samples, posteriors, and every prediction said as every other, for SNR from 1e-9 to 1e9 and at both ends."""
from .build import build, numbers

SNRS = ("1e-9", "1e-6", "1e-3", "1", "1e3", "1e6", "1e9")
PAIRS = [("eps", "x0"), ("eps", "v"), ("eps", "score"), ("eps", "velocity"), ("x0", "eps"), ("x0", "v"),
         ("v", "x0"), ("v", "eps"), ("score", "x0"), ("score", "eps"), ("velocity", "x0"), ("velocity", "eps"),
         ("F", "x0"), ("x0", "F")]
TAGS = {"v": "PD sec. 4", "velocity": "RF eq. 1", "score": "EDM eq. 3", "F": "EDM eq. 7"}


def levels(snr):
    """(alpha, sigma) of a variance-preserving level as the decimals of two float64 numbers."""
    snr = float(snr)
    return repr((snr / (1 + snr)) ** 0.5), repr((1 / (1 + snr)) ** 0.5)


def _q_samples():
    for i, (name, alpha, sigma) in enumerate((
            *((f"snr{snr}", *levels(snr)) for snr in ("1e-9", "1e-3", "1", "1e3", "1e9")),
            ("clean", "1", "0"), ("noise", "0", "1"), ("ve80", "1", "80"), ("ve0.002", "1", "0.002"),
            ("flow0.3", "0.7", "0.3"))):
        yield build(f"q_sample/{name}", "q_sample", {"x0": numbers(i, (2, 3)), "eps": numbers(i + 50, (2, 3)),
                                                     "alpha": alpha, "sigma": sigma},
                    "DDPM eq. 4", ("index_base", "schedule_ends"))


def _posteriors():
    for name, T, times in (("linear", 1000, (1, 2, 3, 500, 999, 1000)), ("cosine", 1000, (1, 2, 500, 999, 1000)),
                           ("scaled_linear", 1000, (2, 1000)), ("linear", 10, (1, 5, 10))):
        for t in times:
            for variance in ("small", "large"):
                yield build(f"posterior/{name}/t{T}/at{t}/{variance}", "posterior", {
                    "x0": numbers(t, (2, 2)), "x_t": numbers(t + 7, (2, 2)), "schedule": name, "T": T, "t": t,
                    "variance": variance}, "DDPM eq. 7", ("variance", "index_base", "final_alpha", "table_dtype"))
    for t, s in ((1000, 900), (500, 480), (20, 0)):
        yield build(f"posterior/linear/t1000/at{t}-{s}/small", "posterior", {
            "x0": numbers(t, (2, 2)), "x_t": numbers(s, (2, 2)), "schedule": "linear", "T": 1000, "t": t, "s": s},
            "DDPM eq. 7", ("index_base", "final_alpha"))
    for what, t, extra in (("t0", 0, {}), ("beyond", 1001, {}), ("negative", -1, {}), ("to-more-noise", 5, {"s": 9}),
                           ("nosuch", 5, {"variance": "nosuch"})):
        yield build(f"posterior/invalid/{what}", "posterior", {
            "x0": numbers(1, (2, 2)), "x_t": numbers(2, (2, 2)), "schedule": "linear", "T": 1000, "t": t, **extra},
            "DDPM eq. 7", invalid=True)


def _convert(kind, to, alpha, sigma, seed):
    return {"kind": kind, "to": to, "value": numbers(seed, (2, 2)), "x": numbers(seed + 1, (2, 2)), "alpha": alpha,
            "sigma": sigma, **({"sigma_data": "0.5"} if "F" in (kind, to) else {})}


def _conversions():
    for i, (kind, to) in enumerate(PAIRS):
        for j, snr in enumerate(SNRS):
            tag = next((TAGS[k] for k in (kind, to) if k in TAGS), "DDIM eq. 9")
            yield build(f"convert/{kind}/{to}/snr{snr}".lower(), "convert",
                        _convert(kind, to, *levels(snr), 10 * i + j), tag, ("prediction", "prediction_sign"))
    for kind, to, alpha, sigma in (
            ("v", "x0", "0", "1"), ("v", "eps", "0", "1"), ("v", "x0", "1", "0"), ("v", "eps", "1", "0"),
            ("velocity", "x0", "0", "1"), ("velocity", "eps", "1", "0"), ("eps", "x0", "1", "0"),
            ("x0", "eps", "0", "1"), ("eps", "score", "0", "1"), ("x0", "v", "0", "1"), ("eps", "v", "1", "0")):
        yield build(f"convert/{kind}/{to}/end/alpha{alpha}", "convert", _convert(kind, to, alpha, sigma, 77),
                    TAGS.get(kind, "DDIM eq. 9"), ("prediction", "prediction_sign"))
    for kind, to, alpha, sigma in (
            ("eps", "x0", "0", "1"), ("score", "x0", "0", "1"), ("x0", "eps", "1", "0"), ("eps", "score", "1", "0"),
            ("x0", "v", "1", "0"), ("eps", "v", "0", "1"), ("eps", "x0", "0", "0"), ("eps", "x0", "-0.5", "1"),
            ("nosuch", "x0", "0.6", "0.8"), ("eps", "nosuch", "0.6", "0.8")):
        yield build(f"convert/invalid/{kind}/{to}/alpha{alpha}/sigma{sigma}", "convert",
                    _convert(kind, to, alpha, sigma, 78), TAGS.get(kind, "DDIM eq. 9"), invalid=True)


def cases():
    """The cases of the family, for store.make."""
    return [*_q_samples(), *_posteriors(), *_conversions()]
