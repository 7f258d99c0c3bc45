"""Candidates as networks."""

from vitsearch.models.attention import Attention, AttentionState, log_size_bias, set_fused_attention
from vitsearch.models.build import architecture_of_timm, build_dense, build_pruned
from vitsearch.models.conv_stem import ConvStem
from vitsearch.models.multiplexing import MultiplexedBlock, RepeatedBlock
from vitsearch.models.pooling_branches import ChannelAffine, PoolingBlock, PoolingBranches
from vitsearch.models.vit import (
    Block,
    TokenReducer,
    TokenRoute,
    TokenState,
    VisionTransformer,
    mean_of_heads,
)

__all__ = [
    "Attention",
    "AttentionState",
    "Block",
    "ChannelAffine",
    "ConvStem",
    "MultiplexedBlock",
    "PoolingBlock",
    "PoolingBranches",
    "RepeatedBlock",
    "TokenReducer",
    "TokenRoute",
    "TokenState",
    "VisionTransformer",
    "architecture_of_timm",
    "build_dense",
    "build_pruned",
    "log_size_bias",
    "mean_of_heads",
    "set_fused_attention",
]
