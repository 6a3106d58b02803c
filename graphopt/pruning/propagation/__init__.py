"""What each operator does to channels: one module for each family, one table of them all."""

from graphopt.graph import ir
from graphopt.pruning.propagation.activation import ACTIVATION_RULES
from graphopt.pruning.propagation.attention import ATTENTION_RULES
from graphopt.pruning.propagation.convolution import CONVOLUTION_RULES
from graphopt.pruning.propagation.einsum import EINSUM_RULES
from graphopt.pruning.propagation.indexing import INDEXING_RULES
from graphopt.pruning.propagation.matrix_product import MATRIX_PRODUCT_RULES
from graphopt.pruning.propagation.movement import MOVEMENT_RULES
from graphopt.pruning.propagation.normalization import NORMALIZATION_RULES
from graphopt.pruning.propagation.quantization import QUANTIZATION_RULES
from graphopt.pruning.propagation.recurrent import RECURRENT_RULES
from graphopt.pruning.propagation.reduction import REDUCTION_RULES
from graphopt.pruning.propagation.reshaping import RESHAPING_RULES
from graphopt.pruning.propagation.rule import Rule
from graphopt.pruning.propagation.spatial import SPATIAL_RULES

RULES: dict[tuple[str, str], Rule] = {
    **ACTIVATION_RULES,
    **ATTENTION_RULES,
    **CONVOLUTION_RULES,
    **EINSUM_RULES,
    **INDEXING_RULES,
    **MATRIX_PRODUCT_RULES,
    **MOVEMENT_RULES,
    **NORMALIZATION_RULES,
    **QUANTIZATION_RULES,
    **RECURRENT_RULES,
    **REDUCTION_RULES,
    **RESHAPING_RULES,
    **SPATIAL_RULES,
}
"""By domain and operator."""


def rule_of(node: ir.Node) -> Rule | None:
    """The rule of the node's operator; None if it has none."""
    if node.overload:
        return None
    return RULES.get((node.domain, node.op_type))
