import pytest

from vitsearch.config import DimensionSpec, SpaceSpec
from vitsearch.errors import InputError
from vitsearch.space import SearchSpace, continuous_fields, load_preset, preset_names, resolve_preset

NAMES = ["deit_224", "vit_micro_8", "vit_small_64", "vit_tiny_32"]


def test_the_presets_that_ship():
    assert preset_names() == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_is_named_described_and_sound(name: str):
    spec = load_preset(name)
    assert spec.name == name
    assert spec.description
    space = SearchSpace(spec, in_chans=3, num_classes=10)
    assert continuous_fields(space) == ["tokens.tau"]


def test_unknown_presets():
    with pytest.raises(InputError) as caught:
        resolve_preset(SpaceSpec(preset="vit_mikro_8"), where="job.yaml")
    assert caught.value.where == "job.yaml"
    assert caught.value.field == "space.preset"
    assert caught.value.value == "vit_mikro_8"
    assert caught.value.remedy == "did you mean 'vit_micro_8'?"
    with pytest.raises(InputError, match=r"presets are deit_224, .*"):
        load_preset("zzzz")


def test_a_preset_cannot_climb_out_of_its_folder():
    with pytest.raises(InputError, match="not a known preset"):
        load_preset("../search_spaces/vit_micro_8")


def test_a_space_without_a_preset_is_itself():
    spec = SpaceSpec(name="x", fixed={"architecture.depth": 3})
    assert resolve_preset(spec) is spec


def test_the_preset_alone():
    assert resolve_preset(SpaceSpec(preset="vit_micro_8")) == load_preset("vit_micro_8")


def test_what_the_job_writes_wins():
    base = load_preset("vit_micro_8")
    mine = DimensionSpec(low=2, high=3)
    spec = resolve_preset(
        SpaceSpec(
            name="mine",
            preset="vit_micro_8",
            fixed={"architecture.width": 48, "architecture.image_size": 16},
            dimensions={"architecture.depth": mine},
            drop=("tokens.tau",),
        )
    )
    assert spec.name == "mine"
    assert spec.dimensions["architecture.depth"] == mine
    assert list(spec.dimensions) == [n for n in base.dimensions if n not in {"architecture.width", "tokens.tau"}]
    assert spec.fixed == {"architecture.width": 48, "architecture.image_size": 16}
    SearchSpace(spec, in_chans=1, num_classes=10)


def test_what_a_preset_fixes_may_vary_instead():
    patched = SpaceSpec(
        preset="vit_micro_8", dimensions={"architecture.image_size": DimensionSpec(choices=(8, 16))}
    )
    assert "architecture.image_size" not in resolve_preset(patched).fixed


def test_dropping_what_is_not_there():
    with pytest.raises(InputError, match=r"has no dimension 'tokens\.rr'") as caught:
        resolve_preset(SpaceSpec(preset="vit_micro_8", drop=("tokens.rr",)), where="job.yaml")
    assert caught.value.where == "job.yaml"
    assert caught.value.field == "space.drop"
    assert "tokens.r" in caught.value.remedy


def test_dropping_what_a_condition_needs():
    spec = resolve_preset(SpaceSpec(preset="vit_micro_8", drop=("tokens.reducer",)))
    with pytest.raises(InputError, match="a condition refers to"):
        SearchSpace(spec, in_chans=1, num_classes=10)
