"""${message}."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
${imports if imports else ""}
revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Copies of the tables at that revision; a revision must not import code that may change."""
    ${upgrades if upgrades else "pass"}


def downgrade() -> None:
    """The way back is a backup."""
    raise NotImplementedError("restore a backup made before the upgrade")
