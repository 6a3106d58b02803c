"""Makes the arrays of seeded feeds: each valid for its role, and each feed of another kind.

Kinds, in turn: ordinary values; larger ones with exact zeros among them; ones, negatives and
a few large ones. A rewrite that is wrong only for zero, for negatives or for large values, or
only for one side of a branch, then shows in one of them.
"""

from collections.abc import Mapping

import numpy as np

from graphopt.graph import ir
from graphopt.runtime.input_purposes import Request, index_range, special_values
from graphopt.runtime.input_roles import Role

KINDS = 3
_WORDS = ("graph", "node", "", "Tensor", "élan", "a b", "7")


def make_array(
    dtype: ir.DataType,
    shape: tuple[int, ...],
    role: Role,
    kind: int,
    random: np.random.Generator,
    sizes: Mapping[str, int],
    *,
    careful: bool = False,
) -> np.ndarray:
    """One input.

    Args:
        dtype: its element type.
        shape: its shape.
        role: what it is for.
        kind: which kind of feed, 0 to KINDS - 1 (see the module).
        random: where the numbers come from.
        sizes: the sizes of the dynamic dims.
        careful: whether to stay with values that hardly anything refuses.
    """
    if careful:
        kind = 0
    if dtype == ir.DataType.STRING:
        words = [choice for choice in role.choices if isinstance(choice, str)] or list(_WORDS)
        picked = [words[(index + kind) % len(words)] for index in range(_count(shape))]
        return np.array(picked, object).reshape(shape)
    numpy_type = dtype.numpy()
    if dtype == ir.DataType.BOOL:
        return _booleans(shape, role, kind, random)
    values = _special(shape, role, kind, random, sizes)
    if values is None and dtype in (ir.DataType.COMPLEX64, ir.DataType.COMPLEX128):
        values = random.standard_normal(shape) + 1j * random.standard_normal(shape)
    if values is None:
        if dtype.is_integer():
            values = _integers(dtype, shape, role, kind, random, careful)
        else:
            values = _floats(dtype, shape, kind, random, careful)
    return np.asarray(values).astype(numpy_type).reshape(shape)


def _booleans(
    shape: tuple[int, ...], role: Role, kind: int, random: np.random.Generator
) -> np.ndarray:
    if any(place.purpose == "false" for place in role.places):
        return np.zeros(shape, np.bool_)
    if not shape:
        return np.array(kind != 1)
    if kind == 0:
        return np.ones(shape, np.bool_)
    values = random.random(shape) < 0.6
    values[..., :1] = True  # a row of a mask that lets nothing through gives NaN everywhere
    return values


def _floats(
    dtype: ir.DataType,
    shape: tuple[int, ...],
    kind: int,
    random: np.random.Generator,
    careful: bool,
) -> np.ndarray:
    if careful:
        return random.uniform(0.1, 1.0, shape)
    values = random.standard_normal(shape)
    if kind == 1:
        values *= 4.0
        values[random.random(shape) < 0.1] = 0.0
    elif kind == 2:
        values = np.where(random.random(shape) < 0.2, np.sign(values), values)
        large = 10.0 if dtype.bitwidth <= 16 else 100.0
        values = np.where(random.random(shape) < 0.02, large * values, values)
    return np.asarray(values)


def _integers(
    dtype: ir.DataType,
    shape: tuple[int, ...],
    role: Role,
    kind: int,
    random: np.random.Generator,
    careful: bool,
) -> np.ndarray:
    """Integers that are no index, length or shape."""
    numbers = [choice for choice in role.choices if not isinstance(choice, str)]
    if numbers:
        picked = [int(numbers[(index + kind) % len(numbers)]) for index in range(_count(shape))]
        return np.array(picked, np.int64).reshape(shape)
    if careful:
        return np.ones(shape, np.int64)
    bits = dtype.bitwidth
    if bits <= 8:
        low = -(1 << (bits - 1)) if dtype.is_signed() else 0
        return random.integers(low, low + (1 << bits), shape)
    if not role.free:
        return random.integers(0, 2 + kind, shape)
    limit = (10, 100, 1000)[kind % KINDS]
    low = -limit if dtype.is_signed() and kind else 0
    return random.integers(low, limit + 1, shape)


def _count(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape, dtype=np.int64))


def _special(
    shape: tuple[int, ...],
    role: Role,
    kind: int,
    random: np.random.Generator,
    sizes: Mapping[str, int],
) -> np.ndarray | None:
    """Values for a role that asks for special ones; None where it does not."""
    requests = [Request(place, shape, kind, random, sizes) for place in role.places]
    bounds = [index_range(request) for request in requests if request.place.purpose == "index"]
    if bounds:
        low = max(low for low, _ in bounds)
        high = max(min(high for _, high in bounds), low + 1)
        numbers = [c for c in role.choices if not isinstance(c, str) and low <= c < high]
        values = random.integers(low, high, shape)
        if numbers and values.size:
            flat = values.reshape(-1)
            flat[kind % flat.size] = int(numbers[kind % len(numbers)])
        return values
    for request in requests:
        special = special_values(request)
        if special is not None:
            return special
    if role.mask:
        return _mask(shape, kind, random)
    return None


def _mask(shape: tuple[int, ...], kind: int, random: np.random.Generator) -> np.ndarray:
    """Ones; then ones but for the last of each row; then random ones, the first always one."""
    values = np.ones(shape)
    if shape and shape[-1] > 1 and kind:
        values[..., 1:] = random.random(values[..., 1:].shape) < 0.6 if kind == 2 else 1.0
        values[..., -1] = 0.0
    return values
