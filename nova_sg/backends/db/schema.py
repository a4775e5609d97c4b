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

Only a table that nova_sg created is changed: only nova-manage may change
Nova's tables.
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

#: The newest revision of the table.
HEAD = "0004"

MISSING = "missing"
OURS = "ours"
FOREIGN = "foreign"


def owner(database: engine.Database) -> str:
    """Return to which program the services table belongs.

    :returns: OURS, FOREIGN or MISSING
    :raises BackendError: the database does not answer
    """

    def find_owner(connection: sa.Connection) -> str:
        inspector = sa.inspect(connection)
        if inspector.has_table(VERSION_TABLE):
            return OURS
        if inspector.has_table(models.services.name):
            return FOREIGN
        return MISSING

    return database.run(find_owner)


def revision(database: engine.Database) -> str | None:
    """Return the revision of a table of nova_sg's own; None: not known.

    :raises BackendError: the database does not answer, or this user may not
        read it
    """
    version = sa.Table(VERSION_TABLE, sa.MetaData(), sa.Column("version_num"))
    return database.run(lambda c: c.execute(sa.select(version)).scalar())


def sync(
    database: engine.Database,
    tell: Callable[[str], None] = lambda name: None,
    revision: str = "head",
) -> str:
    """Create the table, or upgrade it.

    :param tell: called with each revision after its migration
    :param revision: the one to upgrade to
    :returns: the revision of the database now
    :raises ConfigError: the table belongs to Nova, or to another program
    :raises BackendError: the database does not answer
    """
    if owner(database) == FOREIGN:
        raise exception.ConfigError(
            f"The services table of {database.name} was not made by nova_sg "
            "and is left alone. If it is Nova's, nothing needs to be done: "
            "it can be used as it is. Otherwise point [database] connection "
            "at a database of nova_sg's own"
        )
    # Imported here, as it is slow and not used elsewhere.
    from alembic import command, config
    from alembic.runtime import migration

    settings = config.Config()
    settings.set_main_option(
        "script_location",
        os.path.join(os.path.dirname(__file__), "migrations"),
    )

    def upgrade(connection: sa.Connection) -> str:
        settings.attributes.update(connection=connection, tell=tell)
        command.upgrade(settings, revision)
        context = migration.MigrationContext.configure(
            connection, opts={"version_table": VERSION_TABLE}
        )
        return context.get_current_revision()

    return database.run(upgrade)


def create_embedded(database: engine.Database) -> None:
    """Create the SQLite database that is used if none is configured.

    Several processes may do this at the same time.

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
    # Without waiting in the kernel, which would block all green threads.
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
