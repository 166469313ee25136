"""Run the migrations, one process at a time."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncConnection

_LOCK = 0x0950CC1  # any number of our own: held only while migrations run


async def migrate(connection: AsyncConnection) -> None:
    """Bring the schema of this database to the newest revision."""
    await connection.run_sync(_upgrade)
    await connection.commit()


def _upgrade(connection: Connection) -> None:
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
