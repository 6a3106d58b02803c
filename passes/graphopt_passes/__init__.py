"""The passes that ship with graphopt."""

from graphopt_passes.commute_pointwise_convs import CommutePointwiseConvs
from graphopt_passes.convert_cast_like import ConvertCastLike
from graphopt_passes.convert_einsum import ConvertEinsum
from graphopt_passes.convert_group_normalization import ConvertGroupNormalization
from graphopt_passes.convert_half import ConvertHalf
from graphopt_passes.convert_split_to_sequence import ConvertSplitToSequence
from graphopt_passes.eliminate_dead_nodes import EliminateDeadNodes
from graphopt_passes.eliminate_duplicates import EliminateDuplicates
from graphopt_passes.eliminate_expands import EliminateExpands
from graphopt_passes.eliminate_grid_gathers import EliminateGridGathers
from graphopt_passes.eliminate_identities import EliminateIdentities
from graphopt_passes.eliminate_initializer_inputs import EliminateInitializerInputs
from graphopt_passes.eliminate_neutral_arithmetic import EliminateNeutralArithmetic
from graphopt_passes.eliminate_repetitions import EliminateRepetitions
from graphopt_passes.eliminate_zero_states import EliminateZeroStates
from graphopt_passes.eliminate_zero_terms import EliminateZeroTerms
from graphopt_passes.equalize_channels import EqualizeChannels
from graphopt_passes.fold_constants import FoldConstants
from graphopt_passes.fold_offsets import FoldOffsets
from graphopt_passes.fold_reshape_targets import FoldReshapeTargets
from graphopt_passes.fold_scales import FoldScales
from graphopt_passes.fuse_attention import FuseAttention
from graphopt_passes.fuse_conv_batchnorm import FuseConvBatchnorm
from graphopt_passes.fuse_gelu import FuseGelu
from graphopt_passes.fuse_gemm_transpose import FuseGemmTranspose
from graphopt_passes.fuse_hard_swish import FuseHardSwish
from graphopt_passes.fuse_instance_normalization import FuseInstanceNormalization
from graphopt_passes.fuse_layer_normalization import FuseLayerNormalization
from graphopt_passes.fuse_matmul_add import FuseMatmulAdd
from graphopt_passes.fuse_mish import FuseMish
from graphopt_passes.fuse_multi_head_attention import FuseMultiHeadAttention
from graphopt_passes.fuse_pad import FusePad
from graphopt_passes.fuse_reduce_unsqueeze import FuseReduceUnsqueeze
from graphopt_passes.fuse_rms_normalization import FuseRmsNormalization
from graphopt_passes.fuse_rotary_embedding import FuseRotaryEmbedding
from graphopt_passes.fuse_skip_normalization import FuseSkipNormalization
from graphopt_passes.fuse_sliced_conv import FuseSlicedConv
from graphopt_passes.fuse_softmax import FuseSoftmax
from graphopt_passes.hoist_gathers import HoistGathers
from graphopt_passes.hoist_loop_invariants import HoistLoopInvariants
from graphopt_passes.hoist_reductions import HoistReductions
from graphopt_passes.hoist_shapes import HoistShapes
from graphopt_passes.inline_constant_branches import InlineConstantBranches
from graphopt_passes.insert_qdq import InsertQdq
from graphopt_passes.merge_casts import MergeCasts
from graphopt_passes.merge_clips import MergeClips
from graphopt_passes.merge_concats import MergeConcats
from graphopt_passes.merge_constant_arithmetic import MergeConstantArithmetic
from graphopt_passes.merge_movements import MergeMovements
from graphopt_passes.merge_parallel_convs import MergeParallelConvs
from graphopt_passes.merge_parallel_products import MergeParallelProducts
from graphopt_passes.merge_sizes import MergeSizes
from graphopt_passes.merge_slices import MergeSlices
from graphopt_passes.merge_summed_convs import MergeSummedConvs
from graphopt_passes.onnxsim import Onnxsim
from graphopt_passes.prune_channels import PruneChannels
from graphopt_passes.quantize_dynamically import QuantizeDynamically
from graphopt_passes.quantize_weights import QuantizeWeights
from graphopt_passes.sink_transposes import SinkTransposes
from graphopt_passes.smooth_activations import SmoothActivations
from graphopt_passes.sparsify_weights import SparsifyWeights

PASSES = (
    CommutePointwiseConvs,
    ConvertCastLike,
    ConvertEinsum,
    ConvertGroupNormalization,
    ConvertHalf,
    ConvertSplitToSequence,
    EliminateDeadNodes,
    EliminateDuplicates,
    EliminateExpands,
    EliminateGridGathers,
    EliminateIdentities,
    EliminateInitializerInputs,
    EliminateNeutralArithmetic,
    EliminateRepetitions,
    EliminateZeroStates,
    EliminateZeroTerms,
    EqualizeChannels,
    FoldConstants,
    FoldOffsets,
    FoldReshapeTargets,
    FoldScales,
    FuseAttention,
    FuseConvBatchnorm,
    FuseGelu,
    FuseGemmTranspose,
    FuseHardSwish,
    FuseInstanceNormalization,
    FuseLayerNormalization,
    FuseMatmulAdd,
    FuseMish,
    FuseMultiHeadAttention,
    FusePad,
    FuseReduceUnsqueeze,
    FuseRmsNormalization,
    FuseRotaryEmbedding,
    FuseSkipNormalization,
    FuseSlicedConv,
    FuseSoftmax,
    HoistGathers,
    HoistLoopInvariants,
    HoistReductions,
    HoistShapes,
    InlineConstantBranches,
    InsertQdq,
    MergeCasts,
    MergeClips,
    MergeConcats,
    MergeConstantArithmetic,
    MergeMovements,
    MergeParallelConvs,
    MergeParallelProducts,
    MergeSizes,
    MergeSlices,
    MergeSummedConvs,
    Onnxsim,
    PruneChannels,
    QuantizeDynamically,
    QuantizeWeights,
    SinkTransposes,
    SmoothActivations,
    SparsifyWeights,
)
