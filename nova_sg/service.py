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

"""The agent: a service that joins a group and reports its state.

nova_sg.monkey_patch has to choose oslo.service's backend before this module
is imported.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import types
from collections.abc import Callable

from oslo_config import cfg
from oslo_log import log as logging
from oslo_service import service, systemd

from nova_sg import config, exception, log, monkey_patch, servicegroup
from nova_sg.conf import CONF
from nova_sg.guard import orders
from nova_sg.manager import Manager
from nova_sg.servicegroup import api, process

LOG = logging.getLogger(__name__)


class Service(service.Service):
    """A member of one group, with the attributes of Nova's Service.

    :param host: the member's name
    :param topic: the group
    :param binary: the program that it stands for
    """

    def __init__(self, host: str, topic: str, binary: str) -> None:
        super().__init__()
        api.check_names(host, topic)
        self.host = host
        self.topic = topic
        self.binary = binary
        self.report_interval = CONF.report_interval
        self.service_ref = None
        self.model_disconnected = False
        self.servicegroup_api = servicegroup.API()
        # The server of the metrics for Prometheus; None: it is not configured.
        self._shown = None
        if CONF.monitor.agent_port is not None:
            # An agent without it does without the memory of this, too.
            from nova_sg.monitor import service as monitor

            self._shown = monitor.agent_metrics()
        self.manager = self._new_manager()

    @classmethod
    def create(cls) -> Service:
        """Make the service that the configuration describes."""
        return cls(
            host=CONF.host,
            topic=CONF.topic,
            binary=CONF.binary or f"nova-{CONF.topic}",
        )

    def start(self) -> None:
        """Join the group, and begin with the periodic tasks."""
        LOG.info(
            "%(host)s joins the group %(group)s by the driver %(driver)s",
            {
                "host": self.host,
                "group": self.topic,
                "driver": process.driver_names().replace(",", ", "),
            },
        )
        # Also where crash_guard is off by now.
        orders.remove_stale_files()
        self._join()
        # add_dynamic_timer() of oslo.service 4.3 takes more on native threads.
        self.tg.add_dynamic_timer_args(self.periodic_tasks)
        if self._shown is not None:
            self._shown.start()

    def _new_manager(self) -> Manager:
        return Manager(
            self.servicegroup_api,
            self.topic,
            shows_metrics=self._shown is not None,
        )

    def _join(self) -> None:
        self.servicegroup_api.join(self.host, self.topic, self)

    def periodic_tasks(self) -> float:
        """Run what is due.

        :returns: seconds until the next time
        """
        self.manager.run_periodic_tasks(None)
        return self.manager.pause()

    def reset(self) -> None:
        """Use the reloaded configuration, without leaving the group.

        host, topic and binary do not change: they take a restart.
        """
        if self._shown is not None:
            from nova_sg.monitor import service as monitor

            monitor.reload_server(self._shown)
        old = process.detach()
        for one in old:
            one.stop_reports()
        self.report_interval = CONF.report_interval
        # The next report tells.
        self.model_disconnected = False
        self.servicegroup_api = servicegroup.API()
        self.manager = self._new_manager()
        self._join()
        # Not before: with zk the member's next session has to begin before
        # the old one ends.
        for one in old:
            one.close()

    def stop(self, graceful: bool = False) -> None:
        """Leave the group, and stop."""
        try:
            self._leave()
        finally:
            if self._shown is not None:
                self._shown.stop()
            super().stop(graceful)

    def _leave(self) -> None:
        trouble = None
        try:
            self.servicegroup_api.leave(self.host, self.topic)
        except Exception as error:
            # Of whatever type: it must not keep the agent from ending. It is
            # logged below, as inside this block oslo.log would add its text
            # to the line once more.
            trouble = exception.describe(error)
        if trouble is None:
            LOG.info("%s left the group %s", self.host, self.topic)
        else:
            LOG.warning(
                "Could not leave the group %(group)s: %(error)s. %(host)s "
                "goes down by silence, after service_down_time",
                {"group": self.topic, "host": self.host, "error": trouble},
            )


class Launcher(service.ServiceLauncher):
    """Runs a service until a signal ends it.

    SIGTERM and SIGINT stop it cleanly, SIGHUP reloads the configuration.

    :param hung_up: returns whether a SIGHUP arrived before this launcher
        could handle it
    """

    def __init__(
        self,
        conf: cfg.ConfigOpts,
        hung_up: Callable[[], bool] = lambda: False,
    ) -> None:
        super().__init__(conf, restart_method="mutate")
        # oslo.service 4.3 does not do so on native threads.
        for _, options in service.list_opts():
            conf.register_opts(options)
        self._hung_up = hung_up
        # Held while a signal is handled: the next one waits.
        self._answering = threading.Lock()
        self._stopping = False
        # Set when the service has started, or is stopped before.
        self._started = threading.Event()

    def launch_service(
        self, service: service.ServiceBase, workers: int = 1
    ) -> None:
        self._tell_of_start(service)
        super().launch_service(service, workers)

    def _tell_of_start(self, service: service.ServiceBase) -> None:
        """Have systemd and this launcher told once a service has started.

        oslo.service's launcher of green threads tells systemd, of a unit with
        Type=notify, before it calls start(), and that of native threads does
        not.
        """
        notify_socket = os.environ.pop("NOTIFY_SOCKET", None)
        start = service.start

        def start_and_tell() -> None:
            start()
            self._started.set()
            if notify_socket is not None:
                os.environ["NOTIFY_SOCKET"] = notify_socket
                systemd.notify_once()

        service.start = start_and_tell

    def handle_signal(self) -> None:
        self.signal_handler.clear()
        for name, handler in (
            ("SIGTERM", self._stop),
            # oslo.service would end the process at once, without leaving.
            ("SIGINT", self._stop),
            # oslo.service has no handlers while it reloads: another signal
            # would kill the process.
            ("SIGHUP", self._reload),
            ("SIGALRM", self._on_timeout_exit),
        ):
            self.signal_handler.add_handler(name, handler)
        if self._hung_up():
            # Now it can be handled.
            signal.raise_signal(signal.SIGHUP)

    def _stop(self, *args: object) -> None:
        with self._answering:
            if self._stopping:
                return
            self._stopping = True
            self._started.set()
            # Otherwise a SIGHUP would end the process while it leaves.
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            # Another one of these signals ends the process at once.
            for signo in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM):
                signal.signal(signo, signal.SIG_DFL)
            signal.alarm(self.conf.graceful_shutdown_timeout)
            self.stop()

    def _reload(self, *args: object) -> None:
        """Reload the configuration; keep the old one if the new one is wrong.
        """
        if _in_foreground():
            # The SIGHUP means that the terminal was closed.
            self._stop()
            return
        # A green thread may be starting the service.
        self._started.wait()
        with self._answering:
            if self._stopping:
                return
            error = self._try_reload()
        if error is None:
            LOG.info("The configuration is reloaded")
            config.warn_of_unknown()
        else:
            LOG.error(
                "The configuration is not reloaded: %s. The old one stays "
                "in use",
                error,
            )

    def _try_reload(self) -> exception.ConfigError | None:
        try:
            config.reload(accept=_accept)
        except exception.ConfigError as error:
            return error
        for one in self.services.services:
            one.reset()
        return None


class NativeLauncher(Launcher):
    """The same on native threads.

    oslo.service's own launcher runs the service in a child process.
    """

    def launch_service(
        self, service: service.ServiceBase, workers: int = 1
    ) -> None:
        self._tell_of_start(service)
        self.services = types.SimpleNamespace(services=[service])

    def wait(self) -> int:
        # A signal that arrives just before the main thread sleeps does not
        # wake it, and its handler waits for that. The C code of Python writes
        # the number of each signal to a pipe, at once.
        reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        handled = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
        for signo in handled:
            signal.signal(signo, lambda *_: None)
        (service,) = self.services.services
        try:
            service.start()
        except Exception:
            # Its threads would keep the process, and the member, alive.
            self.stop()
            raise
        if self._hung_up():
            self._reload()
        while not self._stopping:
            select.select([reader], [], [])
            received = handled.intersection(os.read(reader, 4096))
            if received == {signal.SIGHUP}:
                self._reload()
            elif received:
                self._stop()
        service.wait()
        return 0

    def stop(self) -> None:
        for one in self.services.services:
            one.stop()


def launcher(
    conf: cfg.ConfigOpts, hung_up: Callable[[], bool] = lambda: False
) -> Launcher:
    """Return the launcher for the threads that this process runs on."""
    native = monkey_patch.is_native()
    return (NativeLauncher if native else Launcher)(conf, hung_up)


def _accept() -> None:
    """Use the new options for the log, if a driver can be made with them.

    :raises ConfigError: it cannot, or the log cannot be set up
    """
    process.load(CONF.servicegroup_driver).close()
    # Last, as nothing may fail after it.
    log.reload(CONF.prog)


def _in_foreground() -> bool:
    """Whether the process runs in the foreground of a terminal."""
    try:
        return os.getpgrp() == os.tcgetpgrp(sys.stdout.fileno())
    except (AttributeError, OSError, ValueError):
        return False
