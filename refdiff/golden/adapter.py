"""An adapter puts another implementation's functions under the names that golden cases ask for.

    class Mine:                                   # or a module, or an instance: any object with some of the methods
        name, version, prediction = "mine", "1.0", "eps"
        def schedule(self, name, T, **params): ...
        def trajectory(self, sampler, schedule, T, steps, rule, final, x, denoiser, noise, **options): ...

A method that is missing, or raises NotImplementedError, is "not implemented": never a failure. It may answer with a
bare value, a dict with any of the expected fields, or lists; of tensors too, which are detached and brought to the
host. Optional attributes: name, version; prediction, the kind that its networks predict ("eps"); dtypes, those it works
in, some of ("float32", "float64"), which are the default; configurations(), the trajectories that are legal for it, as
dicts of sampler, schedule, T, rule (the grid's; a solver's is solver_rule), final and options; subject(operation,
inputs), the name of the class or function that answers.
"""
import importlib
import importlib.util
import inspect
import pkgutil
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np

from ..process.parameterization import KINDS
from . import adapters

OPERATIONS = ("schedule", "grid", "q_sample", "posterior", "convert", "threshold", "step", "trajectory", "network",
              "adamw", "ema", "clip", "learning_rate", "guidance", "frechet")
DTYPES = ("float32", "float64")
PREFIXES = ("op_", "block_", "loss_", "bound_", "consistency_")


def shipped():
    """{short name: module} of the adapters that come with refdiff."""
    return {module.name.replace("_", "-"): f"{adapters.__name__}.{module.name}"
            for module in pkgutil.iter_modules(adapters.__path__) if module.name[0] != "_"}


def operations(adapter):
    """The operations that an adapter has, by name."""
    return [name for name in dir(adapter) if (name in OPERATIONS or name.startswith(PREFIXES))
            and callable(getattr(adapter, name, None))]


def load(name):
    """The adapter of a name: a shipped one's, "pkg.module", "pkg.module:object", "file.py" or "file.py:object".

    Without :object it is the module's `adapter` if there is one, else the module itself; a class or a function
    is called for its instance. Raises ValueError, with the import's own words, where there is none.
    """
    where, colon, attribute = name.partition(":") if not name.endswith(".py") else (name, "", "")
    module = _import(name, where)
    if colon and not hasattr(module, attribute):
        raise ValueError(f"adapter {name}: {where} has no {attribute!r}, wanted the name of an object in it")
    adapter = getattr(module, attribute) if colon else getattr(module, "adapter", module)
    if isinstance(adapter, type) or inspect.isfunction(adapter):
        try:
            adapter = adapter()
        except (Exception, SystemExit) as error:
            missing = isinstance(error, ImportError) and where in shipped()
            raise ValueError(f"adapter {name}: {adapter.__name__}() failed: {last_line(error)}"
                             + ("; pip install 'refdiff[interop]'" if missing else "")) from error
    if not operations(adapter):
        raise ValueError(f"adapter {name}: it has none of the methods that cases ask for, such as schedule, step or "
                         "trajectory; name the object that has them as MODULE:OBJECT")
    return adapter


def _import(name, where):
    path, known = Path(where), shipped()
    try:
        if where.endswith(".py"):
            if not path.is_file():
                raise ValueError(f"adapter {name}: there is no file {where}")
            spec = importlib.util.spec_from_file_location(f"refdiff_adapter_{path.stem}", path)
            module = importlib.util.module_from_spec(spec)
            sys.modules[spec.name] = module
            sys.path.insert(0, str(path.resolve().parent))
            try:
                spec.loader.exec_module(module)
            finally:
                sys.path.remove(str(path.resolve().parent))
            return module
        if where in known:
            return importlib.import_module(known[where])
        if str(Path.cwd()) not in sys.path:
            sys.path.insert(0, str(Path.cwd()))             # as python -m does, so that mypackage:Mine is found
        return importlib.import_module(where)
    except ValueError:
        raise
    except (Exception, SystemExit) as error:                           # whatever the module's own code raises
        raise ValueError(f"adapter {name}: cannot be imported: {last_line(error)}; wanted one of "
                         f"{', '.join(sorted(known))}, MODULE:OBJECT or a file.py, and what it needs installed"
                         ) from error


def last_line(error):
    """What a traceback ends with: the exception's type and its message, one line."""
    said = str(error).strip().splitlines()
    return f"{type(error).__name__}: {said[0]}" if said else type(error).__name__


def name_of(adapter):
    """The adapter's `name`, else its module's or class's."""
    own = getattr(adapter, "name", None)
    if isinstance(own, str) and own:
        return own
    return (adapter if isinstance(adapter, (ModuleType, type)) else type(adapter)).__name__.rpartition(".")[2]


def name_in_python(adapter):
    """What `load` finds an adapter by: its module's name, or MODULE:CLASS of an instance; "" where neither is one."""
    module = getattr(adapter, "__name__", "") if isinstance(adapter, ModuleType) else type(adapter).__module__
    known = sys.modules.get(module)
    if known is None or module in ("__main__", "builtins"):
        return ""
    if isinstance(adapter, ModuleType):
        return module if known is adapter else ""
    kind = type(adapter)
    return f"{module}:{kind.__name__}" if getattr(known, kind.__name__, None) is kind and operations(kind) else ""


def prediction_of(adapter):
    """The kind that an adapter's networks predict. Raises ValueError where it is none."""
    kind = getattr(adapter, "prediction", "eps")
    if kind not in KINDS:
        raise ValueError(f"adapter {name_of(adapter)}: prediction is {kind!r}, wanted one of {', '.join(KINDS)}")
    return kind


def dtypes_of(adapter):
    """The dtypes that an adapter works in, by name. Raises ValueError for others than float32 and float64."""
    named = getattr(adapter, "dtypes", DTYPES)
    if not isinstance(named, (tuple, list)) or not named or not all(
            isinstance(dtype, str) and dtype in DTYPES for dtype in named):
        raise ValueError(f"adapter {name_of(adapter)}: dtypes is {named!r}, wanted a tuple of some of "
                         f"{', '.join(map(repr, DTYPES))}, such as (\"float32\",); an answer in half precision is "
                         "judged as float32")
    return tuple(named)


def subject_of(adapter, operation, inputs):
    """The class or function audited: what adapter.subject(operation, inputs) says, else NAME.OPERATION."""
    says = getattr(adapter, "subject", None)
    try:
        said = says(operation, inputs) if callable(says) else None
    except Exception:
        said = None                              # it only names what is audited: the case is none the worse
    return said if isinstance(said, str) and said else f"{name_of(adapter)}.{operation}"


@dataclass(frozen=True, eq=False)
class Answer:
    """fields: {name: float64 or float32 array}, "" for a bare value; or why there is none."""

    fields: dict | None = None
    missing: str = ""           # why it is not implemented
    error: str = ""             # the last line of what it raised


def call(adapter, operation, inputs):
    """The Answer of adapter.<operation>(**inputs). What it raises is in the answer, never raised."""
    method = getattr(adapter, operation, None)
    if not callable(method):
        return Answer(missing=f"no method {operation}")
    unknown = _refused_names(method, inputs)
    if unknown:
        return Answer(missing=f"{operation} takes no argument {', '.join(unknown)}")
    try:
        with np.errstate(all="ignore"):                     # what is not finite is judged, not warned of
            value = method(**{name: _own(part) for name, part in inputs.items()})
        if value is NotImplemented:
            return Answer(missing=f"{operation} returned NotImplemented")
        return Answer(fields=normalise(value))
    except NotImplementedError as error:
        return Answer(missing=str(error) or f"{operation} raised NotImplementedError")
    except (Exception, SystemExit) as error:                # sys.exit would end the audit, with status 0 perhaps
        unknown = isinstance(error, TypeError) and re.search(r"unexpected keyword argument '(\w+)'", str(error))
        if unknown and unknown[1] in inputs:                # handed on with **options to what has no such option
            return Answer(missing=f"{operation} takes no option {unknown[1]}")
        return Answer(error=last_line(error))


def _own(value):
    """An array of the adapter's own: what writes into its x in place does not change what is asked next."""
    return value.copy() if isinstance(value, np.ndarray) else value


def names_argument(adapter, operation, name):
    """Whether a method has an argument of this very name; False where its signature cannot be read."""
    try:
        return name in inspect.signature(getattr(adapter, operation)).parameters
    except (TypeError, ValueError, AttributeError):
        return False


def _refused_names(method, inputs):
    """The inputs that a method's signature has no place for; none where it cannot be read."""
    try:
        parameters = inspect.signature(method).parameters.values()
    except (TypeError, ValueError):
        return []
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return []
    return sorted(set(inputs) - {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)})


def normalise(value):
    """{field: array} of what a method returned; {"": array} of a bare value. Raises TypeError for no numbers."""
    if isinstance(value, dict):
        return {str(name): array(part, name) for name, part in value.items() if part is not None}
    return {"": array(value, "the answer")}


def array(value, name="the answer"):
    """Numbers as a real ndarray, float32 if they came as such (or narrower), else float64."""
    if value is None:
        raise TypeError(f"{name} is None, wanted numbers; raise NotImplementedError for what there is none of")
    result = _host(value)
    if result.dtype.kind not in "fiub":
        raise TypeError(f"{name} is {type(value).__name__} of {result.dtype}, wanted real numbers")
    return result.astype(np.float32 if result.dtype.kind == "f" and result.dtype.itemsize <= 4 else np.float64)


def _host(value):
    if hasattr(value, "detach"):                            # a tensor, whoever made it
        value = value.detach()
        value = value.cpu() if hasattr(value, "cpu") else value
        value = value.float() if "bfloat16" in str(getattr(value, "dtype", "")) else value
        return value.numpy()
    if hasattr(value, "get") and hasattr(value, "__cuda_array_interface__"):
        return value.get()
    if isinstance(value, (list, tuple)):
        parts = [_host(part) for part in value]
        return np.array(parts) if parts else np.zeros(0)
    return np.asarray(value)
