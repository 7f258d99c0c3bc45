"""The base of every part of a job: frozen, closed, keyword-only."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Address = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9+.-]*://\S+$")]
"""What fsspec reaches: ``s3://BUCKET/FILE``, ``https://HOST/FILE``."""
Place = Address | Path
"""A path of this machine, or an address; paths may be relative to the job's file."""


class Spec(BaseModel):
    """A frozen record that refuses unknown keys, NaN and infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
