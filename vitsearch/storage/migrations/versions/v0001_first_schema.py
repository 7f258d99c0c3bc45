"""The first schema."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create all tables."""
    op.create_table(
        "studies",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.String(80), nullable=False, unique=True),
        sa.Column("job", sa.Text, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("data", sa.Text, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("elapsed_s", sa.Float, nullable=False),
        sa.Column("epoch", sa.Integer, nullable=False),
        sa.Column("owner", sa.String(120), nullable=False),
        sa.Column("lease_until", sa.Float, nullable=False),
    )
    op.create_table(
        "trials",
        sa.Column("study_id", sa.Integer, sa.ForeignKey("studies.id"), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("candidate_hash", sa.String(16), nullable=False),
        sa.Column("candidate", sa.Text, nullable=False),
        sa.Column("cost", sa.Text, nullable=False),
        sa.Column("draw", sa.Text, nullable=False),
        sa.Column("sampler_state", sa.Text, nullable=False),
        sa.Column("note", sa.Text, nullable=False),
        sa.Column("unmeasured", sa.Text, nullable=False),
        sa.Column("same_as", sa.Integer),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("worker", sa.String(64), nullable=False),
        sa.Column("lease_until", sa.Float, nullable=False),
        sa.Column("asked_at", sa.Float, nullable=False),
        sa.Column("finished_at", sa.Float),
    )
    op.create_index("ix_trials_hash", "trials", ["study_id", "candidate_hash"])
    trial_key = (["study_id", "trial"], ["trials.study_id", "trials.number"])
    op.create_table(
        "results",
        sa.Column("study_id", sa.Integer, primary_key=True),
        sa.Column("trial", sa.Integer, primary_key=True),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("figures", sa.Text, nullable=False),
        sa.ForeignKeyConstraint(*trial_key),
    )
    op.create_table(
        "profiles",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("study_id", sa.Integer, nullable=False),
        sa.Column("trial", sa.Integer, nullable=False),
        sa.Column("target", sa.String(64), nullable=False),
        sa.Column("profile", sa.Text, nullable=False),
        sa.ForeignKeyConstraint(*trial_key),
    )
    op.create_index("ix_profiles_trial", "profiles", ["study_id", "trial"])
    op.create_table(
        "finals",
        sa.Column("study_id", sa.Integer, primary_key=True),
        sa.Column("trial", sa.Integer, primary_key=True),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.ForeignKeyConstraint(*trial_key),
    )
    op.create_table(
        "outbox",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("study_id", sa.Integer, sa.ForeignKey("studies.id"), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("payload", sa.Text, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("delivered_at", sa.Float),
    )


def downgrade() -> None:
    """Drop all tables."""
    for table in ("outbox", "finals", "profiles", "results", "trials", "studies"):
        op.drop_table(table)
