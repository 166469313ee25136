"""Run the migrations, one process at a time."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncConnection

_SCRIPTS = Path(__file__).parent / "migrations"
_LOCK = 0x0950CC1  # any number of our own: held only while migrations run


async def migrate(connection: AsyncConnection) -> None:
    """Bring the schema of this database to the newest revision."""
    await connection.run_sync(_upgrade)
    await connection.commit()


async def revision(connection: AsyncConnection) -> str | None:
    """Return the revision of this database's schema, or None where it has none."""
    return await connection.run_sync(lambda plain: MigrationContext.configure(plain).get_current_revision())


def newest_revision() -> str:
    """Return the revision that this version of the proposer works on."""
    newest = ScriptDirectory(str(_SCRIPTS)).get_current_head()
    assert newest is not None  # the migrations come with the package
    return newest


def _upgrade(connection: Connection) -> None:
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
