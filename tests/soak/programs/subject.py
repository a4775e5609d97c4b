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

"""The process that is watched: members join and leave in it, and it observes.

Usage: subject.py MODE ORDER; MODE is threads or eventlet, ORDER is JSON with
the folder, the group and the hosts that it asks about. Its orders are: join,
leave, forget, drain, unwell and well, each with the names of members; ask;
sample. Each ends with an entry in its journal.
"""

import collections
import faulthandler
import gc
import json
import os
import sys
import tracemalloc

_FAULTS = os.path.join(
    os.path.dirname(os.path.abspath(__file__)),
    *("..", "..", "faults", "programs"),
)


def main(mode, order):
    folder, group, hosts = order["folder"], order["group"], order["hosts"]
    log = os.open(
        os.path.join(folder, "log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND
    )
    os.dup2(log, 1)
    os.dup2(log, 2)
    faulthandler.enable()
    if mode == "eventlet":
        from nova_sg import monkey_patch

        monkey_patch.patch()
    sys.path.append(_FAULTS)
    import journal
    import ours

    from nova_sg import exception, servicegroup

    book = journal.Journal(folder)
    orders = journal.Orders(folder)
    stack = ours.Stack(folder, group, hosts)
    stack.prepare([])
    api = servicegroup.API()
    shared = api._driver.shared()
    events = collections.Counter()

    def count(event):
        events[event.type] += 1

    api.watch(group, count)
    does = {
        "join": stack.join,
        "leave": lambda host: api.leave(host, group),
        "forget": lambda host: api.forget(host, group),
        "drain": lambda host: shared.drain(host, group),
        "unwell": lambda host: shared.unwell(host, group, "its disk is full"),
        "well": lambda host: shared.unwell(host, group, ""),
    }
    book.tell("ready")
    while True:
        what, *names = orders.next()
        found = {}
        if what == "ask":
            found["letters"] = stack.ask(hosts)
        elif what == "sample":
            found |= _inventory(folder) | {"events": dict(events)}
        for name in names:
            try:
                does[what](name)
            except exception.NovaSGError as error:
                # The run tries again.
                found["error"] = f"{name}: {error}"
        book.tell("done", order=what, **found)


def _inventory(folder):
    """Return what the process has now, by name."""
    gc.collect()
    found = {
        "memory": _private() / 1024,
        "blocks": sys.getallocatedblocks(),
        "descriptors": len(os.listdir("/proc/self/fd")),
        "threads": len(os.listdir("/proc/self/task")),
        "files": sum(len(files) for _, _, files in os.walk(folder)),
        "log": os.fstat(1).st_size,
    }
    if tracemalloc.is_tracing():
        # With PYTHONTRACEMALLOC=1: what Python's own objects take.
        found["traced"] = tracemalloc.get_traced_memory()[0] / 1e6
    greenlet = sys.modules.get("greenlet")
    if greenlet is not None:
        found["green threads"] = sum(
            isinstance(thing, greenlet.greenlet) and not thing.dead
            for thing in gc.get_objects()
        )
    return found


def _private():
    """Return the memory that this process alone has, in kilobytes."""
    with open("/proc/self/smaps_rollup") as file:
        for line in file:
            if line.startswith("Private_Dirty:"):
                return int(line.split()[1])
    raise AssertionError("the kernel shows no Private_Dirty")


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
