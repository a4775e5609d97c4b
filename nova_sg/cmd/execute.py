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

"""nova-sg-exec COMMAND ...: runs one command, with nova_sg inside Nova.

With --guard it stays, as the command's parent and crash guard.
"""

from __future__ import annotations

import os
import sys

from nova_sg.guard import parent
from nova_sg.nova import startup

PROG = "nova-sg-exec"
USAGE = f"""\
usage: {PROG} [--guard] COMMAND [ARGUMENT ...]

Runs one command, and the processes that it starts, with nova_sg as Nova's
servicegroup: nova-compute, a WSGI server, python -m unittest nova.tests...
In nova.conf it needs servicegroup_driver and the options of the driver only.

--guard    Stay as the parent of the command: forward signals, wait for its
           end, withdraw at once what it had joined if it ended without
           leaving, and end with its status. For a container, whose first
           process this may be, and for services.
"""


def main(arguments: list[str] | None = None) -> int:
    """Become the command, or its parent; return its exit status."""
    if arguments is None:
        arguments = sys.argv[1:]
    guard = arguments[:1] == ["--guard"]
    command = arguments[guard:]
    if command[:1] in (["-h"], ["--help"]):
        print(USAGE, end="")
        return 0
    if not command or command[0].startswith("-"):
        print(USAGE, end="", file=sys.stderr)
        return 2
    # At its start Python imports the first sitecustomize on its path.
    path = [os.path.dirname(startup.__file__)]
    if os.environ.get("PYTHONPATH"):
        path.append(os.environ["PYTHONPATH"])
    os.environ["PYTHONPATH"] = os.pathsep.join(path)
    try:
        if guard:
            return parent.run(command)
        os.execvp(command[0], command)
    except OSError as error:
        print(f"{PROG}: {command[0]}: {error.strerror}", file=sys.stderr)
        return 127


if __name__ == "__main__":
    sys.exit(main())
