"""What every op must obey. Each law takes an Op and a Case, and raises AssertionError when it is broken.

The op is an argument, not looked up, so that the same functions judge the registered ops, their
faster routes and the planted mutants. Each docstring states the law; `LAWS` lists them by name.

Tolerance. Both sides of a law are float64 evaluations of the same real number; with sums of at most
a few hundred terms their rounding is below 1e-13 of the size of the terms. TOL = 1e-12 is taken of
that size, which each law names. One op amplifies rounding by more than its terms show: a norm over
two nearly equal entries, by 1/sqrt(var + eps) <= 1e3, and stays inside.
"""
from dataclasses import replace

import numpy as np
import standin
from oracles import ORACLES

from refdiff import backend
from refdiff.ops.op import REGISTRY

TOL = 1e-12
LAWS = {}


def law(function):
    LAWS[function.__name__] = function
    return function


def variant(op, name, **changes):
    """A changed copy of an op that stays out of the registry."""
    made = replace(op, name=f"{op.name}/{name}", **changes)
    del REGISTRY[made.name]
    return made


PLAIN_ONLY = {"results_stay_on_the_device", "host_and_device_do_not_mix"}     # what no route for the host has to obey


def implementations(op, law=None):
    """The op itself, and each of its faster routes for the host as an op without a jvp.

    A route for the device is judged where there is one (tests/gpu).
    """
    yield op
    for name, (forward, backward) in op.routes.items():
        if name == "device" or law in PLAIN_ONLY:
            continue
        yield variant(op, name, forward=forward, backward=backward, jvp=None, routes={})


# ---- helpers

def cotangents(op, saved, dy):
    """op.backward as a tuple, one per real input."""
    found = op.backward(saved, dy)
    count = sum(spec.kind == "real" for spec in op.inputs)
    if count == 1:
        assert not isinstance(found, tuple), f"{op.name}: backward of an op with one real input returns a tuple"
        found = (found,)
    assert len(found) == count, f"{op.name}: backward returns {len(found)} cotangents, wanted {count}"
    return found


def size(*arrays):
    """The largest entry of all arrays."""
    return max((float(np.abs(a).max()) for a in arrays if np.size(a)), default=0.0)


def close(what, got, want, scale):
    """|got - want| <= TOL scale everywhere (a NaN is not close)."""
    assert np.shape(got) == np.shape(want), f"{what}: shape {np.shape(got)}, wanted {np.shape(want)}"
    error = size(np.asarray(got) - np.asarray(want))
    assert error <= TOL * scale, f"{what}: off by {error:.3g}, allowed {TOL * scale:.3g}\ngot  {got}\nwant {want}"
    np.testing.assert_allclose(error / (scale or 1.0), 0, atol=TOL)       # the same, where `refdiff verify` measures it


def same(what, got, want):
    """Equal to the last bit."""
    assert np.array_equal(got, want), f"{what}: not the same bits\ngot  {got}\nwant {want}"


def leaves(tree):
    """Every array inside nested tuples, lists and dicts."""
    if isinstance(tree, (tuple, list)):
        return [a for branch in tree for a in leaves(branch)]
    if isinstance(tree, dict):
        return leaves(list(tree.values()))
    return [tree] if isinstance(tree, (np.ndarray, np.generic, standin.StandIn)) else []


def copies(tree):
    return [np.array(a) for a in leaves(tree)]


def real_only(op, values):
    return [v for spec, v in zip(op.inputs, values) if spec.kind == "real"]


def moved(op, inputs, tangents, how):
    """inputs with how(x, tangent) in place of every real one."""
    tangents = iter(tangents)
    return [how(x, next(tangents)) if spec.kind == "real" else x for spec, x in zip(op.inputs, inputs)]


def results(op, inputs, options, dy, tangents):
    """(y, dx..., ydot) by name, on whatever device the arguments are."""
    y, saved = op.forward(*inputs, **options)
    names = [f"d{spec.name}" for spec in op.inputs if spec.kind == "real"]
    found = {"y": y, **dict(zip(names, cotangents(op, saved, dy)))}
    if op.jvp:
        found["ydot"] = op.jvp(saved, *tangents)
    return found


def arguments(op, case):
    """inputs, options, dy, tangents of a case; dy takes the shape of the op's own y."""
    y, _ = op.forward(*case.inputs, **case.options)
    return case.inputs, case.options, case.like(y), case.tangents()


# ---- the laws

@law
def shapes_follow_the_signature(op, case):
    """y has the signature's axes (those that an input names, in size too); each cotangent its input's shape."""
    inputs, options, dy, tangents = arguments(op, case)
    found = results(op, inputs, options, dy, tangents)
    wanted = [case.sizes.get(a) for a in op.output_axes]
    got = np.shape(found["y"])
    assert len(got) == len(wanted) and all(w in (None, g) for g, w in zip(got, wanted)), \
        f"{op.name}: y has shape {got}, the signature says {op.output_axes} with {case.sizes}"
    for spec, x in zip(op.inputs, inputs):
        if spec.kind == "real":
            assert np.shape(found[f"d{spec.name}"]) == x.shape, \
                f"{op.name}: d{spec.name} has shape {np.shape(found[f'd{spec.name}'])}, {spec.name} {x.shape}"
    assert np.shape(found.get("ydot", found["y"])) == got


_ORACLE = {}


def oracle(case):
    """The oracle's y, remembered: many mutants meet the same case."""
    key = repr(case)
    if key not in _ORACLE:
        _ORACLE[key] = ORACLES[case.name](*case.inputs, **case.options)
    return _ORACLE[key]


@law
def forward_equals_the_scalar_loop(op, case):
    """y is the definition, evaluated entry by entry in loops. Scale: 1 + max|y|."""
    y, _ = op.forward(*case.inputs, **case.options)
    want = oracle(case)
    close(f"{op.name}: y", y, want, 1 + size(want))


@law
def jvp_is_the_complex_step(op, case):
    """jvp(v) = Im f(x + ihv)/h, exact for h = 2^-100: h^2 is lost in rounding. Scale: max|v| + max|ydot|."""
    if op.jvp is None:
        return
    h = 2.0**-100
    inputs, tangents = case.inputs, case.tangents()
    y, saved = op.forward(*inputs, **case.options)
    step, _ = op.forward(*moved(op, inputs, tangents, lambda x, v: x + 1j * h * v), **case.options)
    want = np.imag(step) / h
    close(f"{op.name}: Re f(x + ihv) against y", np.real(step), y, 1 + size(y))
    close(f"{op.name}: jvp against the complex step", op.jvp(saved, *tangents), want, size(want, *tangents))


@law
def backward_is_the_transpose_of_jvp(op, case):
    """<J v, u> = <v, J' u> for random u and v. Scale: the sum of all |terms| of both sides, and max|v| max|u|."""
    if op.jvp is None:
        return
    inputs, options, u, tangents = arguments(op, case)
    _, saved = op.forward(*inputs, **options)
    left = np.asarray(op.jvp(saved, *tangents)) * u
    right = [v * dx for v, dx in zip(tangents, cotangents(op, saved, u))]
    scale = np.abs(left).sum() + sum(np.abs(t).sum() for t in right) + size(u) * size(*tangents)
    close(f"{op.name}: <Jv, u> against <v, J'u>", left.sum(), sum(t.sum() for t in right), scale)


@law
def derivatives_are_linear(op, case):
    """backward(a u + b w) = a backward(u) + b backward(w), and so jvp. Scale: the size of the terms."""
    inputs, options, u, tangents = arguments(op, case)
    w, others = case.like(u, "second cotangent"), case.tangents("second tangent")
    _, saved = op.forward(*inputs, **options)
    a, b = 0.7, -1.3
    parts = zip(cotangents(op, saved, a * u + b * w), cotangents(op, saved, u), cotangents(op, saved, w))
    for spec, (both, one, two) in zip(real_only(op, op.inputs), parts):
        close(f"{op.name}: d{spec.name} of a sum", both, a * one + b * two, size(u, w, one, two))
    if op.jvp:
        both = op.jvp(saved, *(a * v + b * z for v, z in zip(tangents, others)))
        one, two = op.jvp(saved, *tangents), op.jvp(saved, *others)
        close(f"{op.name}: jvp of a sum", both, a * one + b * two, size(one, two, *tangents, *others))


@law
def passes_interleave(op, case):
    """Two forwards, then the backwards in either order: the bits of each pass alone."""
    pair = (case, case.another())
    dy = [arguments(op, one)[2] for one in pair]

    def begin(i):
        return op.forward(*pair[i].inputs, **case.options)[1]

    want = [copies(cotangents(op, begin(i), dy[i])) for i in (0, 1)]
    for order in ((0, 1), (1, 0)):
        saved = [begin(0), begin(1)]
        for i in order:
            for got, expected in zip(leaves(cotangents(op, saved[i], dy[i])), want[i]):
                same(f"{op.name}: a backward after another pass's forward", got, expected)


@law
def arguments_are_left_alone(op, case):
    """forward, backward and jvp change no bit of inputs, saved, dy or tangents, and repeat to the bit."""
    inputs, options, dy, tangents = arguments(op, case)
    before = copies([inputs, dy, tangents])
    y, saved = op.forward(*inputs, **options)
    kept = copies([y, saved])

    def unchanged(by):
        for got, want in zip(leaves([inputs, dy, tangents]), before):
            same(f"{op.name}: {by} wrote into an argument", got, want)
        for got, want in zip(leaves([y, saved]), kept):
            same(f"{op.name}: {by} wrote into y or saved", got, want)

    first = copies(op.forward(*inputs, **options)[0])
    unchanged("forward")
    same(f"{op.name}: forward, run twice", first[0], kept[0])
    once = copies(cotangents(op, saved, dy))
    unchanged("backward")
    for got, want in zip(leaves(cotangents(op, saved, dy)), once):
        same(f"{op.name}: backward, run twice", got, want)
    if op.jvp:
        op.jvp(saved, *tangents)
        unchanged("jvp")


@law
def rows_do_not_mix(op, case):
    """Change one row of the batch everywhere: the other rows of y, dx and ydot keep their bits.

    Bits, not digits: shapes stay the same, and a row of a matrix product is summed in the same order
    whatever the other rows hold.
    """
    case = case.with_rows(2)
    n, other = case.sizes["n"], case.another()
    j = case.seed % n
    rest = np.arange(n) != j
    inputs, options, dy, tangents = arguments(op, case)

    def swap(a, b, axes):
        if axes[:1] != ("n",):
            return a
        a = a.copy()
        a[j] = b[j]
        return a

    real_axes = [spec.axes for spec in op.inputs if spec.kind == "real"]
    changed = [swap(a, b, spec.axes) for a, b, spec in zip(inputs, other.inputs, op.inputs)]
    dy_changed = swap(dy, other.like(dy), op.output_axes)
    tangents_changed = [swap(a, b, axes) for a, b, axes in zip(tangents, other.tangents(), real_axes)]
    want = results(op, inputs, options, dy, tangents)
    got = results(op, changed, options, dy_changed, tangents_changed)
    leading = {"y": op.output_axes, "ydot": op.output_axes,
               **{f"d{spec.name}": spec.axes for spec in op.inputs if spec.kind == "real"}}
    for name in want:
        if leading[name][:1] == ("n",):
            same(f"{op.name}: {name} of the rows other than row {j}", got[name][rest], want[name][rest])


@law
def dtype_is_kept(op, case):
    """float32 in, float32 out: y, every cotangent, the tangent; float64 likewise."""
    inputs, options, dy, tangents = arguments(op, case)
    for dtype in (np.float32, np.float64):
        def cast(a):
            return a if a.dtype.kind in "iu" else a.astype(dtype)
        found = results(op, [cast(a) for a in inputs], options, cast(dy), [cast(a) for a in tangents])
        for name, a in found.items():
            assert a.dtype == dtype, f"{op.name}: {name} is {a.dtype} from {np.dtype(dtype)} arguments"


def fortran(a):
    return np.asfortranarray(a)


def backwards(a):
    """Every stride negative."""
    every = (slice(None, None, -1),) * a.ndim
    return a[every].copy()[every]


def scattered(a):
    """Every second entry of every axis of a larger array that holds NaN (or -1) elsewhere."""
    room = np.full([2 * s + 1 for s in a.shape], -1 if a.dtype.kind in "iu" else np.nan).astype(a.dtype)
    view = room[(slice(1, None, 2),) * a.ndim]
    view[...] = a
    return view


def rotated(a):
    """The last axis outermost in memory."""
    return np.moveaxis(np.moveaxis(a, -1, 0).copy(), 0, -1) if a.ndim else a


@law
def memory_layout_does_not_matter(op, case):
    """Fortran order, negative strides, holes and read-only memory: the same numbers. Scale: their size.

    Not the same bits: a matrix product of a transposed operand may be summed in another order.
    """
    args = arguments(op, case)
    want = results(op, *args)
    for layout in (fortran, backwards, scattered, rotated):
        def lay(a):
            a = layout(a) if a.ndim else a.copy()
            a.flags.writeable = False
            return a
        inputs, options, dy, tangents = args
        got = results(op, [lay(a) for a in inputs], options, lay(dy), [lay(a) for a in tangents])
        for name in want:
            close(f"{op.name}: {name} from {layout.__name__} arguments", got[name], want[name],
                  size(want[name], dy, *tangents))


def stays_on_device(op, case, put, get, array_type):
    """The same numbers from device arrays as from host arrays, and no result on the host."""
    inputs, options, dy, tangents = arguments(op, case)
    want = results(op, inputs, options, dy, tangents)
    got = results(op, [put(a) for a in inputs], options, put(dy), [put(a) for a in tangents])
    for name in want:
        assert isinstance(got[name], array_type), f"{op.name}: {name} left the device: {type(got[name])}"
        close(f"{op.name}: {name} on the device", get(got[name]), want[name], size(want[name], dy, *tangents))


def refuses_to_mix(op, case, put):
    """One host array among device arrays: BackendError that names where each argument is."""
    inputs = case.inputs
    if len(inputs) < 2:
        return
    for k, odd in enumerate(op.inputs):
        mixed = [a if i == k else put(a) for i, a in enumerate(inputs)]
        try:
            op.forward(*mixed, **case.options)
        except backend.BackendError as error:
            for i, spec in enumerate(op.inputs):
                place = f"{spec.name} is on {'numpy' if i == k else backend.of(x=put(inputs[k])).__name__}"
                assert place in str(error), f"{op.name}: {str(error)!r} does not say that {place}"
        else:
            raise AssertionError(f"{op.name}: {odd.name} on the host and the rest on the device was accepted")


@law
def results_stay_on_the_device(op, case):
    """On the stand-in device: the same numbers, every result there. Scale: their size."""
    stays_on_device(op, case, standin.xp.asarray, lambda a: a.get(), standin.StandIn)


@law
def host_and_device_do_not_mix(op, case):
    """One argument on the host, the rest on the stand-in: a BackendError that says which is where."""
    refuses_to_mix(op, case, standin.xp.asarray)


@law
def routes_equal_the_plain_one(op, case):
    """Each faster route gives the plain y and cotangents. Scale: their size."""
    inputs, options, dy, tangents = arguments(op, case)
    plain = variant(op, "plain", jvp=None)
    want = results(plain, inputs, options, dy, tangents)
    for name, (forward, backward) in op.routes.items():
        if name == "device":
            continue
        route = variant(op, name, forward=forward, backward=backward, jvp=None)
        got = results(route, inputs, options, dy, tangents)
        for key in want:
            close(f"{op.name} by {name}: {key}", got[key], want[key], size(want[key], dy) + 1)
