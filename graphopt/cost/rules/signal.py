"""Signals and images in files: Fourier transforms, windows, filter banks.

A transform is counted by its definition: each of the complex outputs is a sum over n inputs,
a product with a constant factor each (2 MACs where the input is real, 4 where it is complex).
A fast transform takes about 5 n log2(n) operations instead; which one a runtime has depends
on n, and log2(n) is no polynomial.

    DFT               m lines:  m * outputs * n * (2 or 4) MACs; inverse: 1 division per number
    STFT              frames:   frames * outputs * n * (2 or 4) MACs; window: n products
    Hann, Hamming     a - b * cos(i * step)                               3; 1 per element
    Blackman          a - b * cos(i * step) + c * cos(i * step2)          6; 2 per element
    MelWeightMatrix   (x - low) / width of one triangle                   2 per element
"""

from __future__ import annotations

from graphopt.cost.operator import Operator, Rule, Tensor, UnknownShapeError, Work
from graphopt.cost.quantity import product
from graphopt.cost.rules.formulas import fixed, known_axis, known_number

_DEFINITION = "counted by definition: a fast transform takes about 5 n log2(n) operations"


def _numbers_per_factor(tensor: Tensor) -> int:
    """1 where the signal (..., 1) is real, 2 where (..., 2) is complex."""
    numbers = tensor.dims[-1]
    if numbers == 1:
        return 1
    if numbers == 2:
        return 2
    raise UnknownShapeError(f"whether '{tensor.name}' is real or complex is unknown")


def fourier(node: Operator) -> Work:
    """DFT along one axis; the signal is cut or filled with zeros to `dft_length`.

    A one-sided inverse gives real numbers: 2 MACs for each complex input.
    """
    data, output = node.input(), node.output()
    rank = len(data.dims)
    if node.version < 20:
        axis = node.integer("axis", 1) % rank
    else:
        axis = known_axis(node, 2, rank) if node.has_input(2) else rank - 2
    inverse, onesided = node.integer("inverse", 0), node.integer("onesided", 0)
    if not onesided:
        length = output.dims[axis]
    elif node.has_input(1) and not inverse:
        length = known_number(node, 1, "length of the transform")
    else:
        length = data.dims[axis]
    factors = _numbers_per_factor(data) * _numbers_per_factor(output)
    return Work(
        macs=product(output.dims[:-1]) * length * factors,
        elementwise=output.size if inverse else 0,
        reads=data.bytes,
        note=_DEFINITION,
    )


def short_time_fourier(node: Operator) -> Work:
    """A transform of each frame (N, frames, outputs, 2), times the window where there is one."""
    signal, output = node.input(), node.output()
    windowed = node.has_input(2)
    if windowed:
        length = node.input(2).size
    elif node.has_input(3):
        length = known_number(node, 3, "frame_length")
    else:
        length = signal.dims[1]
    numbers = 1 if len(signal.dims) == 2 else _numbers_per_factor(signal)
    frames = product(output.dims[:-2])
    return Work(
        macs=product(output.dims[:-1]) * length * 2 * numbers,
        elementwise=frames * length * numbers if windowed else 0,
        note=_DEFINITION,
    )


def cosine_window(node: Operator) -> Work:
    """One cosine per element, two for Blackman's."""
    size = node.output().size
    cosines = 2 if node.op_type == "BlackmanWindow" else 1
    return Work(elementwise=3 * cosines * size, transcendentals=cosines * size, reads=0)


def mel_weights(node: Operator) -> Work:
    """Triangles in the frequency plane."""
    return Work(
        elementwise=2 * node.output().size, reads=0, note="the triangles' edges are not counted"
    )


_DECODING = "decoding is not counted: it depends on the format and on the image"

RULES = (
    Rule("", "DFT", fourier),
    Rule("", "STFT", short_time_fourier),
    *(Rule("", f"{name}Window", cosine_window) for name in ("Hann", "Hamming", "Blackman")),
    Rule("", "MelWeightMatrix", mel_weights),
    *fixed("", Work(note=_DECODING), "ImageDecoder"),
)
