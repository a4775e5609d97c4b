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

"""What goes through the faults: nova_sg's drivers, and stock Nova's."""

import os
import threading

from tests.faults import processes

_lock = threading.Lock()
_fork_servers = {}


class Kind:
    """A stack and a driver, from which each fault makes its contenders.

    :param stack: ours or stock
    :param driver: db, mc or zk
    """

    def __init__(self, stack, driver):
        self.stack = stack
        self.driver = driver

    @property
    def name(self):
        return f"{'nova_sg' if self.stack == 'ours' else 'nova'} {self.driver}"


OURS = {driver: Kind("ours", driver) for driver in ("db", "mc", "zk")}
# Nova dropped its zk driver in 2015.
STOCK = {driver: Kind("stock", driver) for driver in ("db", "mc")}


class Times:
    """The settings that decide how long things take, in seconds.

    :param long: whether to use the default settings
    :param scale: a factor for the short form, above 1 on a busy machine
    """

    def __init__(self, long, scale=1):
        self.long = long
        self.scale = 1 if long else scale
        if long:
            # The options' defaults.
            self.service_down_time = 60
            self.report_interval = 10
            self.refresh = 2
            self.session = 4
        else:
            self.service_down_time = 3 * scale
            self.report_interval = 0.5 * scale
            self.refresh = 0.2 * scale
            self.session = 2 * scale

    def down(self, kind):
        """Return the stated bound until a member that died is down."""
        if kind.stack == "stock":
            return self.service_down_time
        if kind.driver == "zk":
            # Sessions end at a tick of the server, here half a second. An
            # observer then waits for two thirds of the timeout, to see
            # whether those of most members end.
            return self.session * 5 / 3 + 0.5 + 0.1
        bound = self.service_down_time + self.refresh
        # memcached's clock shows whole seconds.
        return bound + (1 if kind.driver == "mc" else 0)

    def down_after_outage(self, kind):
        """Return the same for a member that died during an outage.

        It counts from the end of the outage.
        """
        if kind.driver == "zk":
            # Living members are given twice the time to join again.
            return self.session + self.down(kind)
        return self.down(kind)

    def left(self, kind, many=False):
        """Return the stated bound until a member that left is down.

        :param many: whether there are so many members that refreshes take
            long, and are rarer for that
        """
        if kind.stack == "stock":
            # Nova's members cannot leave. They fall silent.
            return self.down(kind)
        if kind.driver == "zk":
            return 0.1
        return self.service_down_time / 4 if many else self.refresh

    def options(self, kind):
        """Return the options of the configuration file, by section."""
        options = {
            "DEFAULT": {
                "servicegroup_driver": kind.driver,
                "service_down_time": self.service_down_time,
                # Nova accepts whole seconds only.
                "report_interval": self.report_interval
                if kind.stack == "ours"
                else max(1, round(self.report_interval)),
            }
        }
        if kind.stack == "ours":
            options["servicegroup"] = {"view_refresh_interval": self.refresh}
            options["zookeeper"] = {"recv_timeout": int(self.session * 1000)}
            if not self.long:
                options["memcache"] = {"socket_timeout": 0.5}
        return options


def fork_server(stack, mode):
    """Return this process's fork server of a stack and a mode."""
    with _lock:
        key = stack, mode
        if key not in _fork_servers:
            _fork_servers[key] = processes.ForkServer(stack, mode)
        return _fork_servers[key]


def close():
    """End the fork servers."""
    with _lock:
        for one in _fork_servers.values():
            one.close()
        _fork_servers.clear()


def write_config(folder, *layers):
    """Write service.conf into a folder; later layers override earlier."""
    merged = {}
    for options in layers:
        for section, values in options.items():
            merged.setdefault(section, {}).update(values)
    merged["DEFAULT"]["state_path"] = folder
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "service.conf"), "w") as config:
        for section, values in merged.items():
            config.write(f"[{section}]\n")
            for name, value in values.items():
                config.write(f"{name} = {value}\n")
