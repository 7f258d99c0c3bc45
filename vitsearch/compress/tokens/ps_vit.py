"""Patch slimming on a running network, and how its places are chosen.

Shape suffixes: B batch, N tokens, P places of the image, M of them kept, D width, H heads, K width of one head.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vitsearch.candidate import Architecture, PSViT
from vitsearch.compress.tokens.scores import attention_BHNN, ones_unless
from vitsearch.models import AttentionState, Block, TokenReducer, VisionTransformer

MAX_IMAGES = 32


class PSViTReducer(nn.Module):
    """Keeps the patches at chosen places.

    Args:
        num_places: P, patches that enter the network.
        num_prefix: Leading tokens, which stay.

    Attributes:
        reaches_P: Which places reach this block, 1 or 0; all until ``fit_ps_vit`` has chosen.
        keeps_P: Which of them stay.
    """

    reaches_P: Tensor
    keeps_P: Tensor

    def __init__(self, num_places: int, num_prefix: int) -> None:
        super().__init__()
        self.num_prefix = num_prefix
        for name in ("reaches_P", "keeps_P"):
            self.register_buffer(name, torch.ones(num_places, dtype=torch.uint8))
        self.refresh()
        self.register_load_state_dict_post_hook(lambda module, _: module.refresh())  # type: ignore[no-untyped-call]

    def refresh(self) -> None:
        """Follow a change of the places; their positions are numbers, so that shapes are fixed in an export."""
        kept = self.keeps_P[self.reaches_P.bool()].nonzero().flatten().tolist()
        self.index_N = [*range(self.num_prefix), *(self.num_prefix + position for position in kept)]

    def forward(
        self,
        x_BND: Tensor,
        attention: AttentionState,  # noqa: ARG002
        size_BN: Tensor | None,
    ) -> tuple[Tensor, Tensor | None]:
        """Keep."""
        size_BN = ones_unless(size_BN, x_BND)
        return x_BND[:, self.index_N], size_BN[:, self.index_N]


def build_ps_vit(rule: PSViT, architecture: Architecture) -> dict[int, TokenReducer]:
    """One reducer for each chosen block; none where nothing may change."""
    if not rule.epsilon:
        return {}
    return {
        block: PSViTReducer(architecture.num_patches, architecture.num_prefix_tokens)
        for block in rule.active_blocks(architecture.depth)
    }


@torch.no_grad()
def fit_ps_vit(model: VisionTransformer, rule: PSViT, images_BCHW: Tensor) -> None:
    """Choose the places of every block, from the last one down.

    The rule (Tang et al., 2022, Section 3.2), with S_l the places that leave the middle of block l::

        S_L = the place the CLS token attends to most
        S_l = S_(l+1), and as few more as make the rows of S_(l+1) and the prefix that block l+1 computes from the
              places S_l alone differ from those it computes from all by a squared norm of at most
              epsilon times theirs, on average over images

    Places are added in the order of sum over heads h and these rows j of A_h[j, i]^2 norm(v_i^h)^2, the mean over
    images (the paper's bound of what a patch contributes). Blocks that are not chosen drop nothing.

    Args:
        model: Trained, with its reducers.
        rule: Its epsilon.
        images_BCHW: Normalised; the first 32 are looked at.
    """
    reducers = {n: b.reducer for n, b in enumerate(model.blocks, 1) if isinstance(b.reducer, PSViTReducer)}
    was_training = model.training
    model.set_reducers({})
    model.eval()
    kept = _places(model, images_BCHW[:MAX_IMAGES], rule.epsilon)
    model.set_reducers(reducers)
    model.train(was_training)
    reaches_P = torch.ones_like(kept[0])
    for number in sorted(reducers):
        reducer = reducers[number]
        reducer.reaches_P.copy_(reaches_P)
        reducer.keeps_P.copy_(kept[number - 1])
        reducer.refresh()
        reaches_P = kept[number - 1]


def _places(model: VisionTransformer, images_BCHW: Tensor, epsilon: float) -> list[Tensor]:
    """For each block, which places are needed after its attention, 1 or 0, (P,)."""
    prefix, x_BND = model.architecture.num_prefix_tokens, model.norm_pre(model.embed(images_BCHW))
    entering = []
    for block in model.blocks:
        entering.append(x_BND)
        x_BND, _ = block(x_BND)
    last = _block(model, -1)
    _, attention = last.attend(entering[-1], None)
    most = int(attention.cls_attention_BHN().mean(dim=(0, 1))[prefix:].argmax())
    needed_P = torch.zeros(model.architecture.num_patches, dtype=torch.uint8, device=x_BND.device)
    needed_P[most] = 1
    found = [needed_P]
    for number in range(len(model.blocks) - 2, -1, -1):
        needed_P = _widened(_block(model, number + 1), entering[number + 1], needed_P, prefix, epsilon)
        found.append(needed_P)
    return found[::-1]


def _widened(block: Block, x_BND: Tensor, needed_P: Tensor, prefix: int, epsilon: float) -> Tensor:
    """The fewest places from which ``block`` computes the needed rows nearly as from all."""
    rows = [*range(prefix), *(prefix + i for i in needed_P.nonzero().flatten().tolist())]
    exact_BMD = block(x_BND)[0][:, rows]
    _, attention = block.attend(x_BND, None)
    values_BHN = attention.v_BHNK.square().sum(dim=-1)
    weight_N = (attention_BHNN(attention)[:, :, rows].square().sum(dim=2) * values_BHN).sum(dim=1).mean(dim=0)
    order = [i for i in weight_N[prefix:].argsort(descending=True).tolist() if not needed_P[i]]

    def differs(count: int) -> bool:
        places = sorted([*rows, *(prefix + i for i in order[:count])])
        position = {place: i for i, place in enumerate(places)}
        found_BMD = block(x_BND[:, places])[0][:, [position[row] for row in rows]]
        error_B = (found_BMD - exact_BMD).square().sum(dim=(1, 2)) / exact_BMD.square().sum(dim=(1, 2))
        return bool(error_B.mean() > epsilon)

    low, high = 0, len(order)  # all places differ by nothing
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if differs(middle) else (low, middle)
    wider_P = needed_P.clone()
    wider_P[order[:low]] = 1
    return wider_P


def _block(model: VisionTransformer, index: int) -> Block:
    block = model.blocks[index]
    assert isinstance(block, Block)
    return block
