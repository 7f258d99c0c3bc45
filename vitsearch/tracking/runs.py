"""MLflow runs of one study: found by their tags, written only where they differ."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from vitsearch.errors import first_line

if TYPE_CHECKING:
    from mlflow import MlflowClient

STUDY_KEY = "vitsearch.study_key"
TRIAL = "vitsearch.trial"
PAGE = 1000
# MLflow's limits, from mlflow.utils.validation
MAX_KEY, MAX_PARAM, MAX_TAG, MAX_PER_BATCH = 250, 6000, 8000, 100
STUDY = -1

log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class KnownRun:
    """What MLflow holds of a run, so that nothing is sent twice.

    Attributes:
        run_id: MLflow's id.
        status: ``RUNNING``, ``FINISHED`` or ``KILLED``.
        params: By key.
        metrics: Latest values by key.
        tags: By key.
    """

    run_id: str
    status: str
    params: dict[str, str]
    metrics: dict[str, float]
    tags: dict[str, str]


class StudyRuns:
    """The runs of one study: ``STUDY`` for its own, a trial's number for a trial's.

    Args:
        client: Connected.
        experiment_id: Where the runs are.
        study_key: Tells this study from every other, also from one of the same name in another folder.
    """

    def __init__(self, client: MlflowClient, experiment_id: str, study_key: str) -> None:
        self._client, self._experiment_id, self._study_key = client, experiment_id, study_key
        self._runs: dict[int, KnownRun] = {}
        self.look_up()

    def look_up(self) -> None:
        """Learn what MLflow holds; of runs that it has made twice, one stays.

        A server may carry out a create long after whoever asked for it has given up, looked, and made another.
        """
        found: dict[int, list[KnownRun]] = {}
        for number, run in self._search():
            found.setdefault(number, []).append(run)
        for number, runs in found.items():
            # the study's run that trials name as theirs is one that has been written
            self._runs[number] = max(runs, key=lambda run: (len(run.params), len(run.metrics), len(run.tags)))
            self._delete([run for run in runs if run is not self._runs[number]])

    def trials(self) -> list[int]:
        """Numbers of the trials that have a run."""
        return sorted(number for number in self._runs if number != STUDY)

    def get(self, number: int) -> KnownRun | None:
        """A run, if there is one."""
        return self._runs.get(number)

    def get_or_create(self, number: int, name: str, started_at: float, tags: Mapping[str, str]) -> KnownRun:
        """A run that exists from now on.

        Args:
            number: ``STUDY`` or a trial's number.
            name: What people see.
            started_at: Seconds since the epoch.
            tags: Given with the creation, so that no run is ever without them.
        """
        if number not in self._runs:
            all_tags = {**tags, STUDY_KEY: self._study_key, TRIAL: "" if number == STUDY else str(number)}
            all_tags = {key: value for key, value in all_tags.items() if value}
            run = self._client.create_run(
                self._experiment_id, start_time=round(1000 * started_at), tags=all_tags, run_name=name
            )
            self._runs[number] = KnownRun(
                run_id=run.info.run_id, status="RUNNING", params={}, metrics={}, tags=all_tags
            )
        return self._runs[number]

    def write(
        self,
        run: KnownRun,
        *,
        params: Mapping[str, object] | None = None,
        metrics: Mapping[str, float] | None = None,
        tags: Mapping[str, str] | None = None,
        step: int = 0,
    ) -> None:
        """Send what the run does not have yet. A parameter keeps its first value: MLflow refuses another."""
        from mlflow.entities import Metric, Param, RunTag

        now_ms = round(1000 * time.time())
        new_params = {k: v for k, v in map(_param, (params or {}).items()) if v and k not in run.params}
        new_metrics = {k: float(v) for k, v in (metrics or {}).items() if run.metrics.get(k) != float(v)}
        new_tags = {k: _clipped(v, MAX_TAG) for k, v in (tags or {}).items()}
        new_tags = {k: v for k, v in new_tags.items() if run.tags.get(k) != v}
        for chunk in _chunks(new_params):
            self._client.log_batch(run.run_id, params=[Param(k, v) for k, v in chunk.items()])
            run.params |= chunk
        for tag_chunk in _chunks(new_tags):
            self._client.log_batch(run.run_id, tags=[RunTag(k, v) for k, v in tag_chunk.items()])
            run.tags |= tag_chunk
        if new_metrics:
            sent = [Metric(k, v, now_ms, step) for k, v in new_metrics.items()]
            self._client.log_batch(run.run_id, metrics=sent)
            run.metrics |= new_metrics

    def set_status(self, run: KnownRun, status: str, ended_at: float | None = None) -> None:
        """End a run, or let it run again."""
        if run.status == status:
            return
        if status == "RUNNING":
            self._client.update_run(run.run_id, status=status)
        else:
            ended_ms = None if ended_at is None else round(1000 * ended_at)
            self._client.set_terminated(run.run_id, status=status, end_time=ended_ms)
        run.status = status

    def _delete(self, runs: Iterable[KnownRun]) -> None:
        from mlflow.exceptions import MlflowException

        for run in runs:
            try:
                self._client.delete_run(run.run_id)
            except MlflowException as error:  # not everybody may; a run too many holds nothing up
                log.warning(
                    "MLflow has made run %s twice and does not delete it: %s", run.run_id, first_line(error)
                )

    def _search(self) -> Iterator[tuple[int, KnownRun]]:
        token = None
        while True:
            page = self._client.search_runs(
                [self._experiment_id],
                filter_string=f"tags.`{STUDY_KEY}` = '{self._study_key}'",
                max_results=PAGE,
                page_token=token,
            )
            for run in page:
                tags = dict(run.data.tags)
                known = KnownRun(
                    run_id=run.info.run_id, status=run.info.status, params=dict(run.data.params),
                    metrics=dict(run.data.metrics), tags=tags,
                )  # fmt: skip
                yield int(tags.get(TRIAL, STUDY)), known
            token = page.token
            if not token:
                return


def _param(item: tuple[str, object]) -> tuple[str, str]:
    key, value = item
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return re.sub(r"[^\w./ -]", "_", key)[:MAX_KEY], _clipped(text, MAX_PARAM)


def _clipped(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _chunks(items: Mapping[str, str]) -> Iterator[dict[str, str]]:
    rest = iter(items.items())
    while chunk := dict(islice(rest, MAX_PER_BATCH)):
        yield chunk
