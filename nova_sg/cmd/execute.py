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

"""nova-sg-exec COMMAND ...: runs one command, with nova_sg inside Nova."""

from __future__ import annotations

import os
import sys

from nova_sg.nova import startup

PROG = "nova-sg-exec"
USAGE = f"""\
usage: {PROG} COMMAND [ARGUMENT ...]

Runs one command, and the processes that it starts, with nova_sg as Nova's
servicegroup: nova-compute, a WSGI server, python -m unittest nova.tests...
In nova.conf it needs servicegroup_driver and the options of the driver only.
"""


def main(arguments: list[str] | None = None) -> int:
    """Become the command; return only if that fails."""
    if arguments is None:
        arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE, end="", file=sys.stdout if arguments else sys.stderr)
        return 0 if arguments else 2
    # At its start Python imports the first sitecustomize on its path.
    path = [os.path.dirname(startup.__file__)]
    if os.environ.get("PYTHONPATH"):
        path.append(os.environ["PYTHONPATH"])
    os.environ["PYTHONPATH"] = os.pathsep.join(path)
    try:
        os.execvp(arguments[0], arguments)
    except OSError as error:
        print(f"{PROG}: {arguments[0]}: {error.strerror}", file=sys.stderr)
        return 127


if __name__ == "__main__":
    sys.exit(main())
