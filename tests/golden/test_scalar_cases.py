"""The cases in JSON: readable with a JSON reader alone, as their schema says, and answered right by refdiff itself."""
import importlib
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from planted import mutant

from refdiff import papers
from refdiff.golden import conventions, store
from refdiff.golden.adapters import own
from refdiff.golden.arguments import arguments
from refdiff.golden.case import digits
from refdiff.golden.families.build import flat
from refdiff.golden.reference.answer import OPERATIONS
from refdiff.process.schedules import Schedule

FILES = [path for path in sorted(store.FOLDER.glob("*.json")) if path.name not in ("schema.json", "MANIFEST.json")]
FAMILIES = [name for name, module in store.modules().items() if getattr(module, "FORMAT", "json") == "json"]
SCALAR = [case for path in FILES for case in store.read_json(path)]


# ---- the files, with json and nothing else

def faults(value, schema, root, where="$"):
    """What in a value the schema does not allow: the part of JSON Schema that schema.json uses, as sentences."""
    if "$ref" in schema:
        return faults(value, root["$defs"][schema["$ref"].rpartition("/")[2]], root, where)
    kinds = {"null": type(None), "boolean": bool, "string": str, "array": list, "object": dict, "integer": int,
             "number": (int, float)}
    found = []
    if "anyOf" in schema and all(faults(value, one, root, where) for one in schema["anyOf"]):
        found.append(f"{where}: {str(value)[:60]!r} is none of the kinds allowed")
    if "type" in schema and (not isinstance(value, kinds[schema["type"]])
                             or isinstance(value, bool) and schema["type"] in ("integer", "number")):
        return found + [f"{where}: {str(value)[:60]!r}, wanted {schema['type']}"]
    if "const" in schema and value != schema["const"] or "enum" in schema and value not in schema["enum"]:
        found.append(f"{where}: {value!r} is not allowed")
    if isinstance(value, str):
        if "pattern" in schema and not re.search(schema["pattern"], value):
            found.append(f"{where}: {value[:60]!r} does not match {schema['pattern']}")
        if len(value) < schema.get("minLength", 0):
            found.append(f"{where}: empty")
    if isinstance(value, (int, float)) and not value >= schema.get("minimum", -math.inf) or (
            isinstance(value, (int, float)) and not value > schema.get("exclusiveMinimum", -math.inf)):
        found.append(f"{where}: {value} is too small")
    if isinstance(value, list):
        if len(value) < schema.get("minItems", 0):
            found.append(f"{where}: too few")
        for i, part in enumerate(value if "items" in schema else ()):
            found += faults(part, schema["items"], root, f"{where}[{i}]")
    if isinstance(value, dict):
        known = schema.get("properties", {})
        found += [f"{where}: no {name!r}" for name in schema.get("required", ()) if name not in value]
        for name, part in value.items():
            rest = schema.get("additionalProperties", {})
            if name not in known and rest is False:
                found.append(f"{where}: {name!r} is not allowed")
            else:
                found += faults(part, known.get(name, rest), root, f"{where}.{name}")
            if "propertyNames" in schema:
                found += faults(name, schema["propertyNames"], root, f"{where}, the name {name!r}")
    return found


SCHEMA = json.loads((store.FOLDER / "schema.json").read_text())


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_file_is_as_the_published_schema_says(path):
    found = faults(json.loads(path.read_text(encoding="ascii")), SCHEMA, SCHEMA)
    assert not found, "\n".join(found[:5])


@pytest.mark.parametrize("change", [
    {"id": "Upper/case"}, {"verdict": "perhaps"}, {"equation": "see the paper"}, {"condition": "3"},
    {"expected": {"x": "0,5"}}, {"expected": {"x": "1.5e+3"}}, {"inputs": {"x": 0.5}}, {"tolerance": {"float16": 1.0}},
    {"tolerance": {"float64": 0}}, {"accepted": [{"expected": {}}]}, {"more": 1}], ids=str)
def test_the_schema_refuses_what_is_not_a_case(change):
    case = json.loads(FILES[0].read_text())["cases"][0]
    assert not faults(case, SCHEMA["$defs"]["case"], SCHEMA)
    assert faults({**case, **change}, SCHEMA["$defs"]["case"], SCHEMA)


def test_the_schema_refuses_a_case_without_an_oracle():
    case = json.loads(FILES[0].read_text())["cases"][0]
    del case["oracle"]
    assert faults(case, SCHEMA["$defs"]["case"], SCHEMA) == ["$: no 'oracle'"]


def test_there_are_enough_of_every_kind_and_they_are_small():
    assert len(SCALAR) >= 400
    verdicts = [case.verdict for case in SCALAR]
    assert verdicts.count("acceptable") >= 30 and verdicts.count("invalid") >= 60
    assert {case.operation for case in store.load()} >= set(OPERATIONS)
    assert sum(path.stat().st_size for path in store.FOLDER.iterdir()) < 20 * 2 ** 20


def test_ids_are_unique_over_all_files():
    names = [case.id for case in store.load()]
    assert len(set(names)) == len(names)


def test_every_equation_is_one_of_the_papers():
    known = {f"{paper.key} {equation.tag}".removesuffix(" paper") for paper in papers.every()
             for equation in paper.equations}
    assert {case.equation for case in store.load()} <= known


def test_every_flag_and_every_accepted_answer_names_a_convention():
    for case in store.load():
        assert set(case.flags) <= set(conventions.BY_NAME), case.id
    for case in SCALAR:
        for one in case.accepted:
            for part in one["convention"].split(","):
                name, _, value = part.partition("=")
                assert value in conventions.BY_NAME[name].published, case.id
            assert set(one["expected"]) == set(case.expected), case.id


def test_tolerances_are_at_least_those_of_rounding_and_stay_useful():
    for case in SCALAR:
        if case.verdict != "invalid":
            assert 1.7e-15 <= case.tolerance["float64"] <= 1e-9, (case.id, case.tolerance)
            assert case.tolerance["float32"] > case.tolerance["float64"]
            assert case.condition >= 1


def test_answers_have_twenty_significant_digits():
    texts = [text for path in FILES for case in json.loads(path.read_text())["cases"]
             for text in flat(list(case["expected"].values())) if isinstance(text, str)]
    figures = [len(text.partition("e")[0].replace("-", "").replace(".", "").lstrip("0")) for text in texts]
    assert max(figures) == 20 and np.mean(np.array(figures) >= 19) > 0.8


# ---- the same bytes

@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_made_to_the_same_bytes(family, tmp_path):
    store.write_json(tmp_path / "again.json", family, list(store.modules()[family].cases()))
    made, kept = (tmp_path / "again.json").read_bytes(), (store.FOLDER / f"{family}.json").read_bytes()
    assert made == kept, f"{family}: refdiff golden make, and a line in the changelog under Numerics"


# ---- refdiff's own answers

def wrong(case):
    """Why refdiff's answer to a case is not right; "" if it is."""
    try:
        with np.errstate(all="ignore"):
            answer = getattr(own, case.operation)(**arguments(case))
    except Exception as error:
        return "" if case.verdict == "invalid" else f"{type(error).__name__}: {error}"
    if case.verdict == "invalid":
        return "answered, and wanted a refusal"
    if not isinstance(answer, dict):
        answer = {next(iter(case.expected)): answer}
    assert set(answer) <= set(case.expected), case.id
    found = [(digits(value, case.expected[name]), name) for name, value in answer.items()]
    worst, name = min((-1.0 if d is None else d, name) for d, name in found)
    return "" if 10 ** -worst <= case.tolerance["float64"] else (
        f"{name} agrees in {worst:.1f} digits, wanted {-math.log10(case.tolerance['float64']):.1f}")


@pytest.mark.parametrize("prefix", sorted({case.id.partition("/")[0] for case in SCALAR}))
def test_refdiff_agrees_with_every_case(prefix):
    found = [f"{case.id}: {why}" for case in SCALAR if case.id.startswith(f"{prefix}/") and (why := wrong(case))]
    assert not found, "\n".join(found[:5])


def test_every_refusal_of_refdiffs_is_an_error_that_names_what_is_wrong():
    for case in SCALAR:
        if case.verdict == "invalid":
            with pytest.raises((ValueError, TypeError)) as raised:
                with np.errstate(all="ignore"):
                    getattr(own, case.operation)(**arguments(case))
            assert str(raised.value), case.id


# ---- the formula as it stands in the paper, in float64

def textbook(T=1000, s=0.008, beta_max=0.999):
    """The cosine schedule in five lines of NumPy, abar by multiplication, 1 - abar by subtraction. (IDDPM eq. 17)"""
    angle = (np.arange(T + 1) / T + s) / (1 + s) * np.pi / 2
    f = np.cos(angle) ** 2
    beta = np.concatenate([[0.0], np.minimum(1 - f[1:] / f[:-1], beta_max)])
    alpha_bar = np.cumprod(1 - beta)
    made = Schedule("textbook", beta)
    vars(made).update(alpha_bar=alpha_bar, one_minus_alpha_bar=1 - alpha_bar, alpha=np.sqrt(alpha_bar),
                      sigma=np.sqrt(1 - alpha_bar))
    return made


def test_the_textbook_formula_of_the_cosine_schedule_passes_in_float64(monkeypatch):
    monkeypatch.setitem(own.SCHEDULES, "cosine", textbook)
    cases = [case for case in SCALAR if "cosine" in (case.inputs.get("schedule"), case.inputs.get("name"))
             and case.verdict != "invalid"]
    found = [f"{case.id}: {why}" for case in cases if (why := wrong(case))]
    assert len(cases) >= 29 and not found, "\n".join(found)


def test_the_same_in_float32_or_with_another_t_or_s_fails(monkeypatch):
    case = next(case for case in SCALAR if case.id == "schedule/cosine/t1000")
    for other in (lambda *args: np.float32(textbook(*args).beta), lambda *args: textbook(1001, *args[1:]).beta[:-1],
                  lambda *args: textbook(*args, s=0.008 + 1e-9).beta):
        monkeypatch.setitem(own.SCHEDULES, "cosine", lambda T, other=other: Schedule("off", other(T)))
        assert "beta agrees in" in wrong(case) or "alpha_bar agrees in" in wrong(case)


# ---- one coefficient changed: some case fails

def sampler(name, module=None):
    return lambda patch, made: patch.setitem(own.SAMPLERS, name, getattr(made, name))


def attribute(owner, *names):
    def put(patch, made):
        for name in names:
            patch.setattr(owner, name, getattr(made, name))
    return put


def entry(table, name):
    return lambda patch, made: patch.setitem(table, name, getattr(made, name))


def single(patch, made):
    """DPM-Solver with another module of exponential integrators."""
    patch.setattr(importlib.import_module("refdiff.samplers.dpm"), "solve", made.solve)


MUTANTS = [
    ("process.schedules", "np.linspace(beta_start, beta_end, T)]))", "np.linspace(beta_start, beta_end, T + 1)[1:]]))",
     "schedule/linear/*", entry(own.SCHEDULES, "linear")),
    ("process.schedules", "both = (2 * t - 1) / T + 2 * s", "both = 2 * t / T + 2 * s", "schedule/cosine/*",
     entry(own.SCHEDULES, "cosine")),
    ("process.grids", "return to_integer(np.arange(1, S + 1) * T / S)", "return to_integer(np.arange(S) * T / S) + 1",
     "grid/linear/trailing/*", attribute(own.grids, "discrete")),
    ("process.grids", '"trailing": (_trailing, "even")', '"trailing": (_trailing, "up")',
     "grid/linear/trailing/*/n16/*", attribute(own.grids, "discrete")),
    ("process.grids", "(end - start)) ** rho", "(end - start)) ** (rho + 1e-9)", "grid/edm/karras/*",
     lambda patch, made: patch.setitem(own.SIGMAS, "karras", made.karras)),
    ("process.gaussian", "return posterior(s, t).variance", "return transition(s, t).variance", "posterior/*/small",
     attribute(own.gaussian, "fixed_variance")),
    ("process.gaussian", "return alpha * x0 + sigma * eps", "return alpha * x0 + sigma ** 2 * eps", "q_sample/*",
     attribute(own.gaussian, "q_sample")),
    ("process.parameterization", "return alpha * self.eps - sigma * self.x0",
     "return alpha * self.eps + sigma * self.x0", "convert/eps/v/*", attribute(own, "Prediction")),
    ("samplers.ddpm", "** 0.5", "** 1.0", "step/ddpm/*", sampler("ddpm")),
    ("samplers.ddim", "std = eta *", "std = eta ** 2 *", "step/ddim/eta0.5/*", sampler("ddim")),
    ("samplers.edm", "0.5 * d_cur + 0.5 * d_prime", "0.4 * d_cur + 0.6 * d_prime", "step/heun/*", sampler("heun")),
    ("samplers.churn", "math.sqrt(2) - 1)", "0.5)", "step/churn/capped/*", sampler("churn")),
    ("samplers.exponential", "slope = phi(1, z) / 2 if", "slope = phi(1, z) / 3 if", "step/dpmpp/order2/*",
     lambda patch, made: patch.setattr(own, "exponential", made)),
    ("samplers.unipc", "-math.expm1(-h)) / (2 * r)", "-math.expm1(-h)) / r", "step/unipc/*",
     lambda patch, made: patch.setattr(own, "unipc_weights", made.weights)),
    ("samplers.sde", "return 2 - alpha_ts", "return 1 / alpha_ts", "step/reverse_diffusion/*",
     sampler("reverse_diffusion")),
    ("samplers.sde_dpmpp", "math.expm1(-(1 + tau) * h)", "math.expm1(-h)", "step/sde_dpmpp/*",
     attribute(own, "coefficients")),
    ("samplers.plms", "(55 / 24, -59 / 24", "(55 / 24, -58 / 24", "sampler/plms/*", sampler("plms")),
    ("samplers.exponential", "[phi(1, r1 * z)], [m0]), s1)", "[phi(1, r1 * z)], [m0 * 1.01]), s1)",
     "sampler/dpm/*", single),
    ("samplers.exponential", "r2 = 2 / 3 if", "r2 = 0.6 if", "step/dpm/order3/*", single),
    ("samplers.exponential", "w_0, w_2 = second(r2, z", "w_0, w_2 = second(r1, z", "step/dpm/order3/plain/*", single),
    ("samplers.deis", "rise = times - t.t, half * WEIGHTS * (ratio - t.ratio)",
     "rise = times - t.t, half * WEIGHTS * ratio", "step/deis/*variablet*",
     lambda patch, made: patch.setattr(own, "time_moments", made.time_moments)),
    ("guidance.threshold", "s = s.clip(limit, cap)", "s = s.clip(None, cap)", "threshold/*", attribute(own, "dynamic")),
    ("guidance.threshold", "percentile, axis=1)", "percentile, axis=1, method='lower')", "threshold/*",
     attribute(own, "dynamic")),
    ("guidance.threshold", 'if eps == "derived":', 'if eps == "kept":', "step/ddim/eta0/thresholded/*",
     attribute(own, "dynamic")),
    ("process.weights", "return _least(gamma * _inverse_snr(level), 1.0)",
     "return _least(gamma * _inverse_snr(level), 0.5)", "loss/weight/min_snr/*", entry(own.losses.WEIGHTS, "min_snr")),
    ("process.bound", "return 0.5 * (xp.expm1(d) - d", "return 0.5 * (xp.expm1(d) - 2 * d", "bound/term/large/*",
     lambda patch, made: patch.setattr(own, "bound", made)),
    ("optim", "xp.sqrt(v)\n", "xp.sqrt(v + self.eps)\n", "adamw/*", attribute(own, "AdamW")),
    ("optim", "(1 + step) / (10 + step)) if", "(2 + step) / (10 + step)) if", "ema/warmed/*",
     attribute(own, "ema_decay")),
    ("optim", "peak * (step + 1) / warmup", "peak * step / warmup", "learning_rate/*",
     lambda patch, made: patch.setattr(own, "rate_of", made.learning_rate)),
    ("distill.consistency", "shifted = sigma - sigma_min", "shifted = sigma", "consistency/*",
     attribute(own, "boundary")),
    ("guidance.free", "a + w * (a - b)", "b + w * (a - b)", "guidance/*", attribute(own, "beyond")),
    ("metrics.frechet", "/ (len(x) - 1)", "/ len(x)", "frechet/*", attribute(own, "distance")),
]


@pytest.mark.parametrize("module, old, new, glob, put", MUTANTS, ids=[f"{m[0]}-{i}" for i, m in enumerate(MUTANTS)])
def test_one_changed_coefficient_fails_some_case(module, old, new, glob, put, monkeypatch):
    cases = [case for case in store.load(glob) if case.verdict != "invalid"]
    assert cases and not any(wrong(case) for case in cases)
    put(monkeypatch, mutant(module, (old, new)))
    assert any(wrong(case) for case in cases), f"none of {len(cases)} cases {glob} sees it"


def test_the_licence_is_beside_the_files_and_named_in_each():
    assert "CC0 1.0 Universal" in (store.FOLDER / "LICENSE").read_text()
    assert all(json.loads(Path(path).read_text())["licence"] == "CC0-1.0" for path in FILES)
