"""The pickle inside a torch checkpoint, read as data: a stack machine for the few opcodes that tensors need.

A pickle is a program; `pickle.load` runs it and thereby whatever it imports. Here nothing is imported and nothing is
called. The opcodes are taken apart by pickletools, and only these have a meaning: building numbers, texts, lists,
tuples and tables; the memo; and, of all names that a pickle can ask for,

    collections.OrderedDict                     an empty table
    torch._utils._rebuild_tensor_v2             a Strided: a storage with offset, shape and strides
    torch.<Float|Double|Half|...>Storage        the dtype of a storage

Every other name and every other opcode is refused by name.
"""
import pickletools
from typing import NamedTuple

from .tensors import ForeignError

STORAGES = {"DoubleStorage": "f8", "FloatStorage": "f4", "HalfStorage": "f2", "BFloat16Storage": "bf16",
            "LongStorage": "i8", "IntStorage": "i4", "ShortStorage": "i2", "CharStorage": "i1", "ByteStorage": "u1",
            "BoolStorage": "b1"}


class Storage(NamedTuple):
    """Numbers in a row, in the archive's entry data/<key>."""

    dtype: str
    key: str
    count: int


class Strided(NamedTuple):
    """x[i, j, ...] = storage[offset + i strides[0] + j strides[1] + ...]."""

    storage: Storage
    offset: int
    shape: tuple
    strides: tuple


class _Name(NamedTuple):
    """A name that the pickle asked for and that has a meaning here."""

    module: str
    name: str


_TABLE = _Name("collections", "OrderedDict")
_REBUILD = _Name("torch._utils", "_rebuild_tensor_v2")
_NAMES = {_TABLE, _REBUILD, *(_Name("torch", name) for name in STORAGES)}
_MARK = object()

_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_VALUES = {"BININT", "BININT1", "BININT2", "INT", "LONG", "LONG1", "LONG4", "BINFLOAT", "FLOAT", "BINUNICODE",
           "SHORT_BINUNICODE", "BINUNICODE8", "UNICODE"}
_EMPTY = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}
_SHORT_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_NOTHING = {"PROTO", "FRAME", "STOP"}


def interpret(data, where):
    """What the pickle `data` describes: tables, lists, tuples, numbers, texts and Strided tensors.

    Raises ForeignError that begins with `where` for anything else.
    """
    try:
        return _Machine(where).run(data)
    except ForeignError:
        raise
    except Exception as error:              # a damaged pickle shows in many ways: IndexError, KeyError, TypeError, ...
        raise ForeignError(f"{where}: the pickle is damaged ({type(error).__name__})") from None


class _Machine:
    def __init__(self, where):
        self.where, self.stack, self.memo = where, [], {}

    def run(self, data):
        for opcode, argument, _ in pickletools.genops(data):
            self.step(opcode.name, argument)
        result, = self.stack
        return result

    def step(self, name, argument):
        push, pop = self.stack.append, self.stack.pop
        if name in _NOTHING:
            pass
        elif name in _CONSTANTS:
            push(_CONSTANTS[name])
        elif name in _VALUES:
            push(argument)
        elif name in _EMPTY:
            push(_EMPTY[name]())
        elif name == "MARK":
            push(_MARK)
        elif name in _SHORT_TUPLES:
            count = _SHORT_TUPLES[name]
            items = tuple(pop() for _ in range(count))
            push(items[::-1])
        elif name in ("TUPLE", "LIST", "DICT"):
            items = self.marked()
            push(tuple(items) if name == "TUPLE" else items if name == "LIST" else self.fill({}, items))
        elif name in ("APPEND", "APPENDS"):
            items = self.marked() if name == "APPENDS" else [pop()]
            self.top(list).extend(items)
        elif name in ("SETITEM", "SETITEMS"):
            items = self.marked() if name == "SETITEMS" else [pop(), pop()][::-1]
            self.fill(self.top(dict), items)
        elif name in ("BINPUT", "LONG_BINPUT", "PUT", "MEMOIZE"):
            self.memo[len(self.memo) if name == "MEMOIZE" else argument] = self.stack[-1]
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            push(self.memo[argument])
        elif name == "GLOBAL":
            push(self.named(*argument.split(" ", 1)))
        elif name == "STACK_GLOBAL":
            last = pop()
            push(self.named(pop(), last))
        elif name == "BINPERSID":
            push(self.storage(pop()))
        elif name == "REDUCE":
            arguments = pop()
            push(self.call(pop(), arguments))
        elif name == "BUILD":
            pop()                           # the attributes of a table, such as a state_dict's _metadata: not weights
            self.top(dict)
        else:
            raise ForeignError(f"{self.where}: the pickle uses the opcode {name}, which tensors do not need; it is "
                               "refused, nothing was run")

    def marked(self):
        """The items above the last mark, taken off."""
        at = len(self.stack) - 1
        while self.stack[at] is not _MARK:
            at -= 1
            if at < 0:
                raise IndexError
        items = self.stack[at + 1:]
        del self.stack[at:]
        return items

    def top(self, kind):
        if type(self.stack[-1]) is not kind:
            raise TypeError
        return self.stack[-1]

    def fill(self, table, items):
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, (str, int, float)):      # others may be made to take for ever to hash
                raise TypeError
            table[key] = value
        return table

    def named(self, module, name):
        if not isinstance(module, str) or not isinstance(name, str):
            raise TypeError
        if _Name(module, name) not in _NAMES:
            raise ForeignError(f"{self.where}: the pickle asks for {module}.{name}, which would run code when the file "
                               "is loaded by torch or pickle; it is refused, nothing was run. Save the state_dict of "
                               "tensors alone, or as safetensors")
        return _Name(module, name)

    def call(self, function, arguments):
        if not isinstance(function, _Name) or function not in (_TABLE, _REBUILD):
            told = f"torch.{function.name}" if isinstance(function, _Name) else f"a {type(function).__name__}"
            raise ForeignError(f"{self.where}: the pickle calls {told}, which is refused; nothing was run")
        if type(arguments) is not tuple:
            raise TypeError
        if function == _TABLE:
            () = arguments
            return {}
        storage, offset, shape, strides = arguments[:4]
        sizes = (offset, *shape, *strides)
        if (not isinstance(storage, Storage) or type(shape) is not tuple or type(strides) is not tuple
                or len(shape) != len(strides) or len(shape) > 32
                or any(type(i) is not int or not 0 <= i < 2 ** 63 for i in sizes)):
            raise TypeError
        return Strided(storage, offset, shape, strides)

    def storage(self, name):
        kind, dtype, key, _, count = name
        if (kind != "storage" or not isinstance(dtype, _Name) or dtype.name not in STORAGES
                or not isinstance(key, str) or type(count) is not int or count < 0):
            raise TypeError
        return Storage(STORAGES[dtype.name], key, count)
