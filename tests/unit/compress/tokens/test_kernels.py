import pytest
import torch

from vitsearch.compress.tokens.kernels import bipartite_matching, gather_tokens, merge_order, merge_tokens


def test_gather_takes_tokens_of_each_image():
    x_BND = torch.arange(24.0).reshape(2, 4, 3)
    found = gather_tokens(x_BND, torch.tensor([[3, 0], [1, 1]]))
    assert torch.equal(found, torch.stack([x_BND[0, [3, 0]], x_BND[1, [1, 1]]]))


@pytest.mark.parametrize("num_prefix", [0, 1, 2])
@pytest.mark.parametrize("num_tokens", [8, 9, 10, 11])
def test_prefix_tokens_take_no_part_even_when_they_are_the_most_alike(num_tokens: int, num_prefix: int):
    metric_BNK = torch.randn(3, num_tokens, 5, generator=torch.Generator().manual_seed(0))
    metric_BNK[:, :num_prefix] = metric_BNK[:, num_prefix : num_prefix + 1]  # identical to a patch
    r = (num_tokens - num_prefix) // 2
    matching = bipartite_matching(metric_BNK, r, num_prefix)
    assert matching.merged_Br.shape == matching.target_Br.shape == (3, r)
    assert (2 * matching.merged_Br >= num_prefix).all()
    assert (2 * matching.target_Br + 1 >= num_prefix).all()
    together = torch.cat([matching.merged_Br, matching.kept_Ba], dim=1).sort(dim=1).values
    assert torch.equal(together, torch.arange((num_tokens + 1) // 2).expand(3, -1))
    assert (matching.kept_Ba.diff(dim=1) > 0).all()


def test_similarity_is_the_cosine_not_the_product():
    metric = torch.tensor(
        [[[0.0, 1.0], [9.0, 9.0], [1.0, 0.0], [1.0, 0.1]]]
    )  # the long odd token is 45 degrees off
    matching = bipartite_matching(metric, 1, 1)
    assert (matching.merged_Br.item(), matching.target_Br.item()) == (1, 1)


def test_merging_conserves_mass_and_first_moment():
    generator = torch.Generator().manual_seed(0)
    x_BND = torch.randn(2, 11, 4, generator=generator, dtype=torch.float64)
    size_BN = torch.randint(1, 9, (2, 11), generator=generator).double()
    merged_BMD, merged_BM = merge_tokens(x_BND, size_BN, bipartite_matching(x_BND, 4, 1))
    assert merged_BMD.shape == (2, 7, 4)
    torch.testing.assert_close(merged_BM.sum(1), size_BN.sum(1))
    torch.testing.assert_close((merged_BM[..., None] * merged_BMD).sum(1), (size_BN[..., None] * x_BND).sum(1))


def test_several_tokens_may_merge_into_one():
    metric = torch.tensor([[[1.0, 0.0], [1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [1.0, 0.2], [0.0, -1.0]]])
    x = torch.arange(6.0).view(1, 6, 1)
    merged, sizes = merge_tokens(x, torch.ones(1, 6), bipartite_matching(metric, 3, 0))
    assert sizes.tolist() == [[4.0, 1.0, 1.0]]
    assert merged.flatten().tolist() == pytest.approx([(0 + 1 + 2 + 4) / 4, 3, 5])


@pytest.mark.parametrize("num_prefix", [0, 1])
def test_one_prefix_token_needs_no_reordering(num_prefix: int):
    assert merge_order(3, num_prefix, 7) is None


def test_a_distillation_token_comes_back_behind_the_cls_token():
    assert merge_order(3, 2, 7) == [0, 3, 1, 2, 4, 5, 6]
