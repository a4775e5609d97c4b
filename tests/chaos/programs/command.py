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

"""A command of operators, run once: nova-sg with the order's arguments.

Its output is the file "out". "prepare" instead makes the table.
"""

import os
import sys

from nova_sg.backends.db import engine, schema
from nova_sg.cmd import shell


def main(stack, order):
    folder = order["folder"]
    if order["arguments"] == ["prepare"]:
        stack.Stack(folder, order["group"], [])
        database = engine.Database(engine.url())
        schema.sync(database)
        database.close()
        status = 0
    else:
        path = os.path.join(folder, "part")
        # A new session's standard output is the file of its log.
        sys.stdout.flush()
        output = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        status = shell.main(
            [
                *("--config-file", os.path.join(folder, "service.conf")),
                *order["arguments"],
            ]
        )
        sys.stdout.flush()
        os.rename(path, os.path.join(folder, "out"))
    with open(os.path.join(folder, "status"), "w") as file:
        file.write(str(status))
