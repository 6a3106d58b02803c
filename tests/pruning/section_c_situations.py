"""Section C's situations: what ties channels together, one small model for each."""

from tests.pruning import (
    situations_heads,
    situations_layers,
    situations_movement,
    situations_structure,
)
from tests.pruning.situations_declined import SITUATIONS as DECLINED

EXACT = {
    **situations_structure.SITUATIONS,
    **situations_layers.SITUATIONS,
    **situations_heads.SITUATIONS,
    **situations_movement.SITUATIONS,
}
"""What can be pruned exactly."""

__all__ = ["DECLINED", "EXACT"]
