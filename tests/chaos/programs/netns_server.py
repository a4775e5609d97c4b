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

"""Forks the processes of hosts and controllers, each into its namespace.

Usage: netns_server.py STACK MODE; STACK is ours, stock or inside, MODE is
threads or eventlet. It is like tests/faults/programs/fork_server.py, of which
it uses the parts.
"""

import ctypes
import json
import os
import signal
import sys

_HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.append(
    os.path.join(os.path.dirname(os.path.dirname(_HERE)), "faults", "programs")
)

import fork_server  # noqa: E402

_CLONE_NEWNET = 0x40000000


class _InNamespace:
    """A program that enters the namespace of its order first."""

    def __init__(self, program):
        self._program = program

    def main(self, stack, order):
        with open(order["namespace"]) as file:
            libc = ctypes.CDLL(None, use_errno=True)
            if libc.setns(file.fileno(), _CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "setns failed")
        self._program.main(stack, order)


_PROGRAMS = {
    "ours": ("command", "controller", "host"),
    "stock": ("stock_host", "stock_observer"),
    "inside": ("inside_observer",),
}


def main(stack, mode):
    if mode == "eventlet":
        from nova_sg import monkey_patch

        monkey_patch.patch()
    elif stack != "ours":
        os.environ["OS_NOVA_DISABLE_EVENTLET_PATCHING"] = "true"
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    names, stack = _PROGRAMS[stack], __import__(stack)
    programs = {name: _InNamespace(__import__(name)) for name in names}
    os.write(1, b"ready\n")
    rest = b""
    while True:
        # Not by a green read: see fork_server.py.
        chunk = os.read(0, 65536)
        if not chunk:
            return
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            order = json.loads(line)
            pid = os.fork()
            if pid == 0:
                fork_server._child(programs[order["program"]], stack, order)
            os.write(1, f"{pid}\n".encode())


if __name__ == "__main__":
    main(*sys.argv[1:])
