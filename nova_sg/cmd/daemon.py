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

"""The start and end that the programs in the background share."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterable

from oslo_config import cfg
from oslo_log import log as logging
from oslo_service import service as oslo_service

from nova_sg import config, exception, log, service
from nova_sg.cmd import entry
from nova_sg.conf import CONF
from nova_sg.servicegroup import process

LOG = logging.getLogger(__name__)


def run(
    prog: str,
    arguments: list[str] | None,
    cli_options: Iterable[cfg.Opt],
    create: Callable[[], oslo_service.Service],
) -> int:
    """Run a service until it is told to stop; return the exit status.

    :param create: makes the service, after the configuration is read
    """
    log.register_options()
    if arguments is None:
        arguments = sys.argv[1:]
    try:
        config.parse(arguments, prog, cli_options)
        log.set_up(prog)
        server = create()
        # Wrong options are found now, and not by the first report.
        process.shared()
    except exception.ConfigError as error:
        print(f"{prog}: {error}", file=sys.stderr)
        return 2
    config.warn_of_unknown()
    if CONF.debug:
        CONF.log_opt_values(LOG, logging.DEBUG)
    # What has been made so far stays. To look through it again and again, the
    # garbage collector would stop all green threads for a twentieth of a
    # second.
    gc.freeze()
    launcher = service.launcher(CONF, entry.hung_up)
    launcher.launch_service(server)
    status = launcher.wait()
    process.reset()
    # The reader of the log may have ended before, such as journald.
    entry.flush_output()
    return status or 0
