"""Where a study keeps what its trials make."""

from __future__ import annotations

import logging
import shlex
from dataclasses import dataclass
from pathlib import Path

from vitsearch.artifacts import join, remove
from vitsearch.config import JobSpec
from vitsearch.errors import hide_password
from vitsearch.messages import CHECKPOINT_FILES

log = logging.getLogger(__name__)
SAMPLE_FILE = "validation_sample.npy"
_SCRATCH = "vitsearch-scratch-"


def scratch_prefix(study: str) -> str:
    """How the name of a folder begins in which a study is worked on that has none; a random word follows."""
    return f"{_SCRATCH}{study}-"


def is_scratch(out: Path) -> bool:
    """Whether a folder will be gone when the driver is."""
    return out.name.startswith(_SCRATCH)


def resume_command(out: Path) -> str:
    """What a person types to go on with a study: where it has no folder that stays, by its name."""
    if is_scratch(out):
        study = out.name.removeprefix(_SCRATCH).rpartition("-")[0]
        return f"vitsearch resume --study {study} (with --address of its cluster, or --database)"
    return f"vitsearch resume {shlex.quote(str(out))}"


def forget_checkpoints(place: str) -> None:
    """Delete what a trial would have gone on from, once its result is stored."""
    try:
        remove(place, [CHECKPOINT_FILES])
    except OSError as error:
        log.warning(
            "checkpoints in %s, which are not needed, could not be deleted: %s", hide_password(place), error
        )


@dataclass(frozen=True, kw_only=True)
class Places:
    """The places of one study.

    Attributes:
        root: A folder, or an address as ``storage.artifacts`` takes it.
    """

    root: str

    @classmethod
    def of(cls, job: JobSpec, out: Path) -> Places:
        """Those of a job: in its run's folder, or under its name in the job's store."""
        elsewhere = job.storage.artifacts
        return cls(root=str(out / "artifacts") if elsewhere is None else join(elsewhere, job.name))

    @property
    def trials(self) -> str:
        """Where trials have their folders, named by their numbers."""
        return join(self.root, "trials")

    def trial(self, number: int) -> str:
        """Where a trial keeps its weights."""
        return join(self.trials, f"{number:05d}")

    def final(self, number: int) -> str:
        """Where a retrained winner keeps its weights."""
        return join(self.root, "finals", f"{number:05d}")
