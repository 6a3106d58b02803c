"""Plans what is done to pictures before a model reads them, inside the model from now on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from graphopt.errors import UsageError
from graphopt.graph import ir
from graphopt.graph.border import Affine, InputConversion, convert_border
from graphopt.graph.image_axes import Layout, to_channels_first, to_channels_last
from graphopt.pipeline.pictures import (
    check_names,
    inputs_to_look_at,
    layout_of,
    obstacle_of,
    read_layout,
    type_text,
)
from graphopt.report import InterfaceChange
from graphopt.shapes import infer_shapes

if TYPE_CHECKING:
    from graphopt.runtime import Session

Normalization = Mapping[str, float | Sequence[float]]
"""`mean`, `std` and `scale`, each a number or one for each channel: (x * scale - mean) / std."""

KEYS = ("mean", "std", "scale")
DTYPES = {"uint8": ir.DataType.UINT8}


@dataclass(frozen=True)
class Request:
    """What is asked of the inputs that hold pictures.

    Attributes:
        normalize: what is done to the numbers that are fed; None for nothing.
        layout: the layout of what is fed, "nhwc" or "nchw"; None for the model's own.
        dtype: its type, "uint8"; None for the model's own.
        names: the inputs it is asked of; empty for those that operators say are pictures.
    """

    normalize: Normalization | None = None
    layout: str | None = None
    dtype: str | None = None
    names: Sequence[str] = ()


@dataclass(frozen=True)
class Preprocessed:
    """A model that takes what a request says.

    Attributes:
        model: with the pre-processing written out in front.
        changes: what became of every input, and why.
        warnings: what looks like a mistake.
        reference: makes a session of the model as it was, with the pre-processing done outside.
    """

    model: ir.Model
    changes: list[InterfaceChange]
    warnings: list[str]
    reference: Callable[[], Session]


def preprocess(model: ir.Model, request: Request) -> Preprocessed:
    """Make a model take what a request says.

    Args:
        model: shapes are inferred; it is not changed.
        request: what is asked for.

    Raises:
        UsageError: the request is wrong or does not fit the model, or no input is a picture.
    """
    if not (request.normalize or request.layout or request.dtype):
        raise UsageError("inputs are named, but not what is done to them")
    if request.dtype is not None and request.dtype not in DTYPES:
        raise UsageError(f"an input cannot be '{request.dtype}'; it is one of {', '.join(DTYPES)}")
    layout = None if request.layout is None else read_layout(request.layout)
    numbers = None if request.normalize is None else _numbers(request.normalize)
    values = inputs_to_look_at(model, request.names)
    check_names(request.names, values, "input")
    conversions: list[InputConversion] = []
    changes: list[InterfaceChange] = []
    fitting = 0
    for value in values:
        name, before, after = value.name or "", type_text(value.type, value.shape), None
        conversion, reason = _planned(value, request, layout, numbers)
        if conversion is None and name in request.names:
            raise UsageError(f"input '{name}' cannot be changed as asked: {reason}")
        if conversion is not None:
            fitting += 1
            if conversion != InputConversion(name):
                conversions.append(conversion)
                after = _fed_text(value, conversion)
        changes.append(InterfaceChange("input", name, before, after, reason))
    if not fitting:
        reasons = "; ".join(f"'{change.name}': {change.reason}" for change in changes)
        raise UsageError(f"no input can be changed as asked ({reasons or 'there is none'})")
    warnings = []
    if numbers is not None and request.dtype == "uint8" and _lacks_scale(numbers):
        warnings.append(
            "the mean is at most 1, and what is fed goes up to 255: is scale=1/255 missing?"
        )
    made = convert_border(model, conversions)
    infer_shapes(made)
    return Preprocessed(made, changes, warnings, partial(_outside, model, conversions))


def _outside(model: ir.Model, conversions: Sequence[InputConversion]) -> Session:
    from graphopt.pipeline.converted import ConvertedSession

    return ConvertedSession(model, conversions)


def _planned(
    value: ir.Value,
    request: Request,
    layout: Layout | None,
    numbers: Mapping[str, np.ndarray] | None,
) -> tuple[InputConversion | None, str]:
    """What to do to an input, and why; None, and why it is left."""
    name = value.name or ""
    if request.names and name not in request.names:
        return None, "not named"
    obstacle = obstacle_of(value)
    if obstacle is not None or value.shape is None or value.dtype is None:
        return None, obstacle or "its type is not known"
    found, reason = layout_of(value)
    if found is None and name not in request.names:
        return None, reason
    if found is None:
        # Whoever names an input knows that it is a picture, and does not ask for what it is.
        found, reason = Layout.NHWC if layout is Layout.NCHW else Layout.NCHW, "named"
    if numbers is not None and not value.dtype.is_floating_point():
        return None, f"it takes {value.dtype}, and what is normalized is float"
    wanted = None if request.dtype is None else DTYPES[request.dtype]
    if wanted not in (None, value.dtype) and not value.dtype.is_floating_point():
        return None, f"it takes {value.dtype}"
    rank = len(value.shape)
    order = None
    if layout is not None and layout is not found:
        order = to_channels_first(rank) if layout is Layout.NHWC else to_channels_last(rank)
    axis = 1 if found is Layout.NCHW else rank - 1
    affine = None
    if numbers is not None:
        affine = Affine(**numbers, axis=axis)
        channels, count = value.shape[axis], max(array.size for array in numbers.values())
        if isinstance(channels, int) and count not in (1, channels):
            return (
                None,
                f"it has {channels} channels on axis {axis}, and {count} numbers were given",
            )
    conversion = InputConversion(name, order, None if wanted == value.dtype else wanted, affine)
    if conversion == InputConversion(name):
        return conversion, f"already as asked, {reason}"
    return conversion, f"{reason}, normalized" if affine is not None else reason


def _fed_text(value: ir.Value, conversion: InputConversion) -> str:
    """The type and shape of what is fed, for people."""
    kind, shape = value.type, value.shape
    if conversion.dtype is not None:
        kind = ir.TensorType(conversion.dtype)
    if conversion.order is not None and shape is not None:
        back = sorted(range(len(shape)), key=conversion.order.__getitem__)
        shape = ir.Shape([shape[axis] for axis in back])
    return type_text(kind, shape)


def _numbers(normalize: Normalization) -> dict[str, np.ndarray]:
    """The numbers of a normalization, each float64 of shape [channels] or [1].

    Raises:
        UsageError: a key is unknown, a number is not finite or divides by zero, or the lengths
            differ.
    """
    unknown = [key for key in normalize if key not in KEYS]
    if unknown or not normalize:
        given = f"'{unknown[0]}'" if unknown else "nothing"
        raise UsageError(f"a normalization has {', '.join(KEYS)}; {given} was given")
    numbers = {key: np.ones(1) for key in KEYS}
    numbers["mean"] = np.zeros(1)
    for key, held in normalize.items():
        try:
            array = np.asarray(held, np.float64).reshape(-1)
        except (TypeError, ValueError):
            array = np.empty(0)
        if not array.size or not np.isfinite(array).all():
            raise UsageError(f"the {key} of a normalization must be finite numbers, not {held!r}")
        if key != "mean" and not array.all():
            raise UsageError(f"the {key} of a normalization cannot be 0")
        numbers[key] = array
    sizes = {array.size for array in numbers.values()} - {1}
    if len(sizes) > 1:
        raise UsageError(
            "the lists of a normalization have "
            f"{' and '.join(map(str, sorted(sizes)))} numbers; give one for each channel"
        )
    return numbers


def _lacks_scale(numbers: Mapping[str, np.ndarray]) -> bool:
    """Whether numbers meant for values up to 1 are applied to values up to 255."""
    mean, scale = numbers["mean"], numbers["scale"]
    return bool(mean.any() and (np.abs(mean) <= 1).all() and (scale == 1).all())
