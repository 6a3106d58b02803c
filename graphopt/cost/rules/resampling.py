"""Images at other sizes and other places.

Between t places along one axis a value is t products and t - 1 additions. Along axes with
t1, t2, ... places, the innermost axis first, one output element takes

    (2 t1 - 1) + t1 (2 t2 - 1) + t1 t2 (2 t3 - 1) + ...

    nearest   t = 1: nothing                 linear, 2 axes   t = 2: 9 (one axis 3, three 21)
    cubic, 2 axes   t = 4: 35                antialias        t times the reduction, rounded up

A Resize works along the axes whose size changes; the weights along an axis depend on that axis
alone and are not counted. GridSample's places are data: each place takes, per axis, the
way from [-1, 1] to pixels ((x + 1) * (size - 1) / 2: 3, or ((x + 1) * size - 1) / 2: 4), and then

    nearest   round: 1
    linear    floor, fraction, its complement: 3
    cubic     floor, fraction, 3 distances, two polynomials of 6 and two of 5: 27

Tests for places outside of the image are not counted. Nearest reads what it picks.
"""

from __future__ import annotations

from collections.abc import Iterable

from graphopt.cost.operator import Operator, Rule, UnknownShapeError, Work
from graphopt.cost.quantity import Number, maximum
from graphopt.cost.rules.formulas import ceil_ratio, overlap_bytes

_TAPS = {"nearest": 1, "linear": 2, "bilinear": 2, "cubic": 4, "bicubic": 4}
_WEIGHTS = {"nearest": 1, "linear": 3, "bilinear": 3, "cubic": 27, "bicubic": 27}


def _interpolating(taps: Iterable[Number]) -> Number:
    """Operations that one output element takes along axes with so many places each."""
    operations: Number = 0
    branches: Number = 1
    for places in taps:
        operations = operations + branches * (2 * places - 1)
        branches = branches * places
    return operations


def _taps(mode: str) -> int:
    if mode not in _TAPS:
        raise UnknownShapeError(f"nothing is known of the mode '{mode}'")
    return _TAPS[mode]


def resize(node: Operator) -> Work:
    """Resize, and Upsample before it: along the axes whose size changes, or that are cropped."""
    data, output = node.input(), node.output()
    places = _taps(node.text("mode", "nearest"))
    if places == 1:
        return Work(reads=overlap_bytes(data, output))
    rank = len(data.dims)
    axes = [axis % rank for axis in node.integers("axes") or range(rank)]
    cropped = node.text("coordinate_transformation_mode") == "tf_crop_and_resize"
    antialias = node.integer("antialias", 0)
    taps: list[Number] = []
    for axis in axes:
        before, after = data.dims[axis], output.dims[axis]
        if before == after and not cropped:
            continue
        taps.append(maximum(places, ceil_ratio(places * before, after)) if antialias else places)
    return Work(elementwise=_interpolating(taps) * output.size, reads=data.bytes)


def grid_sample(node: Operator) -> Work:
    """Sampling at places (N, ..., axes) in [-1, 1] that the second input gives."""
    grid, output = node.input(1), node.output()
    mode = node.text("mode", "linear" if node.version >= 20 else "bilinear")
    axes = len(grid.dims) - 2
    to_pixels = 3 if node.integer("align_corners", 0) else 4
    places = _taps(mode)
    each = _interpolating([places] * axes) if places > 1 else 0
    return Work(elementwise=(to_pixels + _WEIGHTS[mode]) * grid.size + each * output.size)


def affine_grid(node: Operator) -> Work:
    """A matrix (2 x 3 or 3 x 4) times each place of a grid, extended by 1."""
    output = node.output()
    axes = node.input().dims[-1]
    return Work(macs=output.size * axes, reads=node.input().bytes)


def crop_and_resize(node: Operator) -> Work:
    """Boxes, each at one size: nearest, or bilinear with 9 per element."""
    linear = node.text("mode", "bilinear") == "bilinear"
    output = node.output()
    return Work(elementwise=_interpolating([2, 2]) * output.size if linear else 0)


RULES = (
    Rule("", "Resize", resize),
    Rule("", "Upsample", resize),
    Rule("", "GridSample", grid_sample),
    Rule("", "AffineGrid", affine_grid),
    Rule("com.microsoft.nchwc", "Upsample", resize),
    Rule("com.microsoft", "GridSample", grid_sample),
    Rule("com.microsoft", "CropAndResize", crop_and_resize),
)
