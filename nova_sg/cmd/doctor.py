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

"""nova-sg doctor: finds problems, and their remedies."""

from __future__ import annotations

import argparse
import datetime
from typing import TextIO

from nova_sg import config, exception
from nova_sg.actions import pause
from nova_sg.backends import base
from nova_sg.backends.memcached import server_options
from nova_sg.cmd import agreement, commands
from nova_sg.conf import CONF
from nova_sg.servicegroup import process


class Doctor(commands.Command):
    """Check the configuration and every configured backend.

    Prints a line for each finding, with a remedy for each problem. The exit
    status is 0 only if there is no problem.
    """

    #: The shell leaves it to this command, which reports what is wrong.
    READS_CONFIGURATION = True

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        try:
            self.app.read_configuration()
        except exception.ConfigError as error:
            findings = [base.Finding(False, "configuration", str(error))]
        else:
            findings = list(_check_options())
            used = process.driver_names().split(",")
            for name in _configured_drivers(used):
                findings.extend(_check_driver(name, used))
            if len(used) > 1:
                findings.extend(agreement.check(used))
        print_findings(findings, self.app.stdout)
        return 0 if all(finding.ok for finding in findings) else 1


def print_findings(findings: list[base.Finding], stream: TextIO) -> None:
    """Print a line for each finding."""
    for finding in findings:
        mark = "ok " if finding.ok else "BAD"
        line = f"{mark} {finding.subject}: {finding.text}"
        if not finding.ok and finding.remedy:
            line += f". {finding.remedy}"
        print(line, file=stream)


def _check_options():
    files = ", ".join(CONF.config_file or ()) or "none, all defaults"
    yield base.Finding(True, "configuration", f"files: {files}")
    unknown = config.unknown()
    if unknown:
        yield base.Finding(
            False,
            "configuration",
            f"unknown names: {unknown}",
            "They have no effect: correct or remove them",
        )
    interval, down = CONF.report_interval, CONF.service_down_time
    yield base.Finding(
        interval * 2 <= down,
        "configuration",
        f"report_interval {interval:g} s, service_down_time {down:g} s",
        "A member is down after one lost report: make service_down_time at "
        "least 2.5 times report_interval",
    )


def _configured_drivers(used: list[str]) -> list[str]:
    """Return the drivers in use, and those that have options set."""
    names = list(used)
    if CONF.database.connection:
        names.append("db")
    if server_options.named_for_members():
        names.append("mc")
    if CONF.zookeeper.address:
        names.append("zk")
    return list(dict.fromkeys(names))


def _check_driver(name: str, used: list[str]):
    how = "configured, not in use"
    if name == used[0]:
        how = "in use"
    elif name in used:
        how = "in use as a secondary"
    yield base.Finding(True, f"driver {name}", how)
    try:
        driver = process.load(name)
    except Exception as error:
        yield base.Finding(False, f"driver {name}", exception.describe(error))
        return
    try:
        yield from driver.check()
        if name == used[0]:
            yield from _check_pause(driver)
    except Exception as error:
        # The other drivers are checked nevertheless.
        yield base.Finding(
            False,
            f"driver {name}",
            exception.describe(error),
            "Run nova-sg --debug doctor for the place in the code",
        )
    finally:
        driver.close()


def _check_pause(driver: base.Driver):
    """Show whether the actions of nova-sg watch are paused."""
    try:
        note = driver.read_note(CONF.topic)
    except exception.BackendError:
        # The driver's own checks say why.
        return
    found = pause.read(note, datetime.datetime.now(datetime.UTC))
    if found is not None:
        yield base.Finding(
            True,
            "actions",
            f"nova-sg watch does not act upon events of group {CONF.topic}: "
            f"paused {found}",
        )
