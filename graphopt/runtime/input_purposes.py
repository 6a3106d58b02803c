"""What to feed where an operator asks for something special: a shape, axes, a length, ..."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from graphopt.runtime.input_roles import Place
from graphopt.runtime.input_sizes import resolve

_END = 2**31 - 1  # "to the end" for Slice, and valid for int32


@dataclass(frozen=True)
class Request:
    """What a value is made from.

    Attributes:
        place: the place that asks for it.
        shape: the shape of the input.
        kind: which kind of feed, 0, 1 or 2.
        random: where random numbers come from.
        sizes: the sizes of the dynamic dims.
    """

    place: Place
    shape: tuple[int, ...]
    kind: int
    random: np.random.Generator
    sizes: Mapping[str, int]

    @property
    def count(self) -> int:
        """How many elements the input has."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def dims(self) -> list[int | None] | None:
        """The dims of the tensor that the value is about, None for those not known."""
        value = self.place.subject
        if value is None:
            return None
        if value.const_value is not None:
            return list(value.const_value.shape.numpy())
        if value.shape is None:
            return None
        return [resolve(dim, self.sizes) for dim in value.shape.dims]


def special_values(request: Request) -> np.ndarray | None:
    """The values that the place asks for; None where it has no wish of that kind."""
    make = _MAKERS.get(request.place.purpose)
    return None if make is None else make(request)


def index_range(request: Request) -> tuple[int, int]:
    """The valid indices at the place: the first, and one past the last, for the input."""
    limit = 1
    place, shape, dims = request.place, request.shape, request.dims
    match place.node.op_type:
        case "OneHot":
            tensor = None if place.subject is None else place.subject.const_value
            limit = 3 if tensor is None else int(tensor.numpy().reshape(-1)[0])
        case "NegativeLogLikelihoodLoss" | "SoftmaxCrossEntropyLoss":
            limit = (dims[1] if dims and len(dims) > 1 else None) or 1
        case "EmbedLayerNormalization" | "RotaryEmbedding" | "RoiAlign":
            limit = dims[0] if dims and dims[0] else 1
        case "GatherND" | "ScatterND":
            first = place.node.attributes.get_int("batch_dims", 0)
            depth = shape[-1] if shape else 1
            known = [dim for dim in (dims or ())[first : first + depth] if dim is not None]
            limit = min(known, default=1)
        case _:
            axis = place.node.attributes.get_int("axis", 0)
            if dims and -len(dims) <= axis < len(dims):
                limit = dims[axis] or 1
    return -place.shift, limit - place.shift


_Maker = Callable[[Request], np.ndarray]


def _constants(*by_kind: float) -> _Maker:
    """The same number everywhere, another in each kind of feed."""

    def make(request: Request) -> np.ndarray:
        return np.full(request.shape, by_kind[request.kind % len(by_kind)])

    return make


def _picked(*numbers: float) -> _Maker:
    """Each element one of `numbers`."""

    def make(request: Request) -> np.ndarray:
        return request.random.choice(np.array(numbers), request.shape)

    return make


def _target_shape(request: Request) -> np.ndarray:
    """For Reshape: the shape it has where the ranks agree, else one long dim among ones."""
    dims = request.dims
    count = request.count
    if dims is not None and len(dims) == count and None not in dims and request.kind != 1:
        return np.array(dims)
    target = np.ones(count)
    if count:
        target[request.kind % count] = -1
    return target


def _expand_shape(request: Request) -> np.ndarray:
    """For Expand: ones, or 2 where the tensor is 1 or has no dim."""
    target = np.ones(request.count)
    dims = request.dims
    if dims is not None and request.kind:
        # Shapes are aligned at their ends.
        aligned = [1] * max(target.size - len(dims), 0) + dims[max(len(dims) - target.size, 0) :]
        target[[dim == 1 for dim in aligned]] = 1 + request.kind
    return target


def _axes(request: Request) -> np.ndarray:
    count = request.count
    return np.arange(count) - (count if request.kind == 1 else 0)


def _squeeze_axes(request: Request) -> np.ndarray:
    ones = [axis for axis, dim in enumerate(request.dims or ()) if dim == 1]
    count = request.count
    return np.array((ones + list(range(count)))[:count])


def _split(request: Request) -> np.ndarray:
    """Parts that add up to the dim that is split; a single number is the size of each part."""
    dims = request.dims
    axis = request.place.node.attributes.get_int("axis", 0)
    count = request.count
    if not request.shape:
        return np.array(1 + request.kind)
    total = dims[axis] if dims and -len(dims) <= axis < len(dims) else None
    parts = np.ones(count)
    if total is not None and count:
        parts[:] = total // count
        parts[-1] += total % count
    return parts


def _resize_sizes(request: Request) -> np.ndarray:
    dims = request.dims
    count = request.count
    if dims is None or len(dims) != count:
        return np.full(count, 2 + request.kind)
    return np.array(
        [(dim or 1) * (2 if axis >= 2 and request.kind else 1) for axis, dim in enumerate(dims)]
    )


def _grid_size(request: Request) -> np.ndarray:
    """For AffineGrid: [N, C, H, W], N as that of the transforms."""
    size = np.full(request.count, 2 + request.kind)
    size[:1] = (request.dims or [1])[0] or 1
    return size


def _image_shape(request: Request) -> np.ndarray:
    """For Col2Im: one row of blocks of one pixel."""
    shape = np.ones(request.count)
    shape[-1:] = (request.dims or [1])[-1] or 1
    return shape


def _scales(request: Request) -> np.ndarray:
    scales = np.ones(request.count)
    scales[2:] = (1.0, 2.0, 1.5)[request.kind]
    return scales


def _lengths(request: Request) -> np.ndarray:
    dims = request.dims
    layout = request.place.node.attributes.get_int("layout", 0)
    axis = request.place.node.attributes.get_int("time_axis", layout)
    longest = (dims[axis] if dims else None) or 1
    values = request.random.integers(1, longest + 1, request.shape)
    if values.size:
        values.reshape(-1)[0] = longest
    return values


def _mostly(change: Callable[[np.ndarray], np.ndarray]) -> _Maker:
    """Within the domain of a function in the first kind of feed, anywhere in the others."""

    def make(request: Request) -> np.ndarray:
        values = request.random.standard_normal(request.shape)
        return change(values) if request.kind == 0 else values

    return make


_MAKERS: dict[str, _Maker] = {
    "count": _constants(3, 2, 4),
    "k": _constants(1, 1, 1),
    "target_shape": _target_shape,
    "expand_shape": _expand_shape,
    "repeats": _constants(1, 2, 3),
    "sizes": _constants(2, 3, 1),
    "grid_size": _grid_size,
    "image_shape": _image_shape,
    "window_length": _constants(16),
    "sample_rate": _constants(8000),
    "upper_frequency": _constants(4000),
    "starts": _constants(0, 0, 0),
    "ends": _constants(_END, 1, _END),
    "axes": _axes,
    "squeeze_axes": _squeeze_axes,
    "steps": _constants(1, 1, 2),
    "pads": _constants(0, 1, 1),
    "scales": _scales,
    "resize_sizes": _resize_sizes,
    "split": _split,
    "zero": _constants(0),
    "one": _constants(1),
    "fraction": _picked(0.25, 0.5, 0.75),
    "positive": _picked(0.5, 1.0, 2.0),
    "small_positive": _picked(0.01, 0.02, 0.05),
    "lengths": _lengths,
    "divisor": _picked(1, 2, 3, 5),
    "exponent": _picked(0, 1, 2, 3),
    "low": _constants(-1, -0.5, 0),
    "high": _constants(1, 0.5, 6),
    "mostly_positive": _mostly(lambda values: np.abs(values) + 0.1),
    "mostly_within_one": _mostly(np.tanh),
    "mostly_above_one": _mostly(lambda values: np.abs(values) + 1.0),
}
