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


"""Starts a real Nova on this machine, with nova_sg or without.

Run by tools/nova-rig.sh, with the Python of an environment with Nova. Its
parts are in tests/fixtures/novarig.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile

from tests.fixtures import novarig
from tests.fixtures.novarig import cloud as novarig_cloud

_COLUMNS = ("binary", "host", "zone", "status", "state", "updated_at")


def main():
    arguments = _parse()
    if arguments.folder:
        tempfile.tempdir = os.path.abspath(arguments.folder)
        os.makedirs(tempfile.tempdir, exist_ok=True)
    for signo in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signo, _interrupt)
    try:
        return _run(arguments)
    except KeyboardInterrupt:
        return 130
    except AssertionError as error:
        print(f"nova-rig: {error}", file=sys.stderr)
        return 1


def _parse():
    parser = argparse.ArgumentParser(prog="tools/nova-rig.sh")
    parser.add_argument(
        "--driver",
        choices=novarig_cloud.DRIVERS,
        default="zk",
        help="the driver; stock is Nova's own db driver, and stock-mc "
        "Nova's own memcached driver (default: %(default)s)",
    )
    parser.add_argument(
        "--mode",
        choices=novarig_cloud.MODES,
        default="threads",
        help="Nova's concurrency mode (default: %(default)s)",
    )
    parser.add_argument(
        "--server",
        choices=novarig_cloud.SERVERS,
        default="waitress",
        help="the web server of the API (default: %(default)s)",
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=1,
        help="workers of conductor and scheduler, each (default: "
        "%(default)s)",
    )
    parser.add_argument(
        "--folder",
        help="the folder for all files (default: a temporary folder); it is "
        "removed at the end",
    )
    parser.add_argument(
        "command",
        nargs=argparse.REMAINDER,
        help="a command to run while Nova runs, with the variables "
        "NOVA_RIG_API, NOVA_RIG_FOLDER and the process id of each service "
        "as NOVA_RIG_COMPUTE and so on; without one it runs until Ctrl-C",
    )
    return parser.parse_args()


def _interrupt(*_):
    raise KeyboardInterrupt


def _run(arguments):
    _say("Starting MariaDB, RabbitMQ and placement")
    with novarig.Site(sys.executable) as site:
        _say(
            f"Starting Nova: driver {arguments.driver}, mode {arguments.mode}"
        )
        with novarig.Cloud(
            site,
            arguments.driver,
            arguments.mode,
            workers=arguments.workers,
            server=arguments.server,
        ) as cloud:
            _show(cloud)
            if arguments.command:
                return _command(cloud, arguments.command)
            _say("Ctrl-C ends it")
            while True:
                signal.pause()


def _show(cloud):
    services = cloud.get("/os-services")["services"]
    rows = [_COLUMNS] + [
        tuple(str(service[column]) for column in _COLUMNS)
        for service in services
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = zip(row, widths, strict=True)
        print("  ".join(cell.ljust(width) for cell, width in cells).rstrip())
    print()
    for service in cloud.services:
        log = os.path.join(service.directory, "server.log")
        print(f"{service}, log {log}")
    print(
        f"\nAsk the API: curl -H 'X-Auth-Token: admin' "
        f"{cloud.api.url}/v2.1/os-services",
        flush=True,
    )


def _command(cloud, command):
    if command[0] == "--":
        command = command[1:]
    environment = {
        **os.environ,
        "NOVA_RIG_API": f"{cloud.api.url}/v2.1",
        "NOVA_RIG_FOLDER": cloud.site.folder,
        "NOVA_RIG_CONDUCTOR": str(cloud.conductor.pid),
        "NOVA_RIG_SCHEDULER": str(cloud.scheduler.pid),
        "NOVA_RIG_COMPUTE": str(cloud.compute.pid),
    }
    return subprocess.run(command, env=environment).returncode


def _say(text):
    print(f"==> {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
