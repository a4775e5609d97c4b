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

"""Files between the harness and the processes it watches.

A process writes what happened, a JSON object a line, with the moment on the
monotonic clock, which all processes of a machine share. It is given orders,
a line each, by a named pipe.
"""

import json
import os
import select
import threading
import time


class Journal:
    """What a process has to tell."""

    def __init__(self, folder):
        # One write a line, at once: whoever is killed has told all.
        self._file = open(os.path.join(folder, "journal"), "ab", buffering=0)
        self._lock = threading.Lock()

    def tell(self, event, **fields):
        line = json.dumps({"at": time.monotonic(), "event": event} | fields)
        with self._lock:
            self._file.write(line.encode() + b"\n")


class Orders:
    """What a process is told to do."""

    def __init__(self, folder):
        # For writing as well: so it never ends.
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
