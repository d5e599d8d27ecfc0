"""Configurations: frozen dataclasses, from which the command line, the files and the errors are made.

    @dataclass(frozen=True)
    class Training:
        steps: int = setting(3000, "updates of theta", "[1, inf)")
        lr: float = setting(4e-3, "peak learning rate", "(0, inf)", unit="1/update")
        loss: str = setting("edm", "weighting of the loss", choices=("simple", "edm"))

        __post_init__ = check

`check` refuses values of another type or out of range; `to_dict` and `from_dict` are what checkpoints store;
`options(Training)` gives a click command one option per field and hands it the Training that they make. Fields may be
bool, int, float, str, a tuple of one of these, or any of them `| None`.
"""
import functools
import types
import typing
from dataclasses import MISSING, asdict, field, fields
from difflib import get_close_matches

import click

_SAYS = {bool: "true or false", int: "an integer", float: "a number", str: "a string"}


def setting(default=MISSING, help="", range="", unit="", choices=()):
    """A field with what it means, the interval its values (or a tuple's items) lie in, as "[0, 1)", and its unit."""
    if range:
        interval(range)
    return field(default=default, metadata={"help": help, "range": range, "unit": unit, "choices": tuple(choices)})


def interval(text):
    """("[0, 1)") -> a test of membership; NaN is in none. Raises ValueError for what is no interval."""
    try:
        low, high = (float(end) for end in text[1:-1].split(","))
    except ValueError:
        low, high = 1, 0
    if not (low <= high and text[0] in "[(" and text[-1] in "])"):
        raise ValueError(f"interval: got {text!r}, wanted one such as '[0, 1)' or '(0, inf)'")
    return lambda x: (low <= x if text[0] == "[" else low < x) and (x <= high if text[-1] == "]" else x < high)


class _Kind(typing.NamedTuple):
    base: type          # bool, int, float or str
    many: bool          # a tuple of them
    none: bool          # None is a value too


def kind(cls, item):
    """What a field of a configuration holds. A bare `tuple` is of the type of its default's items."""
    hint = typing.get_type_hints(cls)[item.name]
    none = False
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        inner = [a for a in typing.get_args(hint) if a is not type(None)]
        none, hint = len(inner) < len(typing.get_args(hint)), inner[0] if len(inner) == 1 else hint
    many = hint is tuple or typing.get_origin(hint) is tuple
    if many:
        inner = typing.get_args(hint) or tuple(type(x) for x in item.default or ())
        hint = inner[0] if inner else None
    if hint not in _SAYS:
        raise TypeError(f"{cls.__name__}: field {item.name!r} is a {hint}; wanted bool, int, float, str, "
                        "a tuple of one of these, or one of them | None")
    return _Kind(hint, many, none)


def _is(base, x):
    if base is float:
        return isinstance(x, (int, float)) and not isinstance(x, bool)
    return isinstance(x, base) and not (base is int and isinstance(x, bool))


def check(config):
    """Raise ValueError that names the first field whose value has another type or lies out of range."""
    cls = type(config)
    for item in fields(config):
        base, many, none = kind(cls, item)
        value, meta = getattr(config, item.name), item.metadata
        if none and value is None:
            continue
        items = value if many and isinstance(value, tuple) else (value,)
        good = (not many or isinstance(value, tuple)) and all(_is(base, x) for x in items)
        if good and meta.get("range"):
            good = all(map(interval(meta["range"]), items))
        if good and meta.get("choices"):
            good = all(x in meta["choices"] for x in items)
        if not good:
            near = "" if not meta.get("choices") else _nearest(value, meta["choices"])
            raise ValueError(f"{cls.__name__}: {item.name} is {value!r}, wanted {wanted(cls, item)}{near}"
                             + (f" ({meta['help']})" if meta.get("help") else ""))


def wanted(cls, item):
    """The values of a field, in words: "an integer in [1, inf), in images"."""
    base, many, none = kind(cls, item)
    meta = item.metadata
    says = " or ".join(map(str, meta["choices"])) if meta.get("choices") else _SAYS[base]
    says = ("a tuple, each " if many else "") + says + (f" in {meta['range']}" if meta.get("range") else "")
    return says + (f", in {meta['unit']}" if meta.get("unit") else "") + (", or None" if none else "")


def _nearest(name, names):
    near = get_close_matches(str(name), [str(n) for n in names], 1, .5)
    return f"; did you mean {near[0]!r}?" if near else ""


def to_dict(config):
    """The fields as JSON-able values, in order; tuples become lists."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(config).items()}


def from_dict(cls, values):
    """The configuration of `to_dict`'s values; fields left out have their defaults.

    Raises ValueError for an unknown name, with the nearest known one, for a missing name and for a bad value.
    """
    known = {item.name: item for item in fields(cls)}
    for name in values:
        if name not in known:
            raise ValueError(f"{cls.__name__}: no setting {name!r}{_nearest(name, known)}"
                             f" (there are {', '.join(known)})")
    required = [name for name, item in known.items() if item.default is MISSING and item.default_factory is MISSING]
    missing = [name for name in required if name not in values]
    if missing:
        raise ValueError(f"{cls.__name__}: {', '.join(missing)} must be given")
    made = {}
    for name, value in values.items():
        base, many, _ = kind(cls, known[name])
        if many and isinstance(value, list):
            value = tuple(value)
        if base is float:                                       # 1 in a file or on a command line is 1.0
            value = tuple(float(x) if _is(float, x) else x for x in value) if isinstance(value, tuple) else \
                float(value) if _is(float, value) else value
        made[name] = value
    config = cls(**made)
    check(config)
    return config


# ---- the command line

class Several(click.ParamType):
    """Values separated by commas: 16,32; an empty string is the empty tuple."""

    def __init__(self, base):
        self.base, self.name = base, f"{base.__name__},..."

    def convert(self, value, param, ctx):
        if isinstance(value, tuple):
            return value
        try:
            return tuple(self.base(part) for part in value.split(",") if part.strip())
        except ValueError:
            self.fail(f"{value!r}: wanted {self.base.__name__} values separated by commas, such as 1,2,2", param, ctx)


def _option(cls, item, default):
    base, many, none = kind(cls, item)
    meta, flag = item.metadata, "--" + item.name.replace("_", "-").lower()
    said = [meta.get("help", "")]
    said += [f"in {meta['unit']}"] if meta.get("unit") else []
    said += [f"range {meta['range']}"] if meta.get("range") else []
    extra = {"required": True} if default is MISSING else {"default": default, "show_default": True}
    if default is None:
        extra["show_default"] = "none"
    if many:
        extra["type"] = Several(base)
        if isinstance(default, tuple):
            extra["default"] = ",".join(map(str, default))
    elif base is bool:
        flag += "/--no-" + flag[2:]
    else:
        extra["type"] = click.Choice(meta["choices"]) if meta.get("choices") else base
    return click.option(flag, item.name, help="; ".join(filter(None, said)), **extra)


def options(config, name="config", leave=()):
    """Decorator of a click callback: one option per field of a configuration; the callback gets `name`=configuration.

    config: a class, or an instance of one whose values are this command's defaults. Fields in `leave` get no option.
    Several may be stacked, each under its own name; two options of one name are refused.
    """
    cls = config if isinstance(config, type) else type(config)
    given = {} if cls is config else {item.name: getattr(config, item.name) for item in fields(cls)}
    asked = [item for item in fields(cls) if item.name not in leave]

    def decorate(callback):
        there = {param.name for param in getattr(callback, "__click_params__", ())}
        clash = [item.name for item in asked if item.name in there]
        if clash:
            raise ValueError(f"options({cls.__name__}): this command already has {', '.join(clash)}")

        @functools.wraps(callback)
        def made(*args, **kwargs):
            values = {item.name: kwargs.pop(item.name) for item in asked}
            try:
                kwargs[name] = from_dict(cls, {**given, **values})
            except ValueError as error:
                raise click.UsageError(str(error)) from error
            return callback(*args, **kwargs)

        for item in reversed(asked):                            # click lists the last decorator's option first
            made = _option(cls, item, given.get(item.name, item.default))(made)
        return made
    return decorate
