import pytest
import torch

from vitsearch.compress.tokens.diffrate import DiffRateReducer
from vitsearch.compress.tokens.evit import EViTReducer
from vitsearch.compress.tokens.grid_pool import GridPoolReducer
from vitsearch.compress.tokens.ppt import PPTReducer
from vitsearch.compress.tokens.spvit import SPViTReducer
from vitsearch.compress.tokens.token_pooling import TokenPoolingReducer
from vitsearch.compress.tokens.tome import ToMeReducer
from vitsearch.compress.tokens.topk import TopKReducer
from vitsearch.compress.tokens.tps import TPSReducer
from vitsearch.models import AttentionState, TokenReducer

IDENTITIES = {
    "tome": ToMeReducer(0, 1),
    "evit": EViTReducer(8, fuse=True, num_prefix=1),
    "evit, more than there are": EViTReducer(9, fuse=False, num_prefix=1),
    "ppt": PPTReducer(0, tau=0.0, num_prefix=1),
    "topk": TopKReducer(8, merge=True, num_prefix=1),
    "diffrate": DiffRateReducer(0, 0, num_prefix=1),
    "tps": TPSReducer(8, num_prefix=1),
    "spvit": SPViTReducer(9, num_prefix=1),
    "grid_pool": GridPoolReducer(1, side=3, pool="avg", num_prefix=0),
    "token_pooling": TokenPoolingReducer(8, medoids=False, iterations=3, num_prefix=1),
}


@pytest.mark.parametrize("size_BN", [None, torch.full((2, 9), 3.0)], ids=["no sizes", "sizes"])
@pytest.mark.parametrize("name", IDENTITIES)
def test_a_reducer_with_nothing_to_remove_touches_nothing(name: str, size_BN: torch.Tensor | None):
    x_BND = torch.randn(2, 9, 6)
    state = AttentionState(*torch.randn(3, 2, 2, 9, 3), 3**-0.5, None)
    reducer: TokenReducer = IDENTITIES[name]
    found_BND, found_BN = reducer(x_BND, state, size_BN)
    assert found_BND is x_BND
    assert found_BN is size_BN
