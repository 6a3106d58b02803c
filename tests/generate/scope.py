"""A graph under construction: its values, what is known about them, and how nodes are added."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper
from onnx import TensorProto

BATCHES = (2, 1, 3)
"""The sizes of the dynamic dim N that every model is run at."""

Dim = tuple[int, ...]
"""The size of a dim at each of BATCHES."""

Dims = tuple[Dim, ...]

FLOAT, DOUBLE, HALF = TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16
INT64, INT32, BOOL = TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL
INT8, UINT8 = TensorProto.INT8, TensorProto.UINT8
FLOATS = (FLOAT, DOUBLE, HALF)
INTEGERS = (INT64, INT32)
LARGEST = 4096
"""The most elements a value may have."""


class NotApplicable(Exception):  # noqa: N818 - control flow: this op cannot be added here
    """An emitter found no operand that suits it."""


@dataclass(frozen=True, eq=False)
class Value:
    """A tensor in the graph.

    Attributes:
        dims: the size of each dim, at each of BATCHES.
        magnitude: roughly the largest absolute value; kept small so that floats compare well.
        exact: no rounding on the way here, so that comparing, rounding or ranking it is stable.
        array: what it holds, where it is a constant.
    """

    name: str
    dtype: int
    dims: Dims
    magnitude: float = 2.0
    exact: bool = False
    array: np.ndarray | None = None

    @property
    def rank(self) -> int:
        return len(self.dims)

    @property
    def is_static(self) -> bool:
        return all(is_static(dim) for dim in self.dims)

    def size(self, axis: int) -> int:
        """The size of a dim that does not depend on N."""
        if not is_static(self.dims[axis]):
            raise NotApplicable
        return self.dims[axis][0]


def fixed(*sizes: int) -> Dims:
    """Dims that do not depend on N."""
    return tuple((size,) * len(BATCHES) for size in sizes)


def is_static(dim: Dim) -> bool:
    return len(set(dim)) == 1


def elements(dims: Dims) -> int:
    """The most elements over all BATCHES."""
    return max(int(np.prod([dim[i] for dim in dims])) for i in range(len(BATCHES)))


def broadcast(left: Dims, right: Dims) -> Dims | None:
    """The dims of an elementwise result, or None where they do not broadcast at every size."""
    rank = max(len(left), len(right))
    one = fixed(1)[0]
    padded = [(one,) * (rank - len(dims)) + dims for dims in (left, right)]
    result = []
    for a, b in zip(*padded, strict=True):
        if any(x != y and 1 not in (x, y) for x, y in zip(a, b, strict=True)):
            return None
        result.append(tuple(y if x == 1 else x for x, y in zip(a, b, strict=True)))
    return tuple(result)


@dataclass(frozen=True)
class Result:
    """What an emitter knows about an output of the node it adds."""

    dtype: int
    dims: Dims
    magnitude: float = 2.0
    exact: bool = False


@dataclass
class Shared:
    """What all scopes of one model share."""

    opset: int
    random: random.Random
    numpy: np.random.RandomState
    functions: dict[str, onnx.FunctionProto] = field(default_factory=dict)
    counter: int = 0


class Scope:
    """One graph: the main graph, or the body of an If, Loop or Scan (then with a parent)."""

    def __init__(self, shared: Shared, parent: "Scope | None" = None) -> None:
        self.shared = shared
        self.parent = parent
        self.random = shared.random
        self.numpy = shared.numpy
        self.opset = shared.opset
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, np.ndarray] = {}
        self.values: list[Value] = []
        self.constants: list[Value] = []
        self.used: set[str] = set()

    @property
    def depth(self) -> int:
        return 0 if self.parent is None else self.parent.depth + 1

    def chance(self, probability: float) -> bool:
        return self.random.random() < probability

    def name(self, prefix: str = "v") -> str:
        """A name that is new in the whole model."""
        self.shared.counter += 1
        return f"{prefix}{self.shared.counter}"

    def visible(self) -> list[Value]:
        """Values that a node here may use, those of outer scopes first."""
        return ([] if self.parent is None else self.parent.visible()) + self.values

    def pick(
        self,
        dtypes: Sequence[int] | None = (FLOAT,),
        *,
        rank: Sequence[int] | None = None,
        where: Callable[[Value], bool] | None = None,
    ) -> Value:
        """One of the visible values, the newer the likelier."""
        suited = [
            value
            for value in self.visible()
            if (dtypes is None or value.dtype in dtypes)
            and (rank is None or value.rank in rank)
            and (where is None or where(value))
        ]
        if not suited:
            raise NotApplicable
        return suited[max(self.random.randrange(len(suited)) for _ in range(2))]

    def emit(
        self,
        op: str,
        inputs: Sequence[Value | None],
        *results: Result,
        domain: str = "",
        names: Sequence[str] = (),
        **attributes: object,
    ) -> list[Value]:
        """Add a node; an input that is None is omitted."""
        if any(elements(result.dims) > LARGEST for result in results):
            raise NotApplicable
        outputs = list(names) or [self.name() for _ in results]
        present = ["" if value is None else value.name for value in inputs]
        while present and not present[-1]:
            present.pop()
        self.nodes.append(
            onnx.helper.make_node(
                op,
                present,
                outputs,
                name=self.name("n") if self.chance(0.7) else "",
                domain=domain,
                **{key: value for key, value in attributes.items() if value is not None},
            )
        )
        self.used.update(present)
        made = [
            Value(name, result.dtype, result.dims, result.magnitude, result.exact)
            for name, result in zip(outputs, results, strict=True)
        ]
        self.values.extend(made)
        return made

    def one(
        self,
        op: str,
        inputs: Sequence[Value | None],
        result: Result,
        domain: str = "",
        **attributes: object,
    ) -> Value:
        """Add a node with one output."""
        return self.emit(op, inputs, result, domain=domain, **attributes)[0]

    def initializer(self, array: np.ndarray) -> Value:
        """A new initializer of this graph."""
        value = constant_value(self.name("w"), array)
        self.initializers[value.name] = array
        return value

    def constant(self, array: np.ndarray, *, plain: bool = False) -> Value:
        """A constant holding `array`, in one of the ways that models spell constants."""
        array = np.asarray(array)
        same = [
            value
            for value in self._visible_constants()
            if value.array is not None
            and value.array.dtype == array.dtype
            and value.array.shape == array.shape
            and value.array.tobytes() == array.tobytes()
        ]
        if same and self.chance(0.6):
            return self.random.choice(same)
        draw = self.random.random()
        if plain or draw < 0.55:
            value = self.initializer(array)
        elif draw < 0.85:
            value = self._constant_node(array)
        else:
            value = self._constant_chain(array)
        self.constants.append(value)
        return value

    def _visible_constants(self) -> list[Value]:
        outer = [] if self.parent is None else self.parent._visible_constants()
        return outer + self.constants

    def weight(self, *shape: int, low: float = -0.5, high: float = 0.5) -> Value:
        """A float32 constant; at times one that another node uses already."""
        shared = [
            value
            for value in self._visible_constants()
            if value.array is not None
            and value.array.dtype == np.float32
            and value.array.shape == shape
            and value.array.min(initial=high) >= low
            and value.array.max(initial=low) <= high
        ]
        if shared and self.chance(0.4):
            return self.random.choice(shared)
        return self.constant(self.numpy.uniform(low, high, shape).astype(np.float32))

    def ints(self, *numbers: int) -> Value:
        """A 1-D int64 constant."""
        return self.constant(np.array(numbers, np.int64))

    def scalar(self, number: float | bool, dtype: type = np.float32) -> Value:
        """A rank-0 constant."""
        return self.constant(np.array(number, dtype))

    def _constant_node(self, array: np.ndarray) -> Value:
        """A Constant node, spelled with `value` or one of its short forms."""
        value = constant_value(self.name("c"), array)
        attribute: dict[str, object] = {"value": onnx.numpy_helper.from_array(array)}
        if self.opset >= 12 and self.chance(0.5):
            if array.dtype == np.float32 and array.ndim == 1 and array.size:
                attribute = {"value_floats": array.tolist()}
            elif array.dtype == np.float32 and array.ndim == 0:
                attribute = {"value_float": float(array)}
            elif array.dtype == np.int64 and array.ndim == 1 and array.size:
                attribute = {"value_ints": array.tolist()}
            elif array.dtype == np.int64 and array.ndim == 0:
                attribute = {"value_int": int(array)}
        self.nodes.append(onnx.helper.make_node("Constant", [], [value.name], **attribute))
        return value

    def _constant_chain(self, array: np.ndarray) -> Value:
        """A few nodes over constants that compute `array`, without rounding."""
        value = constant_value(self.name("k"), array)
        kind = self.random.choice(("identity", "transpose", "concat", "cast", "add"))
        node, add = onnx.helper.make_node, self.nodes.append
        if kind == "transpose" and array.ndim >= 2:
            add(node("Transpose", [self.initializer(array.T.copy()).name], [value.name]))
        elif kind == "concat" and array.ndim >= 1 and array.shape[0] >= 2:
            parts = [self.initializer(array[:1]), self.initializer(array[1:])]
            add(node("Concat", [part.name for part in parts], [value.name], axis=0))
        elif kind == "cast" and array.dtype in (np.float32, np.int32):
            wide = array.astype(np.float64 if array.dtype == np.float32 else np.int64)
            add(node("Cast", [self.initializer(wide).name], [value.name], to=value.dtype))
        elif kind == "add" and array.dtype == np.int64:
            parts = [self.initializer(array - 3), self.initializer(np.array(3, np.int64))]
            add(node("Add", [part.name for part in parts], [value.name]))
        else:
            add(node("Identity", [self.initializer(array).name], [value.name]))
        return value


def constant_value(name: str, array: np.ndarray) -> Value:
    """A Value that holds `array`."""
    return Value(
        name,
        onnx.helper.np_dtype_to_tensor_dtype(array.dtype),
        fixed(*array.shape),
        float(np.abs(array.astype(np.float64)).max(initial=0.0)),
        exact=True,
        array=array,
    )


def numpy_type(dtype: int) -> np.dtype:
    return onnx.helper.tensor_dtype_to_np_dtype(dtype)
