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


"""Measures what many computes cost a real Nova, by driver.

Usage: PYTHONPATH=. PYTHON tools/nova-rig/many.py [COUNT [DRIVER...]]

A driver that ends in "+", such as db+, has conductor write heartbeats
together. PYTHON is the one that has Nova, see tools/nova-env.sh. COUNT real
nova-compute services run in one process, on native threads, for each driver;
what a Nova without them costs is subtracted. The figures are printed as JSON,
a line a driver.
"""

import json
import os
import statistics
import sys
import time

from tests.fixtures import novarig, process
from tests.fixtures.novarig import cloud as novarig_cloud
from tests.fixtures.novarig import site as novarig_site
from tests.nova import base

INTERVAL = 5
SECONDS = int(os.environ.get("NOVA_RIG_SECONDS", "20"))
OPTIONS = """\
[DEFAULT]
periodic_enable = false
[scheduler]
discover_hosts_in_cells_interval = 3600
[oslo_messaging_rabbit]
rpc_conn_pool_size = 60
"""
COALESCE = "[servicegroup]\ncoalesce_reports = true\n"
TICKS = os.sysconf("SC_CLK_TCK")


def main():
    count = int(sys.argv[1]) if sys.argv[1:] else 200
    drivers = sys.argv[2:] or novarig_cloud.DRIVERS
    with novarig.Site(sys.executable) as site:
        for driver in drivers:
            together = COALESCE if driver.endswith("+") else ""
            with novarig.Cloud(
                site,
                driver.rstrip("+"),
                report_interval=INTERVAL,
                service_down_time=30,
                options=OPTIONS + together,
            ) as cloud:
                figures = {"driver": driver, **_measure(cloud, count)}
                print(json.dumps(figures), flush=True)
            # The next Nova would list them as down.
            for table in ("services", "compute_nodes"):
                site.mariadb.execute(
                    f"DELETE FROM {table} WHERE host LIKE 'many%%'",
                    database="nova",
                )


def _measure(cloud, count):
    before = _cost(cloud, None)
    many = novarig.Many(cloud, count)
    try:

        def up():
            states = cloud.states("nova-compute").values()
            return list(states).count("up") >= count

        process.wait_for(up, 120, cloud.log_tails)
        # Nova's first report comes five seconds after it has joined.
        time.sleep(INTERVAL + 1)
        during = _cost(cloud, many.pid)
        reports = count / INTERVAL * SECONDS
        answers = []
        for _ in range(20):
            begun = time.perf_counter()
            services = cloud.get("/os-services")["services"]
            answers.append((time.perf_counter() - begun) * 1e3)
        states = [service["state"] for service in services]
        filtered = base.read_json(
            cloud.site.run(
                "python",
                os.path.join(novarig_site.LIB, "novarig_filter.py"),
                *("--config-file", cloud.config("scheduler")),
            )
        )
    finally:
        many.kill()
    return {
        "reports": reports,
        **{
            f"{name}_per_report": round(
                (during[name] - before.get(name, 0)) / reports, 3
            )
            for name in during
        },
        "os_services_first_ms": round(answers[0], 1),
        "os_services_ms": round(statistics.median(answers[1:]), 1),
        "up": states.count("up"),
        "filter": filtered,
    }


def _cost(cloud, many):
    """Return what is used in SECONDS: milliseconds, and statements."""
    processes = {
        "conductor_ms": base.family(cloud.conductor.pid),
        "mariadb_ms": [cloud.site.mariadb.pid],
        "rabbitmq_ms": base.family(cloud.site.rabbitmq.pid),
    }
    if many is not None:
        processes["computes_ms"] = [many]

    def used():
        found = {
            name: sum(map(_cpu, pids)) / TICKS * 1e3
            for name, pids in processes.items()
        }
        [[_, questions]] = cloud.site.mariadb.execute(
            "SHOW GLOBAL STATUS LIKE 'Questions'"
        )
        return {**found, "statements": int(questions)}

    before = used()
    time.sleep(SECONDS)
    after = used()
    return {name: after[name] - before[name] for name in after}


def _cpu(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            columns = stat.read().rpartition(")")[2].split()
    except FileNotFoundError:
        # RabbitMQ runs helpers that live for a moment.
        return 0
    return int(columns[11]) + int(columns[12])


if __name__ == "__main__":
    main()
