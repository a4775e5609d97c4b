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

"""Starts like a service of Nova's with nova_sg's mc driver, and joins.

Usage: python follow.py SERVICE GROUP --config-file FILE

SERVICE is "scheduler", which has made ComputeFilter before its workers were
forked, or "compute". Without reports it is no member. Prints, as JSON, for
how many groups it has a view, and how many members these know, before it has
been asked; and, for the scheduler, the hosts that pass its filter then, and
how many refreshes that took.
"""

import json
import os
import sys
import time
import types

from nova import monkey_patch

monkey_patch.patch(backend="threading")

from nova import config, servicegroup  # noqa: E402
from nova.scheduler.filters import compute_filter  # noqa: E402
from oslo_log import log as logging  # noqa: E402

SERVICE, GROUP = sys.argv[1:3]
del sys.argv[1:3]
HOSTS = ("one", "two", "three")


def worker():
    from nova_sg.servicegroup import process

    # It has no reports, and so is no member.
    service = types.SimpleNamespace(
        report_interval=0, service_ref=None, host="ctl", topic=SERVICE
    )
    begun = time.monotonic()
    servicegroup.API().join("ctl", SERVICE, service)
    found = {"join": time.monotonic() - begun}
    time.sleep(2)
    (shared,) = process.in_use()
    views = list(shared._views.values())
    found["views"] = {view.group: view.size() for view in views}
    if SERVICE == "scheduler":
        (status,) = views[0].refresh_statuses()
        # The next refresh comes in an hour.
        before = status.refreshes
        hosts = [
            types.SimpleNamespace(
                service={"host": host, "topic": GROUP, "disabled": False}
            )
            for host in HOSTS
        ]
        try:
            found["passed"] = [
                host.service["host"]
                for host in hosts
                if only.host_passes(host, None)
            ]
        except Exception as error:
            found["error"] = type(error).__name__
        found["refreshes"] = status.refreshes - before
    print(json.dumps(found), flush=True)
    os._exit(0)


config.parse_args(sys.argv, configure_db=False, init_rpc=False)
logging.setup(config.CONF, "nova")
only = compute_filter.ComputeFilter() if SERVICE == "scheduler" else None
pid = os.fork()
if pid:
    os.waitpid(pid, 0)
else:
    worker()
