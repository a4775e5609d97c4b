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

"""How the harness and the processes that it watches talk to each other.

A process writes events into a file, one JSON object a line. Each has its
moment on the monotonic clock, which all processes of a machine share. The
process reads orders, one a line, from a named pipe.
"""

import json
import os
import select
import threading
import time


class Journal:
    """The events of a process."""

    def __init__(self, folder):
        # Unbuffered: a process that is killed has written all its events.
        self._file = open(os.path.join(folder, "journal"), "ab", buffering=0)
        self._lock = threading.Lock()

    def tell(self, event, **fields):
        line = json.dumps({"at": time.monotonic(), "event": event} | fields)
        with self._lock:
            self._file.write(line.encode() + b"\n")


class Orders:
    """The orders for a process."""

    def __init__(self, folder):
        # Opened for writing, too: a pipe without a writer is at its end.
        path = os.path.join(folder, "orders")
        self._pipe = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        self._rest = b""

    def next(self, timeout=None):
        """Return the words of the next order; None: there is none yet.

        :param timeout: seconds to wait; None: for ever
        """
        while b"\n" not in self._rest:
            if not select.select([self._pipe], [], [], timeout)[0]:
                return None
            self._rest += os.read(self._pipe, 4096)
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode().split()
