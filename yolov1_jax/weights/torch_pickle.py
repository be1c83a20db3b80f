"""The pickle inside a torch file, read by a machine that can import and call nothing.

A pickle is a program for a small stack machine, and Python's own machine imports and calls whatever
that program names. This one knows only the instructions that a state dict needs. A name in the
pickle stays a name; the few that a state dict is made of (`NAMES`, `STORAGE_TYPES`) have a meaning
here, and any other is refused. Tensors come out as descriptions (`TensorView`), so that no memory
is taken for numbers that a hostile file only claims to have.
"""

import pickletools
import warnings
from typing import Any, BinaryIO, NamedTuple

import ml_dtypes
import numpy as np

STORAGE_TYPES = {
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "BoolStorage": np.dtype(np.bool_),
    "ByteStorage": np.dtype(np.uint8),
    "CharStorage": np.dtype(np.int8),
    "DoubleStorage": np.dtype(np.float64),
    "FloatStorage": np.dtype(np.float32),
    "HalfStorage": np.dtype(np.float16),
    "IntStorage": np.dtype(np.int32),
    "LongStorage": np.dtype(np.int64),
    "ShortStorage": np.dtype(np.int16),
}
ORDERED_DICT = "collections.OrderedDict"
PARAMETER = "torch._utils._rebuild_parameter"
SIZE = "torch.Size"
TENSORS = ("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2")
NAMES = {ORDERED_DICT, PARAMETER, SIZE, *TENSORS}

# A state dict's pickle has some hundred bytes a tensor. One of this size already takes a thousand
# times the memory of any that this project reads.
MAX_BYTES = 4 << 20
_MAX_DIMENSIONS = 8
_MAX_INTEGER_BITS = 128  # the legacy format begins with an integer of 80

_VALUES = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE"),
    *("BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}


class PickleError(Exception):
    """A pickle that is damaged, or that wants more than a state dict needs."""


class Storage(NamedTuple):
    """The numbers of one or several tensors, which stand elsewhere in the file."""

    key: str
    dtype: np.dtype
    num_values: int


class TensorView(NamedTuple):
    """A tensor as the pickle describes it; nothing in it is checked against the storage yet."""

    storage: Storage
    offset: int  # of the first value, in values; as are the strides
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Name(NamedTuple):
    """What a pickle imports: here, no more than its name."""

    text: str


def read_pickle(stream: BinaryIO) -> Any:
    """The content of a pickle; the stream stands behind it afterwards.

    Returns:
      None, numbers, strings, tuples, lists and dicts (an OrderedDict becomes a dict), with a
      `TensorView` for a tensor or parameter and a `Storage` for a storage. Lists and dicts may
      contain themselves.

    Raises:
      PickleError: it is damaged, too large, or names or does what no state dict needs.
    """
    machine = _Machine()
    start = stream.tell()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes in strings
            for opcode, argument, position in pickletools.genops(stream):
                if (position or 0) - start > MAX_BYTES:
                    raise PickleError(f"its pickle has more than {MAX_BYTES:,} bytes")
                machine.step(opcode.name, argument)
    except ValueError as error:  # of pickletools, which has no errors of its own
        reason = " ".join(str(error).split())[:100]
        raise PickleError(f"its pickle is truncated or damaged ({reason})") from None
    return machine.pop()


class _Machine:
    def __init__(self) -> None:
        self.frames: list[list[Any]] = [[]]  # the stack, cut at its marks
        self.memo: dict[int, Any] = {}  # a dict: an index may be any number
        self.copied = 0

    def step(self, opcode: str, argument: Any) -> None:
        """Carries out one instruction."""
        stack = self.frames[-1]
        match opcode:
            case "PROTO" | "FRAME" | "STOP":
                pass
            case _ if opcode in _VALUES:
                if isinstance(argument, int) and argument.bit_length() > _MAX_INTEGER_BITS:
                    raise PickleError("its pickle holds an integer of absurd size")
                stack.append(argument)
            case "NONE" | "NEWTRUE" | "NEWFALSE" | "EMPTY_TUPLE":
                stack.append(_CONSTANTS[opcode])
            case "MARK":
                self.frames.append([])
            case "POP":
                if stack:
                    stack.pop()
                else:
                    self.pop_frame()
            case "POP_MARK":
                self.pop_frame()
            case "DUP":
                stack.append(self.top())
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                items = [self.pop() for _ in range(int(opcode[-1]))]
                stack.append(tuple(reversed(items)))
            case "TUPLE":
                self.push(tuple(self.pop_frame()))
            case "EMPTY_LIST":
                stack.append([])
            case "LIST":
                self.push(self.pop_frame())
            case "APPEND":
                item = self.pop()
                self.top(list).append(item)
            case "APPENDS":
                items = self.pop_frame()
                self.top(list).extend(items)
            case "EMPTY_DICT":
                stack.append({})
            case "DICT":
                items = self.pop_frame()
                self.push(_dict(items[::2], items[1::2]))
            case "SETITEM":
                value, key = self.pop(), self.pop()
                self.top(dict).update(_dict([key], [value]))
            case "SETITEMS":
                items = self.pop_frame()
                self.top(dict).update(_dict(items[::2], items[1::2]))
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                self.memo[argument] = self.top()
            case "MEMOIZE":
                self.memo[len(self.memo)] = self.top()
            case "GET" | "BINGET" | "LONG_BINGET":
                if argument not in self.memo:
                    raise PickleError("its pickle is damaged (it recalls what it never had)")
                stack.append(self.memo[argument])
            case "GLOBAL":
                stack.append(self.name(argument.replace(" ", ".", 1)))
            case "STACK_GLOBAL":
                name, module = self.pop(), self.pop()
                stack.append(self.name(f"{module}.{name}"))
            case "REDUCE":
                arguments, function = self.pop(), self.pop()
                stack.append(self.call(function, arguments))
            case "BUILD":
                # The attributes of an OrderedDict, torch's `_metadata`: of no use here.
                self.pop()
                self.top(dict)
            case "BINPERSID":
                stack.append(self.storage(self.pop()))
            case _:
                raise PickleError(
                    f"its pickle has the instruction {opcode}{self.near()}, which no state dict "
                    "needs and which was not carried out: save model.state_dict()"
                )

    def push(self, value: Any) -> None:
        self.frames[-1].append(value)

    def pop(self) -> Any:
        if not self.frames[-1]:
            raise PickleError("its pickle is damaged (it takes a value that is not there)")
        return self.frames[-1].pop()

    def pop_frame(self) -> list[Any]:
        """The values since the last mark."""
        if len(self.frames) == 1:
            raise PickleError("its pickle is damaged (it goes back to a mark that is not there)")
        return self.frames.pop()

    def top(self, kind: type = object) -> Any:
        value = self.frames[-1][-1] if self.frames[-1] else None
        if not isinstance(value, kind):
            raise PickleError(
                f"its pickle changes a {type(value).__name__}{self.near()} as if it were a "
                f"{kind.__name__}: it is damaged, or no state dict"
            )
        return value

    def name(self, text: str) -> _Name:
        module, _, last = text.rpartition(".")
        if text in NAMES or (module == "torch" and last in STORAGE_TYPES):
            return _Name(text)
        raise PickleError(
            f"its pickle asks for {_quoted(text)}{self.near()}, which no state dict needs and "
            "which was not imported: save model.state_dict() with torch.save"
        )

    def call(self, function: Any, arguments: Any) -> Any:
        """What the function that torch names would make of its arguments."""
        if not isinstance(function, _Name) or not isinstance(arguments, tuple):
            raise PickleError(f"its pickle calls what is no function{self.near()}")
        match function.text, arguments:
            case "collections.OrderedDict", ():
                return {}
            case "collections.OrderedDict", ([*pairs],):  # of Python 2
                self.spend(len(pairs))
                if all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs):
                    return _dict([pair[0] for pair in pairs], [pair[1] for pair in pairs])
            case "torch._utils._rebuild_parameter", (TensorView() as tensor, *_):
                return tensor
            case "torch.Size", ([*sizes],) if len(sizes) <= _MAX_DIMENSIONS:
                return tuple(sizes)
            case (
                "torch._utils._rebuild_tensor" | "torch._utils._rebuild_tensor_v2",
                (Storage() as storage, int(offset), tuple(shape), tuple(strides), *_),
            ):
                numbers = (offset, *shape, *strides)
                if (
                    all(isinstance(number, int) and number >= 0 for number in numbers)
                    and len(shape) == len(strides) <= _MAX_DIMENSIONS
                ):
                    return TensorView(storage, offset, shape, strides)
        raise PickleError(f"its pickle misuses {function.text}{self.near()}: it is damaged")

    def spend(self, num_items: int) -> None:
        """Counts what is copied: a pickle that repeats itself could fill any memory."""
        self.copied += num_items
        if self.copied > MAX_BYTES:
            raise PickleError("its pickle copies more than a state dict needs")

    def storage(self, description: Any) -> Storage:
        """What a persistent id stands for."""
        match description:
            case (
                "storage",
                _Name(text),
                str() | int() as key,
                _,
                int(num_values),
                *view,
            ) if num_values >= 0 and text.removeprefix("torch.") in STORAGE_TYPES:
                if view in ([], [None]):
                    dtype = STORAGE_TYPES[text.removeprefix("torch.")]
                    return Storage(str(key), dtype, num_values)
        raise PickleError(
            f"its pickle refers to what is no plain storage{self.near()}: save model.state_dict()"
        )

    def near(self) -> str:
        """The parameter at which the machine is, as far as one can tell."""
        for frame in reversed(self.frames):
            if frame and frame[0] == "storage":
                continue  # the description of a storage
            for value in reversed(frame):
                if isinstance(value, str):
                    return f" at {_quoted(value)}"
        return ""


def _dict(keys: list[Any], values: list[Any]) -> dict[Any, Any]:
    if len(keys) != len(values):
        raise PickleError("its pickle is damaged (a key without a value)")
    for key in keys:
        # A nested tuple could take for ever to hash.
        if not isinstance(key, str | int | float | bytes | None):
            raise PickleError(f"its pickle has a {type(key).__name__} as the key of a dict")
    return dict(zip(keys, values, strict=True))


def _quoted(text: str) -> str:
    return repr(text[:100])
