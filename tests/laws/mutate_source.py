"""Every operator, sign, number, comparison and in-place step of the ops' source, changed one at a time.

Defaults, registrations and the checks of arguments are left: test_corners and test_op_errors judge those.
"""
import ast
import contextlib
import importlib
import inspect

import numpy as np

import refdiff.ops.op
from refdiff.ops.op import REGISTRY

SWAPS = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
         ast.Mod: ast.Mult, ast.Pow: ast.Mult, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Lt: ast.GtE, ast.Gt: ast.LtE,
         ast.LtE: ast.Gt, ast.GtE: ast.Lt, ast.Or: ast.And, ast.And: ast.Or, ast.MatMult: ast.Mult}


SHOWN = (ast.BinOp, ast.Compare, ast.AugAssign, ast.Call, ast.IfExp)      # what a change is printed with


def changes(node):
    """Functions that change this node in place, each another mistake."""
    if isinstance(node, (ast.BinOp, ast.AugAssign, ast.BoolOp)) and type(node.op) in SWAPS:
        yield lambda n: setattr(n, "op", SWAPS[type(n.op)]())
    if isinstance(node, ast.AugAssign):
        yield lambda n: setattr(n, "value", ast.Constant(0 if isinstance(n.op, (ast.Add, ast.Sub)) else 1))
    if isinstance(node, ast.Compare) and type(node.ops[0]) in SWAPS:
        yield lambda n: setattr(n, "ops", [SWAPS[type(n.ops[0])]()])
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        yield lambda n: setattr(n, "op", ast.UAdd())
    if isinstance(node, ast.IfExp):
        yield lambda n: (lambda a, b: (setattr(n, "body", b), setattr(n, "orelse", a)))(n.body, n.orelse)
    if isinstance(node, ast.Constant) and type(node.value) is int:
        yield lambda n: setattr(n, "value", n.value + 1)
    if isinstance(node, ast.Constant) and type(node.value) is float:
        yield lambda n: setattr(n, "value", n.value * (1 + 1e-6))


def sites(tree):
    """Every node that computes: not the registrations, the defaults or the checks of arguments."""
    def walk(node, function):
        if isinstance(node, ast.FunctionDef):
            for child in node.body:
                yield from walk(child, node.name)
            return
        if isinstance(node, ast.If) and isinstance(node.body[-1], ast.Raise):
            return
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("Op", "wanted"):
            return
        yield node, function
        if ast.unparse(node) == "-1" and "reshape" in context[-1]:     # NumPy reads any negative size as -1
            return
        context.append(getattr(getattr(node, "func", None), "attr", context[-1] if isinstance(
            node, (ast.Tuple, ast.UnaryOp, ast.BinOp)) else ""))
        for child in ast.iter_child_nodes(node):
            yield from walk(child, function)
        context.pop()

    context = [""]
    return list(walk(tree, ""))


def mentions(module):
    """function -> the names it mentions, for the functions of a module."""
    tree = ast.parse(inspect.getsource(module))
    return {f.name: {n.id for n in ast.walk(f) if isinstance(n, ast.Name)}
            for f in tree.body if isinstance(f, ast.FunctionDef)}


def users():
    """(module's last name, function) -> the ops that reach the function, by the names that functions mention."""
    found, shared = {}, mentions(refdiff.ops.op)
    for op in REGISTRY.values():
        module = importlib.import_module(op.forward.__module__)
        known = {**shared, **mentions(module)}
        routes = [f for route in op.routes.values() for f in route]
        reached, new = set(), {f.__name__ for f in (op.forward, op.backward, op.jvp, *routes)}
        while new:
            reached |= new
            new = set().union(*(known.get(f, set()) for f in new)) - reached
        for function in reached & set(known):
            home = "op" if function in shared else module.__name__.rpartition(".")[2]
            found.setdefault((home, function), []).append(op.name)
    return found


def ops_of(module):
    return [op for op in REGISTRY.values() if op.forward.__module__ == module.__name__]


def run(tree, module):
    """The names that a changed module defines, and the ops it registers; the registry keeps the real ones."""
    real, names = dict(REGISTRY), {"__name__": module.__name__, "__package__": module.__package__}
    REGISTRY.clear()
    try:
        exec(compile(ast.fix_missing_locations(tree), module.__file__, "exec"), names)
        return names, dict(REGISTRY)
    finally:
        REGISTRY.clear()
        REGISTRY.update(real)


def source_mutants(module):
    """(function, "expression => changed expression", changed tree) for every single change of a module."""
    source = inspect.getsource(module)
    for i, (node, function) in enumerate(sites(ast.parse(source))):
        for j in range(len(list(changes(node)))):
            tree = ast.parse(source)
            found, _ = sites(tree)[i]
            near = [n for n in ast.walk(tree) if isinstance(n, SHOWN) and any(m is found for m in ast.walk(n))]
            shown = min(near or [found], key=lambda n: len(ast.unparse(n)))
            before = ast.unparse(shown)
            list(changes(found))[j](found)
            yield function, f"{before} => {ast.unparse(shown)}", tree


@contextlib.contextmanager
def shared_function(name, changed):
    """Every module of ops uses `changed` in place of op.py's function of that name."""
    modules = {importlib.import_module(op.forward.__module__) for op in REGISTRY.values()}
    modules = [m for m in modules if name in vars(m)]
    real = getattr(refdiff.ops.op, name)
    for m in modules:
        setattr(m, name, changed)
    try:
        yield
    finally:
        for m in modules:
            setattr(m, name, real)


@contextlib.contextmanager
def guarded_windows():
    """as_strided that refuses to look outside the array it is given."""
    as_strided = np.lib.stride_tricks.as_strided

    def guarded(x, shape, strides):
        if 0 not in shape:
            low, high = np.lib.array_utils.byte_bounds(x)
            start = x.__array_interface__["data"][0]
            reach = [(s - 1) * step for s, step in zip(shape, strides)]
            first = start + sum(r for r in reach if r < 0)
            last = start + sum(r for r in reach if r > 0) + x.itemsize
            assert low <= first and last <= high, f"a view of {shape} reaches outside an array of {x.shape}"
        return as_strided(x, shape, strides)

    np.lib.stride_tricks.as_strided = guarded
    try:
        yield
    finally:
        np.lib.stride_tricks.as_strided = as_strided
