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

"""nova-sg-agent: joins a group for this host and reports its state."""

import sys

from nova_sg.cmd import entry

# Until the launcher takes over there is nothing to leave.
entry.end_quietly(0)

# Before anything else is imported.
from nova_sg import monkey_patch  # noqa: E402

monkey_patch.patch()

from oslo_log import log as logging  # noqa: E402

from nova_sg import config, exception, service  # noqa: E402
from nova_sg.conf import CONF, base  # noqa: E402
from nova_sg.servicegroup import process  # noqa: E402

PROG = "nova-sg-agent"

LOG = logging.getLogger(__name__)


def main(arguments: list[str] | None = None) -> int:
    """Run the agent until it is told to stop; return the exit status."""
    logging.register_options(CONF)
    logging.set_defaults(
        default_log_levels=[
            *logging.get_default_log_levels(),
            "alembic=WARN",
            # Its tracebacks are of errors that nova_sg puts in words.
            "oslo_db.sqlalchemy.exc_filters=CRITICAL",
            "oslo_service=WARN",
        ]
    )
    if arguments is None:
        arguments = sys.argv[1:]
    try:
        config.parse(arguments, PROG, base.CLI_OPTS)
        _set_up_log()
        server = service.Service.create()
        # Wrong options are found now, not by the first report.
        process.shared()
    except exception.ConfigError as error:
        print(f"{PROG}: {error}", file=sys.stderr)
        return 2
    if CONF.debug:
        CONF.log_opt_values(LOG, logging.DEBUG)
    launcher = service.Launcher(CONF)
    launcher.launch_service(server)
    status = launcher.wait()
    process.reset()
    return status or 0


def _set_up_log() -> None:
    try:
        logging.setup(CONF, PROG)
    except logging.LogConfigError as error:
        raise exception.ConfigError(str(error)) from error
    except OSError as error:
        raise exception.ConfigError(
            f"the log cannot be written to {error.filename}: "
            f"{error.strerror}. Correct log_file or log_dir, or the "
            "permissions of the folder"
        ) from error


if __name__ == "__main__":
    sys.exit(main())
