"""What is checked of a job before anything is made: space, recipe, runtimes, database, networks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vitsearch.cli.options import DATABASE_VARIABLE, TRACKING_VARIABLE

if TYPE_CHECKING:
    from vitsearch.config import JobSpec, TargetSpec, TrainSpec
    from vitsearch.space import SearchSpace
    from vitsearch.train.data import ImageData


def check_written(job: JobSpec, where: Path, *, here: bool = True) -> SearchSpace:
    """Refuse what can be seen to be wrong in a job before its data is read.

    Args:
        job: The job.
        where: Its file, for messages.
        here: Whether the search is driven from here, so that what its addresses leave open must be there.

    Returns:
        Its space.

    Raises:
        InputError: The message names the file.
        MissingExtraError: The job's database needs an extra.
    """
    from vitsearch.cli.teaching import check_named
    from vitsearch.config.addresses import check_addresses

    check_addresses(job, where=str(where))
    space = check_space(job, where)
    check_storage(job, where, here=here)
    if here:
        check_tracking(job, where)
    check_named(space, job.train, where)
    return space


def checked_data(job: JobSpec) -> ImageData:
    """The job's images, once space and networks are seen to fit them.

    Raises:
        InputError: They do not; nothing has been made yet.
    """
    from vitsearch.cli.session import load_data, summary_of
    from vitsearch.cli.teaching import check_networks
    from vitsearch.report import space_of

    data = load_data(job)
    check_networks(space_of(job, summary_of(data), checked=True), job.train, data)
    return data


def check_space(job: JobSpec, where: Path) -> SearchSpace:
    """The space a job describes, before its data is known.

    Raises:
        InputError: The space is impossible; the message names the file.
    """
    from vitsearch.cli.teaching import check_students
    from vitsearch.space import SearchSpace, resolve_preset

    spec = resolve_preset(job.space, where=str(where))
    space = SearchSpace(spec, in_chans=job.dataset.in_chans or 3, num_classes=10, where=str(where))
    check_recipe(space, job.train, where)
    check_students(space, job.train, where)
    check_runtimes(space, job.targets, where)
    check_read(job, space, where)
    return space


def check_read(job: JobSpec, space: SearchSpace, where: Path) -> None:
    """Refuse what a job says and nothing would read: a word beside it is missing or wrong.

    Args:
        job: The job.
        space: Its space, which may name ways to train, too.
        where: Its file, for messages.

    Raises:
        InputError: The message names the file and all such fields.
    """
    from vitsearch.config import SAMPLERS
    from vitsearch.errors import InputError
    from vitsearch.space import recipes

    data = job.dataset
    unread = [
        (f"dataset.{field}", f"kind {data.kind}", f"a kind that reads it: {', '.join(kinds)}")
        for field, kinds in _optional_fields().items()
        if data.kind not in kinds and getattr(data, field) != type(data).model_fields[field].default
    ]
    if job.search.population is not None and not SAMPLERS[job.search.sampler].has_population:
        kinds = [name for name, kind in SAMPLERS.items() if kind.has_population]
        unread.append(("search.population", f"sampler {job.search.sampler}", f"sampler: {' or '.join(kinds)}"))
    starts = {recipe.init for recipe in recipes(space, job.train).values()}
    if job.train.pretrained is not None and "pretrained" not in starts:
        unread.append(("train.pretrained", "init random", "init: pretrained"))
    errors = [
        InputError(
            f"is not read with {by}", where=str(where), field=field, remedy=f"leave it out, or write {instead}"
        )
        for field, by, instead in unread
    ]
    if errors:
        errors[0].more = errors[1:]
        raise errors[0]


def _optional_fields() -> dict[str, list[str]]:
    """Fields that not every kind of data set reads, each with the kinds that do."""
    from vitsearch.config import DATASETS

    found: dict[str, list[str]] = {}
    for name, kind in DATASETS.items():
        for field in (*kind.needs, *kind.reads):
            found.setdefault(field, []).append(name)
    return found


def check_runtimes(space: SearchSpace, targets: Sequence[TargetSpec], where: Path) -> None:
    """Refuse a target none of whose runtimes executes some candidate of the space.

    Raises:
        InputError: The message names the file, the runtime and the bits.
    """
    from vitsearch.config import RUNTIMES
    from vitsearch.errors import InputError

    for number, target in enumerate(targets):
        kinds = [RUNTIMES[name] for name in (target.runtime, *target.also)]
        executed = {kind.bits for kind in kinds if kind.bits is not None}
        if any(kind.bits is None for kind in kinds):
            continue
        for setting in ("precision.weight_bits", "precision.activation_bits"):
            drawn = {int(bits) for bits in space.values_of(setting) or (32,)}
            other = sorted(drawn - executed)
            if other:
                raise InputError(
                    f"{target.runtime} executes {_numbers(executed)} bits only, but {setting} can be "
                    f"{_numbers(other)}",
                    where=str(where), field=f"targets.{number}.runtime",
                    remedy=f"fix {setting}: {min(executed)} in the space, or add a float runtime to also",
                )  # fmt: skip


def _numbers(values: Iterable[object]) -> str:
    return ", ".join(map(str, values))


def check_recipe(space: SearchSpace, train: TrainSpec, where: Path) -> None:
    """Refuse a learning rate that rises, and a recipe without the epochs that a technique has to learn in.

    Raises:
        InputError: The message names the file, and the technique.
    """
    from vitsearch.candidate import LEARNING_EPOCHS, LEARNING_PRUNERS, SCORES, TOKEN_RULES
    from vitsearch.errors import InputError
    from vitsearch.space import recipes

    for recipe in recipes(space, train).values():
        if recipe.min_lr > recipe.lr:
            raise InputError(f"must be at most lr, which can be {recipe.lr:g}", where=str(where),
                             field="train.min_lr", value=recipe.min_lr, remedy="write a smaller one")  # fmt: skip

    reducers = {name for name, rule in TOKEN_RULES.items() if rule.examples()[0].learns}
    scores = {name for name, kind in SCORES.items() if kind.learns}
    needed = (
        ("tokens.reducer", reducers, "finetune_epochs", 1),
        ("tokens.score", scores, "finetune_epochs", 1),
        ("sparsity.method", LEARNING_PRUNERS, "finetune_epochs", LEARNING_EPOCHS),
        ("precision.training", {"ste", "lsq"}, "qat_epochs", 1),
    )
    for setting, names, epochs, least in needed:
        drawn = sorted(names & {str(value) for value in space.values_of(setting)})
        if drawn and getattr(train, epochs) < least:
            raise InputError(
                f"must be {least} or more, because {setting} can be {drawn[0]}, which trains in these epochs",
                where=str(where), field=f"train.{epochs}", value=getattr(train, epochs),
                remedy=f"write {least} or more, or leave {drawn[0]} out of the space",
            )  # fmt: skip


def check_tracking(job: JobSpec, where: Path) -> None:
    """Refuse a tracking server whose address leaves open what is not there.

    Raises:
        InputError: The message names the file.
    """
    from vitsearch.errors import InputError
    from vitsearch.tracking import address_of

    try:
        if job.tracking.enabled and job.tracking.uri is not None:
            address_of(job.tracking.uri)
    except InputError as error:
        error.where = str(where)
        raise


def passwords_that_travel(job: JobSpec) -> Iterator[str]:
    """A sentence for each address of a job in which a password is written out."""
    from vitsearch.config.addresses import fields_with_password

    for field in fields_with_password(job):
        remedy = "leave it to the environment of the cluster's machines, as the store's own client reads it there"
        if field in {"storage.url", "tracking.uri"}:
            remedy = "write ${NAME} or ${file:/FOLDER/FILE} in its place, which the cluster's head looks up"
        yield f"{field} holds a password, which travels with the job and is kept with the study; {remedy}"


def check_lasting(job: JobSpec, where: str, *, on_cluster: bool = False) -> None:
    """Refuse a job that would leave something behind in a run's folder, where there is to be none.

    Args:
        job: The job.
        where: Its file, for messages.
        on_cluster: Whether its cluster may still fill in a database and a tracking server.

    Raises:
        InputError: It names all that is missing.
    """
    from vitsearch.errors import InputError

    wanted = [
        ("storage.artifacts", job.storage.artifacts is None, "weights and checkpoints",
         "write an absolute folder or s3://BUCKET/FOLDER"),
        ("storage.optuna_mirror", job.storage.optuna_mirror, "Optuna's copy", "write false"),
    ]  # fmt: skip
    if not on_cluster:
        wanted += [
            ("storage.url", job.storage.url is None, "the study's records",
             f"write the address of a database, or set {DATABASE_VARIABLE} where it runs"),
            ("tracking.uri", job.tracking.enabled and job.tracking.uri is None, "MLflow's records",
             f"write the address of a server, set {TRACKING_VARIABLE} where it runs, or write enabled: false"),
        ]  # fmt: skip
    errors = [
        InputError(f"keeps {what} in the run's folder, and without --out there is none", where=where, field=field,
                   remedy=f"{remedy}, or give --out")
        for field, broken, what, remedy in wanted if broken
    ]  # fmt: skip
    if errors:
        errors[0].more = errors[1:]
        raise errors[0]


def check_storage(job: JobSpec, where: Path, *, here: bool = True) -> None:
    """Refuse a database's address that cannot be one, before anything is created.

    Args:
        job: The job.
        where: Its file, for messages.
        here: As for ``check_written``.

    Raises:
        InputError: The message names the file.
        MissingExtraError: Its driver comes with an extra.
    """
    from vitsearch.artifacts import check_place
    from vitsearch.errors import InputError
    from vitsearch.storage import check_url

    try:
        if job.storage.url is not None:
            check_url(job.storage.url, here=here)
        if job.storage.artifacts is not None:
            check_place(job.storage.artifacts)
    except InputError as error:
        error.where = str(where)
        raise
