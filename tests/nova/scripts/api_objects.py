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


"""Loads nova-api into this process and prints what nova_sg adds to it.

Usage: python api_objects.py, with the environment of the WSGI API.
"""

import gc
import glob
import json
import os
import sys
import threading
import time

import nova.wsgi.osapi_compute as loaded  # isort: skip

import sqlalchemy as sa
from nova import context, objects, servicegroup

statements = []


def main():
    api = servicegroup.API
    found = [
        one
        for one in gc.get_objects()
        if type(one) is api and one is not loaded
    ]
    result = {
        "module": api.__module__,
        "objects": len(found),
        "eventlet": "eventlet" in sys.modules,
        "before": resources(),
        "imported": "nova_sg.servicegroup" in sys.modules,
    }
    begun = time.thread_time()
    for _ in range(1000):
        api()
    result["microseconds"] = (time.thread_time() - begun) * 1000
    result["constructed"] = resources()
    services = list(objects.ServiceList.get_all(context.get_admin_context()))
    sa.event.listen(
        sa.Engine,
        "before_cursor_execute",
        lambda *arguments: statements.append(arguments[2]),
    )
    result["up"] = sorted({answers(one, services) for one in found[:100]})
    result["statements"] = len(statements)
    result["asked"] = resources()
    if result["imported"]:
        from nova_sg.servicegroup import process

        result["shared"] = len(process._shared)
    result["child"] = in_child(found[0], services)
    print(json.dumps(result))


def answers(api, services):
    return " ".join(
        f"{service.binary}={api.service_is_up(service)}"
        for service in sorted(services, key=lambda one: one.binary)
        if service.binary != "nova-osapi_compute"
    )


def resources():
    """Count the threads and the sockets of this process."""
    sockets = 0
    for link in glob.glob("/proc/self/fd/*"):
        try:
            sockets += os.readlink(link).startswith("socket:")
        except OSError:
            pass
    return {"threads": threading.active_count(), "sockets": sockets}


def in_child(api, services):
    """Ask in a process that forks from this one."""
    reading, writing = os.pipe()
    if os.fork() == 0:
        try:
            text = answers(api, services)
        except BaseException as error:
            text = repr(error)
        os.write(writing, text.encode())
        os._exit(0)
    os.close(writing)
    with open(reading) as pipe:
        text = pipe.read()
    os.wait()
    return text


if __name__ == "__main__":
    main()
