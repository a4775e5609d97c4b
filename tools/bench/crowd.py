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

"""Members that an observer follows, all of one session.

At a line on the standard input they join, so many a second or, with 0, as fast
as the server takes it. At another line they leave. After each a line on the
standard output has the moment, on the monotonic clock, which all processes
share.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable

from nova_sg import evzookeeper, zookeeper


def main(where: str, path: str, count: int, pace: float) -> None:
    """Join and leave."""
    session = evzookeeper.ZKSession(where, 60, 30000)
    handle, session_id = session.connected_handle(60)
    paths = [
        f"{path}/node-{number:05}.example.org@{session_id:x}"
        for number in range(count)
    ]
    acl = [evzookeeper.ZOO_OPEN_ACL_UNSAFE]
    print("ready", flush=True)
    for start in (
        lambda name, done: zookeeper.acreate(
            handle, name, "", acl, zookeeper.EPHEMERAL, done
        ),
        lambda name, done: zookeeper.adelete(handle, name, -1, done),
    ):
        sys.stdin.readline()
        _all(paths, start, pace)
        print(time.monotonic(), flush=True)
    # Wait for the end of the measurement, which must not include this
    # process's end.
    sys.stdin.readline()


def _all(paths: list[str], start: Callable, pace: float) -> None:
    left = len(paths)
    done = threading.Event()

    def answered(handle: int, rc: int, *value: object) -> None:
        nonlocal left
        if rc == zookeeper.OK:
            left -= 1
        if not left:
            done.set()

    begin = time.monotonic()
    for number, path in enumerate(paths):
        if pace:
            time.sleep(max(0.0, begin + number / pace - time.monotonic()))
        start(path, zookeeper.Immediate(answered))
    if not done.wait(120):
        raise AssertionError(f"{left} of {len(paths)} were not answered")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))
