"""A module with one place in its source rewritten."""
import inspect
import types


def mutant(module, name, old, new):
    """`name` of a copy of the module in whose source `old`, which occurs once, is `new`."""
    source = inspect.getsource(module)
    assert source.count(old) == 1, f"the mutant of {module.__name__} no longer applies: {old!r}"
    copy = types.ModuleType(module.__name__)
    copy.__package__ = module.__package__
    exec(compile(source.replace(old, new), f"mutant of {module.__name__}", "exec"), copy.__dict__)
    return getattr(copy, name)
