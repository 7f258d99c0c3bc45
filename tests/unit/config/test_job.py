import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from pydantic import ValidationError

from vitsearch.config import METRICS, RECIPES, JobSpec, parse
from vitsearch.errors import InputError, hide_passwords

BASE: dict[str, Any] = {"name": "a", "dataset": {"kind": "digits"}, "space": "vit_micro_8"}


def job(**more: Any) -> JobSpec:
    return parse(JobSpec, {**BASE, **more}, where="job.yaml")


def refused(match: str, field: str, **more: Any) -> InputError:
    with pytest.raises(InputError, match=match) as caught:
        job(**more)
    assert caught.value.field == field
    return caught.value


def test_a_recipe_fills_the_gaps_and_the_job_overrides():
    train = job(train={"recipe": "deit", "epochs": 7}).train
    assert train == RECIPES["deit"].model_copy(update={"epochs": 7})
    assert train.mixup == RECIPES["deit"].mixup != RECIPES["plain"].mixup
    assert job(train={"lr": 0.5}).train == RECIPES["plain"].model_copy(update={"lr": 0.5})


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_carry_their_own_name(name: str):
    assert RECIPES[name].recipe == name


def test_an_unknown_recipe_is_answered_with_the_nearest():
    error = refused(
        "'plain', 'augreg_light', 'augreg' or 'deit', but got 'deitt'", "train.recipe", train={"recipe": "deitt"}
    )
    assert error.remedy == "did you mean 'deit'?"


@pytest.mark.parametrize("recipe", [None, ["deit"], 3])
def test_a_recipe_is_a_word(recipe: object):
    refused("valid string", "train.recipe", train={"recipe": recipe})


def test_preset_by_name():
    assert job().space.preset == "vit_micro_8"
    assert job().space.name == "vit_micro_8"


def test_objectives_are_two_or_more_and_differ():
    refused("at least 2", "objectives", objectives=["accuracy"])
    refused("must differ from each other, but got", "objectives", objectives=["eer", "eer"])
    assert job(objectives=["accuracy", "latency", "size"]).objectives == ("accuracy", "latency", "size")


def test_a_constraint_needs_a_bound_that_can_hold():
    refused("the constraint on eer needs max or min", "constraints.0", constraints=[{"metric": "eer"}])
    refused(
        "min must not exceed max, but got min=3.0, max=2.0",
        "constraints.0",
        constraints=[{"metric": "eer", "max": 2, "min": 3}],
    )
    assert job(constraints=[{"metric": "eer", "max": 0}]).constraints[0].max == 0


@pytest.mark.parametrize(
    ("constraint", "field", "match"),
    [
        ({"metric": "accuracy", "min": 55}, "min", "between 0 and 1, but got 55; did you mean 0.55?"),
        ({"metric": "accuracy", "max": -0.1}, "max", "between 0 and 1, but got -0.1; no accuracy lies outside"),
        ({"metric": "bits", "max": 0.5}, "max", "between 1 and 32, but got 0.5; no bits lies outside"),
        ({"metric": "latency", "max": -1}, "max", "0 or more, but got -1; choose a larger number"),
        ({"metric": "eer", "min": -5}, "min", "0 or more, but got -5"),
    ],
)
def test_a_constraint_lies_where_its_metric_does(constraint: dict[str, Any], field: str, match: str):
    refused(re.escape(match), f"constraints.0.{field}", constraints=[constraint])


def test_constraints_at_the_ends_of_the_range_are_possible():
    job(constraints=[{"metric": "accuracy", "min": 0, "max": 1}, {"metric": "bits", "min": 1, "max": 32}])
    job(constraints=[{"metric": "eer", "max": 250}])


@pytest.mark.parametrize("url", ["foo", "postgresql", "://x", "sqlite://", "a b://c", ""])
def test_a_database_is_named_by_its_address(url: str):
    error = refused("must be the address of a database", "storage.url", storage={"url": url})
    assert "postgresql+psycopg://HOST/DATABASE" in hide_passwords(str(error)), "as the terminal shows it"


@pytest.mark.parametrize("uri", ["not a url", "mlflow:5000", "htp://x", "http://", ""])
def test_a_tracking_store_is_named_by_its_address(uri: str):
    error = refused("must be the address of an MLflow store", "tracking.uri", tracking={"uri": uri})
    assert "http://HOST:5000" in str(error)


@pytest.mark.parametrize("uri", ["http://a:1", "https://a/b", "sqlite:////a/b.db", "file:///a", "databricks"])
def test_addresses_that_mlflow_takes(uri: str):
    assert job(tracking={"uri": uri}).tracking.uri == uri


@pytest.mark.parametrize("address", ["sqlite:////${HOME}/a.db", "${URL}", "postgresql://me:${file:/a/b}@h/db"])
@pytest.mark.parametrize("field", ["storage.url", "tracking.uri"])
def test_addresses_may_leave_parts_to_the_environment_or_a_file(field: str, address: str):
    part, _, name = field.partition(".")
    assert getattr(getattr(job(**{part: {name: address}}), part), name) == address
    refused(re.escape("must have ${NAME} or ${file:/FOLDER/FILE}"), field, **{part: {name: "sqlite:///${a b}"}})


@pytest.mark.parametrize("part", ["storage", "tracking"])
def test_an_address_in_the_wrong_place_keeps_its_password(part: str):
    with pytest.raises(InputError) as caught:
        job(**{part: "postgresql://me:s3cret@host/db"})
    assert "s3cret" not in str(caught.value)


def test_a_wrong_part_of_a_list_does_not_make_the_list_too_short():
    with pytest.raises(InputError) as caught:
        job(objectives=["accuracy", "speed"])
    assert caught.value.field == "objectives.1"
    assert "at least 2" not in str(caught.value)


def test_eer_weights_are_one_per_metric_and_sum_to_one():
    refused("one per metric, but got 2 for 4", "eer", eer={"weights": [0.5, 0.5]})
    refused("must sum to 1, but got 2", "eer", eer={"weights": [0.5] * 4})
    refused("counts once", "eer", eer={"metrics": ["params", "params"]})
    assert job(eer={"weights": [0.7, 0.1, 0.1, 0.1]}).eer.weights == (0.7, 0.1, 0.1, 0.1)


def test_a_measured_eer_needs_a_measured_reference():
    refused("needs eer.reference.latency_ms", "eer", eer={"metrics": ["latency"]})
    refused("needs eer.reference.memory_mb", "eer", eer={"metrics": ["memory"]})
    assert job(eer={"metrics": ["latency"], "reference": {"latency_ms": 3}}).needs_profile


def test_the_default_reference_is_vit_b_16():
    reference = job().eer.reference
    assert (reference.params_m, reference.flops_g, reference.bits, reference.size_mb) == (86.6, 17.6, 32, 330)


def test_when_a_profile_is_needed():
    assert not job().needs_profile
    assert job(objectives=["accuracy", "latency"]).needs_profile
    assert job(constraints=[{"metric": "memory", "max": 3}]).needs_profile


def test_targets_have_names_of_their_own():
    refused("must have different names, but got", "targets", targets=[{"name": "a"}, {"name": "a"}])
    refused("at least 1", "targets", targets=[])


@pytest.mark.parametrize("kind", ["cifar10", "imagefolder", "npz", "huggingface"])
def test_a_data_set_needs_a_source(kind: str):
    refused(f"dataset.kind={kind} needs dataset.path", "dataset", dataset={"kind": kind})


def test_splits_leave_images_to_train_on():
    refused(
        "must leave images to train on",
        "dataset",
        dataset={"kind": "digits", "val_fraction": 0.5, "test_fraction": 0.5},
    )


def test_a_job_is_frozen():
    with pytest.raises(ValidationError):
        job().seed = 3  # type: ignore[misc]


def test_overrides_are_checked_like_the_file():
    assert job(seed=1).with_overrides(trials=3, workers=2, seed=9).model_dump(include={"seed", "search"}) == {
        "seed": 9,
        "search": {**job().search.model_dump(), "trials": 3, "max_workers": 2},
    }
    assert job().with_overrides() == job()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trials": 0}, "--trials: input should be greater than or equal to 1, but got 0; choose a larger number"),
        (
            {"workers": -1},
            "--workers: input should be greater than or equal to 1, but got -1; choose a larger number",
        ),
        ({"seed": -1}, "--seed: input should be greater than or equal to 0, but got -1; choose a larger number"),
        (
            {"seed": 2**31},
            "--seed: input should be less than 2147483648, but got 2147483648; choose a smaller number",
        ),
    ],
)
def test_a_bad_override_names_the_option(options: dict[str, int], message: str):
    with pytest.raises(InputError) as caught:
        job().with_overrides(**options)
    assert str(caught.value) == message


def test_overrides_keep_the_recipe_and_the_paths():
    one = job(train={"recipe": "deit", "epochs": 2}, dataset={"kind": "npz", "path": "x.npz"})
    one = one.resolve_paths(Path("/data"))
    assert one.with_overrides(seed=3) == one.model_copy(update={"seed": 3})


def test_json_round_trip():
    one = job(train={"recipe": "deit"}, constraints=[{"metric": "eer", "max": 5}])
    assert JobSpec.model_validate_json(one.model_dump_json()) == one


def test_the_json_schema_accepts_what_the_job_accepts():
    schema = JobSpec.model_json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    full = job(train={"recipe": "deit"}).model_dump(mode="json")
    jsonschema.validate(full, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**full, "objektives": []}, schema)


def test_every_metric_name_is_in_the_table():
    names = JobSpec.model_json_schema()["properties"]["objectives"]["items"]["enum"]
    assert set(names) == set(METRICS)
    assert len({metric.key for metric in METRICS.values()}) == len(METRICS)
    assert {name for name, m in METRICS.items() if m.maximize} == {"accuracy", "throughput"}
