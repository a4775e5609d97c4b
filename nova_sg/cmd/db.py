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

"""nova-sg db sync."""

from __future__ import annotations

import argparse

from nova_sg.backends.db import engine, schema
from nova_sg.cmd import commands, progress
from nova_sg.conf import CONF


class Sync(commands.Command):
    """Create the services table, or bring it up to date.

    A table that is Nova's is left alone.
    """

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        database = engine.Database(engine.url())
        try:
            with progress.Progress() as shown:
                shown.step(f"Looking at {database.name}")
                if not CONF.database.connection:
                    schema.create_embedded(database)
                revision = schema.sync(
                    database,
                    lambda name: shown.step(
                        f"{database.name} is at revision {name} now"
                    ),
                )
        finally:
            database.close()
        print(
            f"{database.name} is at revision {revision}", file=self.app.stdout
        )
