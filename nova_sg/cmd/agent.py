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

"""nova-sg-agent: joins a group for this host and reports its state."""

import sys

from nova_sg.cmd import entry

# Until the launcher takes over there is nothing to leave.
entry.end_quietly(0)
entry.keep_hangup()

# Before anything else is imported.
from nova_sg import monkey_patch  # noqa: E402

monkey_patch.choose(sys.argv[1:])

from nova_sg import service  # noqa: E402
from nova_sg.cmd import daemon  # noqa: E402
from nova_sg.conf import base  # noqa: E402

PROG = "nova-sg-agent"


def main(arguments: list[str] | None = None) -> int:
    """Run the agent until it is told to stop; return the exit status."""
    return daemon.run(PROG, arguments, base.CLI_OPTS, service.Service.create)


if __name__ == "__main__":
    sys.exit(main())
