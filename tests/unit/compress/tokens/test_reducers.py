import pytest
import torch

from vitsearch.compress.tokens.evit import EViTReducer
from vitsearch.compress.tokens.ppt import PPTReducer
from vitsearch.compress.tokens.tome import ToMeReducer
from vitsearch.models import AttentionState, TokenReducer

IDENTITIES = {
    "tome": ToMeReducer(0, 1),
    "evit": EViTReducer(8, fuse=True, num_prefix=1),
    "evit, more than there are": EViTReducer(9, fuse=False, num_prefix=1),
    "ppt": PPTReducer(0, tau=0.0, num_prefix=1),
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
