"""Small models that converters to half precision get wrong, one situation each.

Each has the input it is tried on, the number of Casts of a conversion made by hand (with
float32 inputs and outputs), and the op types that have to stay float32.
"""

from tests.precision.traps.ranges import RANGES
from tests.precision.traps.structure import STRUCTURE
from tests.precision.traps.trap import Trap
from tests.precision.traps.types import TYPES

__all__ = ["TRAPS", "Trap"]

TRAPS = TYPES + STRUCTURE + RANGES
