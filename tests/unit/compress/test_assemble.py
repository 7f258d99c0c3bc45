import torch

from tests.unit.compress.factory import candidate, images, network
from vitsearch.compress import assemble, build_reducers


@torch.no_grad()
def test_a_dense_candidate_is_its_dense_network():
    c = candidate()
    model = assemble(c)
    model.load_state_dict(network(c).state_dict(), strict=True)
    assert torch.equal(model(images()), network(c)(images()))


def test_reducers_stand_where_the_rule_says():
    c = candidate(tokens={"reducer": "tome", "r": 2, "blocks": (1, 3)})
    assert list(build_reducers(c)) == [1, 3]
    assert [block.reducer is not None for block in assemble(c).blocks] == [True, False, True]


def test_blocks_with_nothing_left_to_remove_have_no_reducer():
    c = candidate({"depth": 6}, tokens={"reducer": "tome", "r": 8})  # 16 patches: 8, 4, 2, 1, 1
    assert c.tokens.token_counts(c.architecture) == [17, 9, 5, 3, 2, 2, 2]
    assert list(build_reducers(c)) == [1, 2, 3, 4]


def test_all_parts_together():
    c = candidate(
        tokens={"reducer": "evit", "keep": 0.5},
        sparsity={"method": "magnitude", "mlp_units": 20, "heads": 2},
        precision={"weight_bits": 4, "activation_bits": 8},
    )
    model = assemble(c)
    assert not model.training
    assert model.blocks[0].mlp.fc1.layer.out_features == 20
    assert model.blocks[0].attn.num_heads == 2
    assert model(images()).shape == (4, 5)
