"""Vision Transformer Pruning: gates on the inputs of every projection, trained towards zero.

Shape suffixes: D inputs of one projection.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from vitsearch.compress.weights.context import PruneContext, Ranked
from vitsearch.compress.weights.learning import epochs_to_learn
from vitsearch.compress.weights.magnitude import rank_magnitude
from vitsearch.compress.weights.units import BlockUnits, Units, projections, projections_of
from vitsearch.models import Block, RepeatedBlock, VisionTransformer
from vitsearch.train.batches import Batch
from vitsearch.train.losses import LossTerm, Outputs

GATE_PENALTY = 1e-4


class GatedLinear(nn.Module):
    """y = W diag(a) x + b with a learned gate for each input.

    Args:
        layer: The trained projection, taken over.
    """

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.layer = layer
        self.gate_D = nn.Parameter(torch.ones_like(layer.weight[0]))

    def forward(self, x: Tensor) -> Tensor:
        """Gate, then project."""
        out: Tensor = self.layer(x * self.gate_D)
        return out

    @torch.no_grad()
    def folded(self) -> nn.Linear:
        """The same function without a gate: W diag(a)."""
        self.layer.weight.mul_(self.gate_D)
        return self.layer


def rank_vtp(model: VisionTransformer, context: PruneContext) -> Ranked:
    """Train gates on the inputs of the qkv, output, W1 and W2 projections, then rank by their size.

    The rule (Zhu et al., 2021, *Vision Transformer Pruning*; survey Eq. 16)::

        X* = X diag(a),  loss + lambda norm1(a) with lambda = 1e-4,  then keep the dimensions of large abs(a)

    Network and gates train together for the first half of the epochs, rounded up; the rest is for fine-tuning.
    A hidden unit has its gate of W2, a value dimension its gate of the output projection, a head the sum over its
    dimensions. A channel has the sum over all blocks of its gates of qkv and W1, because here a channel leaves the
    whole network, where the paper lets each projection choose its own inputs. Blocks have the mean of their gates.
    Queries and keys have no gate of their own and rank by magnitude. Weights that blocks share have one gate.

    Gates that stay are multiplied into the weights, so that the sliced network is the gated one with the weak
    gates at zero; the paper sets them to one.

    Raises:
        ValueError: There are no epochs to train in.
    """
    epochs = epochs_to_learn(context, "vtp")
    gated = copy.deepcopy(model)
    gated.set_reducers({})
    for parent, name in projections(gated):
        setattr(parent, name, GatedLinear(getattr(parent, name)))
    context.train(gated, epochs, (gate_penalty(gated),))
    gates = {place: getattr(*place).gate_D.detach().abs() for place in projections(gated)}
    for parent, name in projections(gated):
        setattr(parent, name, getattr(parent, name).folded())
    return Ranked(gated, _scores(gated, gates), epochs)


def gate_penalty(model: nn.Module, strength: float = GATE_PENALTY) -> LossTerm:
    """The summand lambda norm1(a) over all gates of a network."""
    gates = [module.gate_D for module in model.modules() if isinstance(module, GatedLinear)]

    def loss(outputs: Outputs, batch: Batch) -> Tensor:  # noqa: ARG001
        return strength * torch.stack([gate_D.abs().sum() for gate_D in gates]).sum()

    return loss


def _scores(model: VisionTransformer, gates: dict[tuple[nn.Module, str], Tensor]) -> Units:
    magnitudes = rank_magnitude(model, PruneContext()).scores
    channels_D = torch.zeros_like(magnitudes.channels_D)
    found: list[BlockUnits] = []
    for block, magnitude in zip(model.blocks, magnitudes.blocks, strict=True):
        assert isinstance(block, Block)
        if isinstance(block, RepeatedBlock):
            found.append(found[-1])
            continue
        *inputs, proj, fc1, fc2 = (gates[place] for place in projections_of(block))
        v_HV = proj.view(block.attn.num_heads, -1)
        found.append(
            BlockUnits(
                mlp_units_M=fc2,
                heads_H=v_HV.sum(dim=1),
                qk_HQ=magnitude.qk_HQ,
                v_HV=v_HV,
                block=torch.cat([*inputs, proj, fc1, fc2]).mean(),
            )
        )
        channels_D = channels_D + torch.stack(inputs).sum(dim=0) + fc1
    return Units(channels_D=channels_D, blocks=tuple(found))
