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

"""Measures the costs of many computes of a real Nova, for each driver.

Run by tools/nova-rig.sh many. Real nova-compute services run in one process,
on native threads. Each driver is measured in turn, Nova's own included, and
all of them again in each round. The medians are printed as tables: the cost of
one heartbeat, without that of a Nova that has no such computes, and the cost
of asking about all of them.
"""

import argparse
import os
import statistics
import sys
import time

from bench import machine, rows

from nova_sg.cmd import progress
from tests.fixtures import novarig, process
from tests.fixtures.novarig import proc
from tests.fixtures.novarig import site as novarig_site
from tests.nova import base

# Seconds between two heartbeats of a compute.
INTERVAL = 5
# Requests to the API.
REQUESTS = 40
OPTIONS = """\
[DEFAULT]
periodic_enable = false
[scheduler]
discover_hosts_in_cells_interval = 3600
[oslo_messaging_rabbit]
rpc_conn_pool_size = 60
"""
# The option of our db driver unless its name ends with "+", the default.
ALONE = "[servicegroup]\ncoalesce_reports = false\n"
TICKS = os.sysconf("SC_CLK_TCK")

#: The drivers' names in the tables. The first word is the project.
NAMES = {
    "stock": "nova db",
    "stock-mc": "nova mc",
    "db": "nova_sg db",
    "db+": "nova_sg db+",
    "mc": "nova_sg mc",
    "zk": "nova_sg zk",
}
#: The drivers that are compared with each of Nova's.
TABLES = {
    "Nova's db driver": ("stock", "db", "db+", "mc", "zk"),
    "Nova's mc driver": ("stock-mc", "mc", "zk"),
}
UNITS = {"SQL statements": ""}


def main():
    options = _parse()
    for name, value in machine.facts().items():
        print(f"{name}: {value}")
    measured = []
    steps = [
        (number + 1, driver)
        for number in range(options.rounds)
        # Each round begins with another: what the one before has left behind,
        # such as queues, is not always to the cost of the same drivers.
        for driver in _rotated(options.driver, number)
    ]
    with progress.Progress() as shown, novarig.Site(sys.executable) as site:
        for done, (number, driver) in enumerate(steps):
            shown.step(
                f"round {number} of {options.rounds}: {driver}",
                done,
                len(steps),
            )
            figures = _measure_driver(site, driver, options)
            measured += _rows(driver, figures, options.count)
    print(f"\n{rows.tables(rows.merge(measured))}")


def _rotated(drivers, by):
    by %= len(drivers)
    return [*drivers[by:], *drivers[:by]]


def _parse():
    parser = argparse.ArgumentParser(prog="tools/nova-rig.sh many")
    parser.add_argument(
        "--count",
        type=int,
        default=200,
        help="computes (default: %(default)s)",
    )
    parser.add_argument(
        "--driver",
        action="append",
        choices=list(NAMES),
        help="measure only this driver; may be repeated. db is without, "
        "db+ with heartbeats that conductor writes together",
    )
    parser.add_argument(
        "--rounds",
        type=int,
        default=3,
        help="measure everything so many times and print the medians "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--seconds",
        type=int,
        default=20,
        help="for how long heartbeats are counted, a multiple of "
        f"{INTERVAL} (default: %(default)s)",
    )
    options = parser.parse_args()
    options.driver = options.driver or list(NAMES)
    if options.seconds % INTERVAL:
        parser.error(f"--seconds has to be a multiple of {INTERVAL}")
    return options


def _measure_driver(site, driver, options):
    try:
        with novarig.Cloud(
            site,
            driver.rstrip("+"),
            report_interval=INTERVAL,
            service_down_time=30,
            options=OPTIONS + (ALONE if driver == "db" else ""),
        ) as cloud:
            return _measure(cloud, options)
    finally:
        # Otherwise the next Nova would list them as down.
        for table in ("services", "compute_nodes"):
            site.mariadb.execute(
                f"DELETE FROM {table} WHERE host LIKE 'many%%'",
                database="nova",
            )


def _measure(cloud, options):
    before = _cost(cloud, None, options.seconds)
    many = novarig.Many(cloud, options.count)
    try:

        def up():
            states = cloud.states("nova-compute").values()
            return list(states).count("up") > options.count

        process.wait_for(up, 300, cloud.log_tails)
        # Nova's first report comes five seconds after it has joined.
        time.sleep(INTERVAL + 1)
        during = _cost(cloud, many.pid, options.seconds)
        heartbeats = options.count * options.seconds / INTERVAL
        return {
            **{
                f"a heartbeat: {name}": (during[name] - before.get(name, 0))
                / heartbeats
                for name in during
            },
            **_ask(cloud, options.count),
        }
    finally:
        many.kill()


def _ask(cloud, count):
    """Return the times of the API and of a scheduler's filter, for all."""
    pids = proc.family(cloud.api.pid)
    used = _cpu(pids)
    answers = []
    for _ in range(REQUESTS):
        begun = time.perf_counter()
        services = cloud.get("/os-services")["services"]
        answers.append((time.perf_counter() - begun) * 1e3)
        down = [one["host"] for one in services if one["state"] != "up"]
        if down or len(services) < count:
            raise AssertionError(f"{len(services)} services, down: {down}")
    used = _cpu(pids) - used
    filtered = base.read_json(
        cloud.site.run(
            "python",
            os.path.join(novarig_site.LIB, "novarig_filter.py"),
            *("--config-file", cloud.config("scheduler")),
        )
    )
    if not count < filtered["hosts"] == filtered["passed"]:
        raise AssertionError(f"not all hosts pass the filter: {filtered}")
    return {
        "GET /os-services": statistics.median(answers),
        "GET /os-services: the API's CPU": used / REQUESTS,
        "ComputeFilter, all hosts: first": filtered["first"],
        "ComputeFilter, all hosts": filtered["median"],
        "ComputeFilter, all hosts: CPU": filtered["cpu"],
    }


def _cost(cloud, many, seconds):
    """Return the CPU time, in ms, and the statements in so many seconds."""
    site = cloud.site
    processes = {
        "the conductor's CPU": proc.family(cloud.conductor.pid),
        "RabbitMQ's CPU": proc.family(site.rabbitmq.pid),
        "MariaDB's CPU": [site.mariadb.pid],
    }
    servers = {
        "stock-mc": lambda: site.memcached,
        "mc": lambda: site.memcached,
        "zk": lambda: site.zookeeper.servers,
    }.get(cloud.driver, list)
    processes["memcached's, ZooKeeper's CPU"] = [
        server.pid for server in servers()
    ]
    if many is not None:
        processes["the computes' CPU"] = [many]

    def used():
        [[_, questions]] = site.mariadb.execute(
            "SHOW GLOBAL STATUS LIKE 'Questions'"
        )
        return {
            "SQL statements": int(questions),
            **{name: _cpu(pids) for name, pids in processes.items()},
        }

    before = used()
    time.sleep(seconds)
    after = used()
    return {name: after[name] - before[name] for name in after}


def _cpu(pids):
    """Return the CPU time that processes have used, in milliseconds."""
    ticks = 0
    for pid in pids:
        try:
            with open(f"/proc/{pid}/stat") as stat:
                columns = stat.read().rpartition(")")[2].split()
        except FileNotFoundError:
            # It has ended, like RabbitMQ's short-lived helpers.
            continue
        ticks += int(columns[11]) + int(columns[12])
    return ticks / TICKS * 1e3


def _rows(driver, figures, count):
    return [
        rows.Row(
            name,
            NAMES[driver],
            # A cost of nothing may be a little below zero.
            max(0, figure),
            UNITS.get(name.rpartition(": ")[2], "ms"),
            backend=f"{count} computes, {beside}",
            mode="threads",
        )
        for beside, drivers in TABLES.items()
        if driver in drivers
        for name, figure in figures.items()
    ]


if __name__ == "__main__":
    main()
