"""A copy of the study in Optuna's own database, for optuna-dashboard. Never read back."""

from __future__ import annotations

import logging
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial

MIRROR_FILE = "optuna.db"
log = logging.getLogger(__name__)


class OptunaMirror:
    """Receives each told trial once.

    Trials that an earlier driver mirrored already are recognised by their number.

    Args:
        folder: The run's folder.
        name: Study name.
        study: The in-memory study that is copied.
    """

    def __init__(self, folder: Path, name: str, study: optuna.Study) -> None:
        self._source = study
        self._copy: optuna.Study | None = None
        self._mirrored: set[int] = set()
        try:
            self._open(folder / MIRROR_FILE, name)
        except Exception as error:  # noqa: BLE001 - whatever the database raises; logged
            reason = str(error).strip().partition("\n")[0]
            log.warning("the Optuna mirror %s stays as it is, since it cannot be used: %s", MIRROR_FILE, reason)
            return
        for trial in study.get_trials(deepcopy=False):
            self.add(trial.number)

    def _open(self, file: Path, name: str) -> None:
        storage = optuna.storages.RDBStorage(
            f"sqlite:///{file.resolve()}", engine_kwargs={"connect_args": {"timeout": 15}}
        )
        copy = optuna.create_study(
            study_name=name, storage=storage, directions=self._source.directions, load_if_exists=True
        )
        self._mirrored = {trial.user_attrs["vitsearch_trial"] for trial in copy.get_trials(deepcopy=False)}
        self._copy = copy

    def add(self, number: int) -> None:
        """Copy one told trial; a mirror that cannot be written is a warning, never a failure."""
        trial: FrozenTrial = self._source.get_trials(deepcopy=False)[number]
        if self._copy is None or number in self._mirrored or not trial.state.is_finished():
            return
        copy = optuna.trial.create_trial(
            state=trial.state,
            values=trial.values,
            params=trial.params,
            distributions=trial.distributions,
            user_attrs={"vitsearch_trial": number},
        )
        try:
            self._copy.add_trial(copy)
        except Exception:  # whatever the database raises; logged
            log.warning("the Optuna mirror could not take trial %d", number, exc_info=True)
            return
        self._mirrored.add(number)
