"""What the loops of the tests count with, whichever way they are written."""

import math

import numpy as np


class Tally:
    """Counts operations while they are done."""

    def __init__(self):
        self.clear()

    def clear(self):
        self.macs = 0
        self.elementwise = 0
        self.transcendentals = 0

    @property
    def counts(self):
        return self.macs, self.elementwise, self.transcendentals

    def multiply_accumulate(self, held, a, b):
        self.macs += 1
        return held + a * b

    def step(self, value):
        """One addition, product, comparison or the like, whose result is `value`."""
        self.elementwise += 1
        return value

    def function(self, value):
        """One exp, log, tanh, erf or root, whose result is `value`."""
        self.transcendentals += 1
        return value

    def dot(self, a, b):
        held = a.dtype.type(0)
        for x, y in zip(a, b, strict=True):
            held = self.multiply_accumulate(held, x, y)
        return held

    def total(self, values):
        held = values[0]
        for value in values[1:]:
            held = self.step(held + value)
        return held

    def largest(self, values):
        held = values[0]
        for value in values[1:]:
            held = self.step(max(held, value))
        return held

    def each(self, function, *arrays):
        """`function` on the elements of arrays that broadcast to one shape."""
        arrays = np.broadcast_arrays(*arrays)
        result = np.empty(arrays[0].shape, dtype=np.result_type(*arrays))
        for place in np.ndindex(result.shape):
            result[place] = function(*(array[place] for array in arrays))
        return result

    def softmax(self, row):
        top = self.largest(row)
        powers = [self.function(math.exp(self.step(value - top))) for value in row]
        held = self.total(powers)
        return [self.step(power / held) for power in powers]

    def normalized(self, row, scale, shift, epsilon):
        """By mean and deviation, then times a scale and plus a shift of each element."""
        step = self.step
        mean = step(self.total(row) / len(row))
        lowered = [step(value - mean) for value in row]
        variance = step(self.total([step(value * value) for value in lowered]) / len(row))
        inverse = step(1 / self.function(math.sqrt(step(variance + epsilon))))
        return [
            step(step(step(value * inverse) * s) + b)
            for value, s, b in zip(lowered, scale, shift, strict=True)
        ]

    def activated(self, name, x, alpha=0.2, beta=0.5):
        """The activation `name` of one number."""
        step, function = self.step, self.function
        match name:
            case "":
                return x
            case "Relu":
                return step(max(x, 0.0))
            case "LeakyRelu":
                return step(alpha * x) if step(x < 0) else self._spare(x)
            case "Tanh":
                return function(math.tanh(x))
            case "Sigmoid":
                return step(1 / step(1 + function(math.exp(step(-x)))))
            case "HardSigmoid":
                return step(max(0.0, step(min(1.0, step(step(alpha * x) + beta)))))
            case "Softsign":
                return step(x / step(1 + step(abs(x))))
            case "Silu":
                return step(x * self.activated("Sigmoid", x))
            case "FastGelu":
                cube = step(step(x * x) * x)
                inner = step(math.sqrt(2 / math.pi) * step(x + step(0.044715 * cube)))
                return step(step(0.5 * x) * step(1 + function(math.tanh(inner))))
            case _:
                raise NotImplementedError(name)

    def _spare(self, x):
        self.elementwise += 1  # both sides of a choice count
        return x
