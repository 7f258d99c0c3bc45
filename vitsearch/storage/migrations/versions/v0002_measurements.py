"""Measurements that other studies may use again."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add their table, and what the first schema lacked on its first day."""
    op.create_table(
        "measurements",
        sa.Column("key", sa.String(64), primary_key=True),
        sa.Column("profile", sa.Text, nullable=False),
        sa.Column("measured_at", sa.Float, nullable=False),
    )
    if "unmeasured" not in {column["name"] for column in sa.inspect(op.get_bind()).get_columns("trials")}:
        op.add_column("trials", sa.Column("unmeasured", sa.Text, nullable=False, server_default=""))
