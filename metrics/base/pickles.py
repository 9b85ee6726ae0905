"""The one reader of pickles here: it builds arrays, tensors and plain values, and runs nothing of the file.

A pickle is a program. Before it runs, its steps are checked against a list (no instances by name, no
extension codes, bounded memory). The names it may call are replaced by functions of ours: numpy's dtype is
rebuilt from a list of plain numbers, and its state is read for the byte order alone. An array stays raw bytes
until it is asked for. Keys of tables are plain values: hashing a tuple of tuples can overflow the stack, or
take forever.
"""

import io
import pickle
import pickletools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, BinaryIO, ClassVar

import numpy as np

from fact_metrics.base.errors import UserError
from fact_metrics.base.limits import PICKLE, PICKLE_STEPS, Limit

# Steps that build containers and plain values, and the three that call: GLOBAL names a function, REDUCE calls
# it, BUILD sets a state. NEWOBJ makes an instance of a class that `find_class` returned.
STEPS = frozenset(
    "PROTO FRAME STOP MARK POP POP_MARK DUP MEMOIZE PUT BINPUT LONG_BINPUT GET BINGET LONG_BINGET "
    "NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT "
    "STRING BINSTRING SHORT_BINSTRING BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8 "
    "UNICODE SHORT_BINUNICODE BINUNICODE BINUNICODE8 "
    "EMPTY_LIST APPEND APPENDS LIST EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_DICT DICT SETITEM SETITEMS "
    "EMPTY_SET ADDITEMS "
    "GLOBAL STACK_GLOBAL REDUCE BUILD NEWOBJ BINPERSID".split()
)
DTYPES = frozenset(f"{kind}{size}" for kind in "fiu" for size in (1, 2, 4, 8)) - {"f1"} | {"b1"}
LONGEST_INTEGER = 64  # bytes

Function = Callable[..., Any]


class Refused(UserError):
    """A pickle that asks for more than arrays and plain values; the message begins with what it does."""


class PlainArray:
    """An array of a pickle: shape, dtype, order and bytes, checked when `numpy` is called."""

    __slots__ = ("_data", "_dtype", "_fortran", "_shape")

    def __init__(self, data: Any = b"", dtype: Any = None, shape: Any = (), fortran: bool = False):
        self._data, self._dtype, self._shape, self._fortran = data, dtype, shape, fortran

    def __setstate__(self, state: Any) -> None:
        if not (isinstance(state, tuple) and len(state) == 5):
            raise Refused("holds an array of unknown form")
        _, self._shape, self._dtype, self._fortran, self._data = state

    def numpy(self) -> np.ndarray:
        """The array, of real numbers. Raises Refused if its parts do not fit each other."""
        shape, data = self._shape, self._data
        if not isinstance(self._dtype, _PlainDtype) or not isinstance(data, bytes | bytearray):
            raise Refused("holds an array of objects; only plain numbers are read")
        if not (isinstance(shape, tuple) and all(type(n) is int and n >= 0 for n in shape)):
            raise Refused("holds an array without a shape")
        dtype = self._dtype.numpy()
        if len(shape) > 8 or _product(shape) * dtype.itemsize != len(data):
            raise Refused(f"promises an array of shape {list(shape)[:8]} and holds {len(data):,} bytes")
        return np.frombuffer(data, dtype).reshape(shape, order="F" if self._fortran else "C")


class _PlainDtype:
    """A numpy dtype by name: floats, integers, booleans. Of its state only the byte order counts."""

    __slots__ = ("_name", "_order")

    def __init__(self, name: str):
        self._name, self._order = name, "="

    def __setstate__(self, state: Any) -> None:
        plain = (None, None, None, -1, -1, 0)
        if not (isinstance(state, tuple) and len(state) == 8 and state[1] in ("<", ">", "|", "=")):
            raise Refused("changes a numpy dtype")
        if tuple(state[2:]) != plain or any(
            type(x) is not type(y) for x, y in zip(state[2:], plain, strict=True)
        ):
            raise Refused("changes a numpy dtype")
        self._order = state[1]

    def numpy(self) -> np.dtype:
        return np.dtype(self._name).newbyteorder(self._order)


class Call:
    """A function that a pickle may call and cannot change."""

    __slots__ = ("_function",)

    def __init__(self, function: Function):
        self._function = function

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise Refused("changes a function")


def read_pickle(
    data: bytes | BinaryIO,
    *,
    source: object,
    find_class: Callable[[str, str], Any] | None = None,
    persistent_load: Callable[[Any], Any] | None = None,
    limit: Limit = PICKLE,
    way_out: str = "save its arrays with numpy.savez",
) -> Any:
    """The content of a pickle: containers, numbers, texts and PlainArray. UserError names the source.

    `data` may be an open file, read from its position on; several pickles can follow each other in it.
    `find_class(module, name)` is asked first and returns None for names that it does not know.
    """
    stream = io.BytesIO(data) if isinstance(data, bytes) else data
    start = stream.tell()
    stream.seek(0, io.SEEK_END)
    limit.check(stream.tell() - start, source, way_out)
    stream.seek(start)
    try:
        _check_steps(stream)
        stream.seek(start)
        return _Unpickler(stream, find_class, persistent_load, way_out).load()
    except Refused as error:
        raise Refused(f"{source} {error}") from None
    except Exception as error:  # a damaged pickle raises anything
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"{source} is not a readable pickle of plain values ({reason})") from error


class _Unpickler(pickle._Unpickler):  # Python's own, whose steps can be replaced; the one in C has the same
    dispatch: ClassVar[dict] = dict(pickle._Unpickler.dispatch)

    def __init__(self, stream: BinaryIO, find_class: Any, persistent_load: Any, way_out: str):
        super().__init__(stream)
        self._way_out = way_out
        self._find, self._persistent, self._made = find_class, persistent_load, 0
        self._functions: Mapping[tuple[str, str], Function] = {
            (module, name): function
            for name, (modules, function) in {
                "_reconstruct": (_NUMPY_MULTIARRAY, lambda *_: PlainArray()),
                "scalar": (_NUMPY_MULTIARRAY, _scalar),
                "_frombuffer": (_NUMPY_NUMERIC, _from_buffer),
                "dtype": (("numpy",), _dtype),
                "ndarray": (("numpy",), None),  # an argument of _reconstruct, never called
                "encode": (("_codecs",), self._encode),
            }.items()
            for module in modules
        }

    def find_class(self, module: str, name: str) -> Any:
        found = self._find(module, name) if self._find else None
        if found is not None:
            return found
        if (module, name) not in self._functions:
            raise Refused(
                f"names {module}.{name}: a pickle can run code, and only arrays and plain values are read "
                f"from one; if you trust it, {self._way_out}"
            )
        return Call(self._functions[module, name] or _never)

    def _set_item(self) -> None:
        check_plain_keys(self.stack[-2:-1])
        self.load_setitem()

    def _set_items(self) -> None:
        check_plain_keys(self.stack[::2])
        self.load_setitems()

    def _make_dict(self) -> None:
        check_plain_keys(self.stack[::2])
        self.load_dict()

    def _add_items(self) -> None:
        check_plain_keys(self.stack)
        self.load_additems()

    dispatch[pickle.SETITEM[0]] = _set_item
    dispatch[pickle.SETITEMS[0]] = _set_items
    dispatch[pickle.DICT[0]] = _make_dict
    dispatch[pickle.ADDITEMS[0]] = _add_items

    def persistent_load(self, reference: Any) -> Any:
        if self._persistent is None:
            raise Refused("refers to data outside itself")
        return self._persistent(reference)

    def _encode(self, text: Any, encoding: Any = "latin1") -> bytes:
        """How protocols below 3 spell bytes. What all calls make together is bounded."""
        if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
            raise Refused("encodes a text")
        self._made += len(text)
        PICKLE.check(self._made, "its arrays", "save them with numpy.savez")
        return text.encode("latin1")


_NUMPY_MULTIARRAY = ("numpy.core.multiarray", "numpy._core.multiarray")
_NUMPY_NUMERIC = ("numpy.core.numeric", "numpy._core.numeric")


def check_plain_keys(keys: Iterable[Any]) -> None:
    """Raise Refused unless every key of a table or member of a set is a plain value."""
    for key in keys:
        if type(key) not in (str, int, float, bool, bytes, type(None)):
            raise Refused(f"has a {type(key).__name__} as the key of a table; only plain values are read")


def _check_steps(stream: BinaryIO) -> None:
    """Raise Refused for a step that is not in STEPS, or whose number would take memory by itself."""
    steps = 0
    for opcode, argument, _ in pickletools.genops(stream):
        steps += 1
        if opcode.name not in STEPS:
            raise Refused(f"has the pickle step {opcode.name}; only arrays and plain values are read")
        if steps > PICKLE_STEPS.most:
            raise Refused(f"has more than {PICKLE_STEPS.text(PICKLE_STEPS.most)}; no such pickle is read")
        is_memo = opcode.name in ("PUT", "BINPUT", "LONG_BINPUT", "GET", "BINGET", "LONG_BINGET")
        if is_memo and int(argument) > PICKLE_STEPS.most:
            raise Refused("remembers more values than it holds")
        if isinstance(argument, int) and argument.bit_length() > 8 * LONGEST_INTEGER:
            raise Refused("holds an integer of thousands of digits")


def _dtype(name: Any, *_: Any) -> _PlainDtype:
    if not (isinstance(name, str) and name in DTYPES):
        given = repr(name[:20]) if isinstance(name, str) else f"of type {type(name).__name__}"
        raise Refused(f"holds an array of dtype {given}; plain floats and integers are read")
    return _PlainDtype(name)


def _scalar(dtype: Any, data: Any = None, *_: Any) -> float | int:
    return PlainArray(data, dtype, ()).numpy().item()


def _from_buffer(data: Any, dtype: Any, shape: Any, order: Any, *_: Any) -> PlainArray:
    return PlainArray(data, dtype, shape, order == "F")


def _never(*_: Any) -> None:
    raise Refused("makes an array without its content")


def _product(shape: tuple[int, ...]) -> int:
    total = 1
    for n in shape:
        total *= n
    return total
