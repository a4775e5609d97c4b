# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.

"""Creating and upgrading the services table, with alembic.

Never on a database in which the table is somebody else's: Nova's tables are
changed by nova-manage alone.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable

import sqlalchemy as sa

from nova_sg import exception
from nova_sg.backends.db import engine, models

# Apart from alembic's own default name, which is Nova's in Nova's databases.
VERSION_TABLE = "nova_sg_alembic_version"

MISSING = "missing"
OURS = "ours"
FOREIGN = "foreign"


def owner(database: engine.Database) -> str:
    """Return whose the services table is: MISSING, OURS or FOREIGN.

    :raises BackendError: the database cannot be asked
    """

    def look(connection: sa.Connection) -> str:
        inspector = sa.inspect(connection)
        if inspector.has_table(VERSION_TABLE):
            return OURS
        if inspector.has_table(models.services.name):
            return FOREIGN
        return MISSING

    return database.run(look)


def sync(
    database: engine.Database, tell: Callable[[str], None] = lambda name: None
) -> str:
    """Create the table, or bring it up to date.

    :param tell: called with each revision once the database is at it
    :returns: the revision that the database is at now
    :raises ConfigError: the table belongs to Nova, or to somebody else
    :raises BackendError: the database cannot be asked
    """
    if owner(database) == FOREIGN:
        raise exception.ConfigError(
            f"The services table of {database.name} was not made by nova_sg "
            "and is left alone. If it is Nova's, nothing needs to be done: "
            "it can be used as it is. Otherwise point [database] connection "
            "at a database of nova_sg's own"
        )
    # Slow to import, and needed here alone.
    from alembic import command, config
    from alembic.runtime import migration

    settings = config.Config()
    settings.set_main_option(
        "script_location",
        os.path.join(os.path.dirname(__file__), "migrations"),
    )

    def upgrade(connection: sa.Connection) -> str:
        settings.attributes.update(connection=connection, tell=tell)
        command.upgrade(settings, "head")
        context = migration.MigrationContext.configure(
            connection, opts={"version_table": VERSION_TABLE}
        )
        return context.get_current_revision()

    return database.run(upgrade)


def create_embedded(database: engine.Database) -> None:
    """Create the SQLite database that is used when none is configured.

    Several processes may do so at once.

    :raises ConfigError: the folder cannot be written to
    """
    path = database.url.database
    folder = os.path.dirname(path)
    try:
        os.makedirs(folder, exist_ok=True)
        with open(path + ".lock", "a") as lock:
            while not _lock(lock):
                time.sleep(0.02)
            if owner(database) == MISSING:
                sync(database)
    except OSError as error:
        raise exception.ConfigError(
            f"[DEFAULT] state_path: cannot keep a database in {folder}: "
            f"{error.strerror}. Make the folder writable, choose another, or "
            "set [database] connection"
        ) from error


def _lock(file) -> bool:
    # Waiting in the kernel would stop all green threads.
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
