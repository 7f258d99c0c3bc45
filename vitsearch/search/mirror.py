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
        storage = optuna.storages.RDBStorage(
            f"sqlite:///{(folder / MIRROR_FILE).resolve()}", engine_kwargs={"connect_args": {"timeout": 15}}
        )
        self._copy = optuna.create_study(
            study_name=name, storage=storage, directions=study.directions, load_if_exists=True
        )
        self._mirrored = {trial.user_attrs["vitsearch_trial"] for trial in self._copy.get_trials(deepcopy=False)}
        for trial in study.get_trials(deepcopy=False):
            self.add(trial.number)

    def add(self, number: int) -> None:
        """Copy one told trial; a mirror that cannot be written is a warning, never a failure."""
        trial: FrozenTrial = self._source.get_trials(deepcopy=False)[number]
        if number in self._mirrored or not trial.state.is_finished():
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
