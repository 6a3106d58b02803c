"""The passes that ship with graphopt."""

from graphopt_passes.eliminate_dead_nodes import EliminateDeadNodes
from graphopt_passes.eliminate_duplicates import EliminateDuplicates
from graphopt_passes.eliminate_identities import EliminateIdentities
from graphopt_passes.eliminate_initializer_inputs import EliminateInitializerInputs
from graphopt_passes.eliminate_neutral_arithmetic import EliminateNeutralArithmetic
from graphopt_passes.fold_constants import FoldConstants
from graphopt_passes.fold_reshape_targets import FoldReshapeTargets
from graphopt_passes.fuse_conv_batchnorm import FuseConvBatchnorm
from graphopt_passes.inline_constant_branches import InlineConstantBranches
from graphopt_passes.onnxsim import Onnxsim

PASSES = (
    EliminateDeadNodes,
    EliminateDuplicates,
    EliminateIdentities,
    EliminateInitializerInputs,
    EliminateNeutralArithmetic,
    FoldConstants,
    FoldReshapeTargets,
    FuseConvBatchnorm,
    InlineConstantBranches,
    Onnxsim,
)
