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

"""nova-sg nova status, enable, disable."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator

from nova_sg import config, exception
from nova_sg.backends.base import Finding
from nova_sg.backends.memcached import server_options
from nova_sg.cmd import commands, doctor
from nova_sg.conf import CONF
from nova_sg.nova import activation
from nova_sg.servicegroup import process

NOVA_CONF = "/etc/nova/nova.conf"
HOW = (
    "Add to nova.conf: config_source = nova_sg in [DEFAULT], and "
    "driver = nova_sg in [nova_sg]"
)


class Status(commands.Command):
    """Show whether Nova uses nova_sg, by which driver, and what is missing.

    Checks this environment and Nova's configuration files. The exit status is
    0 only if nova_sg is on and nothing is missing.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            "nova_conf",
            metavar="FILE",
            nargs="*",
            help="Nova's configuration files (default: those given by "
            f"--config-file before the command, or {NOVA_CONF}).",
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        files = (
            parsed_args.nova_conf
            or self.app.options.config_file
            or [NOVA_CONF]
        )
        CONF.reset()
        arguments = [word for f in files for word in ("--config-file", f)]
        config.parse(arguments, "nova-sg")
        findings = list(_check(files))
        doctor.print_findings(findings, self.app.stdout)
        well = all(finding.ok for finding in findings)
        print(
            f"nova_sg is {'on' if well else 'off, or not ready'}: driver "
            + ", secondary ".join(_drivers()),
            file=self.app.stdout,
        )
        return 0 if well else 1


def _check(files: list[str]) -> Iterator[Finding]:
    version = activation.nova_version()
    yield Finding(
        version is not None,
        "environment",
        f"{sys.prefix}, Nova {version or 'is not installed'}",
        "Install nova-sg in the environment that Nova is installed in",
    )
    by_file = os.path.exists(activation.pth_path())
    where = ", ".join(files)
    try:
        by_conf = activation.asked_for()
    except exception.ConfigError as error:
        yield Finding(False, where, str(error), HOW)
        by_conf = False
    else:
        if by_conf:
            yield Finding(
                activation.hook_is_offered(),
                where,
                "switches nova_sg on",
                "The package's metadata is missing: install nova-sg again",
            )
        else:
            yield Finding(by_file, where, "does not switch nova_sg on", HOW)
    if by_file:
        yield Finding(True, activation.pth_path(), "switches nova_sg on")
    for name in _drivers():
        yield _check_driver(name)


def _drivers() -> list[str]:
    """Return the drivers in use, the primary first."""
    return process.driver_names().split(",")


def _check_driver(name: str) -> Finding:
    if name == "mc" and not server_options.addresses()[1]:
        return Finding(
            False,
            "driver mc",
            "without servers each process sees only its own members",
            "Set [DEFAULT] memcached_servers",
        )
    if name == "db":
        return Finding(True, "driver db", "Nova's own records serve it")
    try:
        driver = process.load(name)
    except exception.ConfigError as error:
        return Finding(False, f"driver {name}", str(error))
    driver.close()
    return Finding(
        True,
        f"driver {name}",
        "its options are complete; nova-sg doctor checks the servers",
    )


class Enable(commands.Command):
    """Switch nova_sg on by a .pth file in this environment.

    For releases of Nova in which nova.conf cannot do that. Every Nova process
    of the environment uses nova_sg until it is disabled.
    """

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        print(
            f"{activation.enable()}: written. Nova's services use nova_sg "
            "from their next start on",
            file=self.app.stdout,
        )


class Disable(commands.Command):
    """Remove the .pth file that enable has written."""

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        print(
            f"{activation.disable()}: not there any more. Nova's services do "
            "not use nova_sg from their next start on, unless nova.conf "
            "switches it on",
            file=self.app.stdout,
        )
