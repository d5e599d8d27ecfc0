"""Planted mutants: a module of refdiff with a piece of its source rewritten, in which a check must find the fault."""
import importlib
import inspect
import types


def mutant(module, *rewrites):
    """refdiff.<module> executed anew, with each (old, new) of its source rewritten; old must be there once."""
    source = inspect.getsource(importlib.import_module(f"refdiff.{module}"))
    for old, new in rewrites:
        assert source.count(old) == 1, f"the mutant of {module} no longer applies: {old!r}"
        source = source.replace(old, new)
    made = types.ModuleType(f"refdiff.{module}")
    made.__package__ = f"refdiff.{module}".rpartition(".")[0]
    exec(compile(source, f"mutant of {module}", "exec"), made.__dict__)
    return made
