"""Read pickled arrays without Python's unpickler, which calls any function that a pickle names.

A pickle is a program for a small stack machine; the standard library's `pickletools` decodes it. This executes only the
operations that build numbers, texts, lists, tuples, dictionaries and NumPy arrays, as all versions of NumPy pickle
them, and refuses all others. NumPy gets only the finished arrays.
"""

import pickletools
from dataclasses import dataclass

import numpy as np

from pipeline.errors import InputError

# A CIFAR-10 batch, with its 10,000 labels and file names, takes a fifth of them.
_MAX_OPERATIONS = 1 << 18
_DTYPES = {"u1": "u1", "|u1": "u1", "i4": "<i4", "i8": "<i8"}
_MULTIARRAY, _NUMERIC = (
    ("numpy.core.multiarray", "numpy._core.multiarray"),
    ("numpy.core.numeric", "numpy._core.numeric"),
)


@dataclass
class _Global:
    """A name that a pickle may use, and this module's name for it."""

    name: str


@dataclass
class _Dtype:
    name: str
    order: str = "<"


@dataclass
class _Array:
    """An array's content, dtype, shape and order, unchecked until `make`."""

    parts: tuple = ()

    def make(self) -> np.ndarray:
        content, dtype, shape, order = self.parts
        if not isinstance(content, (bytes, bytearray)):
            raise InputError("an array has no content")
        if not isinstance(dtype, _Dtype) or dtype.name not in _DTYPES or dtype.order not in ("<", "|"):
            raise InputError("an array does not hold integers")
        values = np.frombuffer(content, _DTYPES[dtype.name])
        if not isinstance(shape, tuple) or not all(type(length) is int and length >= 0 for length in shape):
            raise InputError("an array has no shape")
        return values.reshape(shape, order=order)


_GLOBALS = {
    ("numpy", "ndarray"): _Global("ndarray"),
    ("numpy", "dtype"): _Global("dtype"),
    **{(module, "_reconstruct"): _Global("reconstruct") for module in _MULTIARRAY},
    **{(module, "_frombuffer"): _Global("frombuffer") for module in _NUMERIC},
}


def read_pickled(content: bytes) -> object:
    """Read the pickle `content`. Arrays become read-only NumPy arrays, Python 2 texts become bytes.

    Raises:
        InputError: it is not a complete pickle, or names anything but NumPy's arrays.
    """
    try:
        return _with_arrays(_run(content))
    except InputError:
        raise
    except (ValueError, TypeError, LookupError, OverflowError) as error:
        raise InputError(f"it is not a complete pickle of arrays: {error!s:.100}") from error


def _with_arrays(value: object) -> object:
    if isinstance(value, dict):
        return {key: inner.make() if isinstance(inner, _Array) else inner for key, inner in value.items()}
    return value.make() if isinstance(value, _Array) else value


def _run(content: bytes) -> object:
    stack, marks, memo = [], [], {}

    def marked() -> list:
        start = marks.pop()
        taken = stack[start:]
        del stack[start:]
        return taken

    for count, (operation, argument, _) in enumerate(pickletools.genops(content)):
        if count > _MAX_OPERATIONS:
            raise InputError(f"it takes more than {_MAX_OPERATIONS:,} operations")
        match operation.name:
            case "PROTO" | "FRAME":
                pass
            case "STOP":
                return stack[-1]
            case "BININT" | "BININT1" | "BININT2":
                stack.append(argument)
            case "BINBYTES" | "BINBYTES8" | "BYTEARRAY8" | "SHORT_BINBYTES" | "BINUNICODE" | "SHORT_BINUNICODE":
                stack.append(argument)
            case "BINSTRING" | "SHORT_BINSTRING":
                stack.append(argument.encode("latin-1"))
            case "NONE":
                stack.append(None)
            case "NEWTRUE" | "NEWFALSE":
                stack.append(operation.name == "NEWTRUE")
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "MARK":
                marks.append(len(stack))
            case "EMPTY_LIST":
                stack.append([])
            case "APPEND":
                item = stack.pop()
                _as(list, stack[-1]).append(item)
            case "APPENDS":
                items = marked()
                _as(list, stack[-1]).extend(items)
            case "EMPTY_TUPLE":
                stack.append(())
            case "TUPLE":
                stack.append(tuple(marked()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                start = len(stack) - int(operation.name[-1])
                stack[start:] = [tuple(stack[start:])]
            case "EMPTY_DICT":
                stack.append({})
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                _as(dict, stack[-1])[_key(key)] = value
            case "SETITEMS":
                items = marked()
                _as(dict, stack[-1]).update(zip(map(_key, items[::2]), items[1::2], strict=True))
            case "GLOBAL":
                stack.append(_named(*argument.split(" ")))
            case "STACK_GLOBAL":
                name, module = stack.pop(), stack.pop()
                stack.append(_named(module, name))
            case "REDUCE":
                arguments, function = stack.pop(), stack.pop()
                stack.append(_call(_as(_Global, function).name, _as(tuple, arguments)))
            case "BUILD":
                state = stack.pop()
                _set_state(stack[-1], _as(tuple, state))
            case other:
                raise InputError(f"it uses the operation {other}, which arrays don't need")
    raise InputError("it has no end")


def _as(kind: type, value: object) -> object:
    if not isinstance(value, kind):
        raise InputError(f"it is damaged: found {type(value).__name__}, expected {kind.__name__}")
    return value


def _key(key: object) -> bytes:
    if not isinstance(key, (str, bytes)):
        raise InputError("it is damaged: a dictionary's key is not text")
    return key.encode() if isinstance(key, str) else key


def _named(module: object, name: object) -> _Global:
    try:
        return _GLOBALS[_as(str, module), _as(str, name)]
    except KeyError as error:
        raise InputError(f"it names {f'{module}.{name}'!a:.100}, which arrays don't need") from error


def _call(function: str, arguments: tuple) -> object:
    match function:
        case "reconstruct":
            return _Array()
        case "frombuffer":
            content, dtype, shape, order = arguments
            return _Array((content, dtype, shape, _as(str, order)))
        case "dtype":
            name = arguments[0]
            return _Dtype(name.decode() if isinstance(name, bytes) else _as(str, name))
    raise InputError(f"it calls {function}, which arrays don't need")


def _set_state(target: object, state: tuple) -> None:
    if isinstance(target, _Dtype):
        order = state[1]
        target.order = order.decode() if isinstance(order, bytes) else _as(str, order)
    else:
        _, shape, dtype, fortran, content = state
        _as(_Array, target).parts = (content, dtype, shape, "F" if fortran else "C")
