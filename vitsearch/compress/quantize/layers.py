"""Network layers whose operands pass through simulated quantisers.

Shape suffixes: B batch, H heads, N tokens, K width of one head.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from vitsearch.compress.quantize.uniform import channel_delta, observed_delta, quantize, spread_sample
from vitsearch.models import Attention, AttentionState

OBSERVED_VALUES = 65_536


class ActivationQuantizer(nn.Module):
    """Quantises one activation tensor; observes it first.

    While ``observing``, values pass unchanged and a sample of them is kept; ``settle`` turns it into a step.

    Args:
        bits: Code width; 16 rounds to float16, 32 is the identity.
        calibration: How the range is chosen.
    """

    delta: Tensor

    def __init__(self, bits: int, calibration: str) -> None:
        super().__init__()
        self.bits = bits
        self.calibration = calibration
        self.observing = False
        self._observed: list[Tensor] = []
        self.register_buffer("delta", torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        """The quantised tensor, of the same shape."""
        if self.bits == 32:
            return x
        if self.bits == 16:
            return x.to(torch.float16).to(x.dtype)
        if self.observing:
            flat = x.detach().flatten()
            sample = spread_sample(flat, OBSERVED_VALUES)
            if len(sample) < len(flat):
                sample = torch.cat([sample, flat.min()[None], flat.max()[None]])  # never lose the range
            self._observed.append(sample)
            return x
        return quantize(x, self.delta, self.bits)

    def settle(self) -> None:
        """Choose the step from what was observed and start quantising."""
        self.observing = False
        if self._observed and self.bits < 16:
            self.delta.copy_(observed_delta(torch.cat(self._observed), self.bits, self.calibration))
        self._observed.clear()


class QuantizedProjection(nn.Module):
    """A linear or convolution layer with quantised weights and input.

    Args:
        layer: The trained layer; its weights are replaced by their quantised values.
        weight_bits: Code width of the weights; 16 rounds to float16, 32 leaves them.
        activation_bits: Code width of the input.
        calibration: How the input's range is chosen.
    """

    def __init__(
        self, layer: nn.Linear | nn.Conv2d, weight_bits: int, activation_bits: int, calibration: str
    ) -> None:
        super().__init__()
        self.layer = layer
        self.input_quantizer = ActivationQuantizer(activation_bits, calibration)
        with torch.no_grad():
            layer.weight.copy_(quantized_weight(layer.weight, weight_bits))

    def forward(self, x: Tensor) -> Tensor:
        """Quantise the input, apply the layer."""
        return self.layer(self.input_quantizer(x))


class QuantizedAttention(Attention):
    """Attention whose four matrix-product operands are quantised; the matrix is materialised for that.

    Args:
        attention: The trained layer, whose projections (possibly quantised already) are taken over.
        activation_bits: Code width of q, k, v and the softmax outputs.
        calibration: How their ranges are chosen.
    """

    def __init__(self, attention: Attention, activation_bits: int, calibration: str) -> None:
        nn.Module.__init__(self)
        self.num_heads, self.head_dim, self.scale = attention.num_heads, attention.head_dim, attention.scale
        self.qk_dim, self.v_dim, self.hides_self = attention.qk_dim, attention.v_dim, attention.hides_self
        self.temperature_H = attention.temperature_H
        self.fused = False
        self.qkv, self.proj, self.proj_drop = attention.qkv, attention.proj, attention.proj_drop
        self.quantizers = nn.ModuleDict(
            {name: ActivationQuantizer(activation_bits, calibration) for name in ("q", "k", "v", "softmax")}
        )

    def project(self, x_BND: Tensor, bias_B11N: Tensor | None) -> AttentionState:
        """Quantised queries, keys and values."""
        state = super().project(x_BND, bias_B11N)
        q, k, v = (
            self.quantizers[name](operand)
            for name, operand in zip("qkv", (state.q_BHNK, state.k_BHNK, state.v_BHNK), strict=True)
        )
        return replace(state, q_BHNK=q, k_BHNK=k, v_BHNK=v)

    def mix(self, state: AttentionState) -> Tensor:
        """Q(softmax(q k^T * scale + bias)) v, with plain matrix products."""
        logits_BHNN = (state.q_BHNK @ state.k_BHNK.transpose(-2, -1)) * self.scale
        bias = state.bias_B1MN(state.q_BHNK.shape[2])
        if bias is not None:
            logits_BHNN = logits_BHNN + bias
        return self.quantizers["softmax"](logits_BHNN.softmax(dim=-1)) @ state.v_BHNK


def quantized_weight(weight: Tensor, bits: int) -> Tensor:
    """Weights rounded to ``bits``-bit codes per output channel and back."""
    if bits == 32:
        return weight
    if bits == 16:
        return weight.to(torch.float16).to(weight.dtype)
    return quantize(weight, channel_delta(weight, bits), bits)
