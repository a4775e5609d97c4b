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

"""nova-sg: the command line for operators, by cliff."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
from importlib import metadata

from cliff import app, commandmanager, complete, help

from nova_sg import (
    config,
    exception,
    observer,
    poller,
    servicegroup,
    version,
)
from nova_sg.cmd import entry
from nova_sg.servicegroup import process

PROG = "nova-sg"


class Commands(commandmanager.CommandManager):
    """The commands; the module of each is imported when it is used.

    cliff's own manager imports the modules of all commands: rich, the
    database and the monitor, for a command that needs none of them.
    """

    def load_commands(self, namespace: str) -> None:
        self.group_list.append(namespace)
        for found in metadata.entry_points(group=namespace):
            self.commands[found.name.replace("_", " ")] = found


class Shell(app.App):
    """The application: global options, configuration, the API.

    Exit statuses are like grep's: 0 yes or done, 1 no (down, not in time, no
    such member, a problem was found), 2 there is no answer.
    """

    # cliff would take the name of the file.
    NAME = PROG

    NO = (exception.MemberNotFound, exception.MemberIsUp)

    # The log has warnings and errors; -v shows more.
    DEFAULT_VERBOSE_LEVEL = 0

    def __init__(self) -> None:
        super().__init__(
            description="Show which services of an OpenStack cloud are alive.",
            version=version.version_string(),
            command_manager=Commands("nova_sg.cli"),
            deferred_help=True,
        )
        self._api: servicegroup.API | None = None
        self._error: BaseException | None = None

    def build_option_parser(
        self, description, version, argparse_kwargs=None
    ) -> argparse.ArgumentParser:
        parser = super().build_option_parser(
            description, version, argparse_kwargs
        )
        for option, metavar, what in (
            ("--config-file", "FILE", "a configuration file"),
            ("--config-dir", "DIR", "a folder of *.conf files"),
        ):
            parser.add_argument(
                option,
                metavar=metavar,
                action="append",
                default=[],
                help=f"Read {what}; may be given several times.",
            )
        return parser

    def initialize_app(self, argv: list[str]) -> None:
        # nova_sg reports these errors itself, without a traceback.
        logging.getLogger("oslo_db.sqlalchemy.exc_filters").setLevel(
            logging.CRITICAL
        )
        if not self.options.verbose_level:
            # The commands report themselves that there is no answer.
            for module in (observer, poller):
                logging.getLogger(module.__name__).setLevel(logging.ERROR)
            logging.getLogger("alembic").setLevel(logging.WARNING)

    def prepare_to_run_command(self, cmd) -> None:
        # From here on there is something to clean up.
        entry.raise_again()
        # Help is needed also while the configuration is wrong.
        if not isinstance(
            cmd, (help.HelpCommand, complete.CompleteCommand)
        ) and not getattr(cmd, "READS_CONFIGURATION", False):
            self.read_configuration()
            config.warn_of_unknown()

    def read_configuration(self) -> None:
        """Read the files that the arguments name, or the usual ones.

        :raises ConfigError: one of them is wrong
        """
        arguments = []
        for name in self.options.config_file:
            arguments += ["--config-file", name]
        for name in self.options.config_dir:
            arguments += ["--config-dir", name]
        config.parse(arguments, PROG)

    @property
    def api(self) -> servicegroup.API:
        """The API, made by the first command that needs it."""
        if self._api is None:
            self._api = servicegroup.API()
        return self._api

    def run_subcommand(self, argv: list[str]) -> int:
        status = super().run_subcommand(argv)
        if self._error is None:
            return status
        return 1 if isinstance(self._error, self.NO) else 2

    def interact(self) -> None:
        """Show the commands: there is no interactive mode."""
        self.run_subcommand(["help"])
        sys.exit(2)

    def clean_up(self, cmd, result, err) -> None:
        self._error = err
        process.reset()


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return the exit status."""
    entry.end_quietly()
    try:
        status = Shell().run(sys.argv[1:] if arguments is None else arguments)
    except SystemExit as error:
        status = error.code
    except KeyboardInterrupt:
        status = 128 + signal.SIGINT
    entry.end_quietly()
    lost = entry.flush_output()
    if isinstance(lost, BrokenPipeError):
        return 128 + signal.SIGPIPE
    if lost is not None:
        print(f"{PROG}: {lost.strerror}", file=sys.stderr)
        return 2
    return status


if __name__ == "__main__":
    sys.exit(main())
