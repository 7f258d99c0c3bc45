"""Token Pooling on a running network."""

from __future__ import annotations

import torch
from torch import Tensor

from vitsearch.candidate import Architecture, TokenPooling
from vitsearch.compress.tokens.kernels import gather_tokens
from vitsearch.compress.tokens.scores import SCORE_KERNELS, split_by_score
from vitsearch.models import AttentionState, TokenReducer


class TokenPoolingReducer:
    """Clusters the patches and goes on with the clusters' centres.

    The rule (Marin et al., 2021), with weights w from a score::

        first centres: the K patches of the largest w;  T times: each patch goes to its nearest centre, then
        K-means:   c_k <- sum_{i in k} w_i x_i / sum_{i in k} w_i
        K-medoids: c_k <- the x_i, i in k, of the least sum_{j in k} w_j |x_i - x_j|^2

    A centre that no patch is nearest to stays where it is. Centres keep the order of the first ones.

    Args:
        num_clusters: K; all patches is the identity.
        medoids: Whether centres are patches.
        iterations: T.
        num_prefix: Leading tokens, which stay.
        score: What weighs.
    """

    def __init__(
        self,
        num_clusters: int,
        *,
        medoids: bool,
        iterations: int,
        num_prefix: int,
        score: str = "attention_received",
    ) -> None:
        self.num_clusters = num_clusters
        self.medoids = medoids
        self.iterations = iterations
        self.num_prefix = num_prefix
        self.score = score

    def __call__(
        self, x_BND: Tensor, attention: AttentionState, size_BN: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Reduce; sizes are not tracked."""
        prefix = self.num_prefix
        if self.num_clusters >= x_BND.shape[1] - prefix:
            return x_BND, size_BN
        weight_BP = SCORE_KERNELS[self.score](x_BND, attention, prefix).to(x_BND.dtype)
        first_BK, _ = split_by_score(weight_BP, self.num_clusters)
        cluster = kmedoids if self.medoids else kmeans
        centres_BKD = cluster(x_BND[:, prefix:], weight_BP, first_BK, self.iterations)
        return torch.cat([x_BND[:, :prefix], centres_BKD], dim=1), None


def kmeans(x_BPD: Tensor, weight_BP: Tensor, first_BK: Tensor, iterations: int) -> Tensor:
    """Centres (B, K, D) of weighted K-means that begins with the tokens at ``first_BK``."""
    centres_BKD = gather_tokens(x_BPD, first_BK)
    ones_BP1, weight_BP1 = torch.ones_like(weight_BP).unsqueeze(-1), weight_BP.unsqueeze(-1)
    mass_BPE = torch.cat([x_BPD * weight_BP1, weight_BP1, ones_BP1], dim=-1)
    for _ in range(iterations):
        products_BPK = x_BPD @ centres_BKD.transpose(1, 2)
        # less |x|^2, which is the same for all centres
        distance_BPK = centres_BKD.square().sum(dim=-1)[:, None] - 2 * products_BPK
        nearest_BP1 = distance_BPK.min(dim=-1, keepdim=True).indices
        sums_BKE = torch.cat([torch.zeros_like(centres_BKD), torch.zeros_like(centres_BKD[..., :2])], dim=-1)
        sums_BKE = sums_BKE.scatter_add(1, nearest_BP1.expand_as(mass_BPE), mass_BPE)
        filled_BK1 = sums_BKE[..., -1:] > 0
        means_BKD = sums_BKE[..., :-2] / torch.where(filled_BK1, sums_BKE[..., -2:-1], 1.0)
        centres_BKD = torch.where(filled_BK1, means_BKD, centres_BKD)
    return centres_BKD


def kmedoids(x_BPD: Tensor, weight_BP: Tensor, first_BK: Tensor, iterations: int) -> Tensor:
    """Centres (B, K, D) of weighted K-medoids that begins with the tokens at ``first_BK``."""
    square_BP = x_BPD.square().sum(dim=-1)
    distance_BPP = square_BP[:, :, None] + square_BP[:, None] - 2 * (x_BPD @ x_BPD.transpose(1, 2))
    medoids_BK = first_BK
    clusters_K = torch.arange(first_BK.shape[1], device=x_BPD.device)
    for _ in range(iterations):
        distance_BPK = distance_BPP.gather(2, medoids_BK[:, None].expand(-1, x_BPD.shape[1], -1))
        member_BPK = distance_BPK.min(dim=-1, keepdim=True).indices == clusters_K
        cost_BPK = distance_BPP @ (member_BPK * weight_BP.unsqueeze(-1))
        best_BK, chosen_BK = cost_BPK.masked_fill(~member_BPK, torch.inf).min(dim=1)
        medoids_BK = torch.where(best_BK < torch.inf, chosen_BK, medoids_BK)
    return gather_tokens(x_BPD, medoids_BK)


def build_token_pooling(rule: TokenPooling, architecture: Architecture) -> dict[int, TokenReducer]:
    """One reducer for each block that keeps fewer patches than reach it."""
    return {
        block: TokenPoolingReducer(
            kept,
            medoids=rule.method == "kmedoids",
            iterations=rule.iterations,
            num_prefix=architecture.num_prefix_tokens,
            score=rule.score,
        )
        for block, (patches, kept) in rule.kept_per_block(architecture).items()
        if kept < patches
    }
