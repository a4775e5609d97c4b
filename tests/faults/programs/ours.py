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

"""nova_sg, as a process of a service uses it."""

import os

import timers
from oslo_log import log

from nova_sg import config, exception, servicegroup
from nova_sg.backends.db import engine, schema
from nova_sg.conf import CONF

LOG = log.getLogger(__name__)


class Stack:
    """How a process joins and asks."""

    def __init__(self, folder, group, hosts):
        self._group = group
        log.register_options(CONF)
        path = os.path.join(folder, "service.conf")
        config.parse(["--config-file", path], "nova-sg")
        log.setup(CONF, "nova-sg")
        self._api = servicegroup.API()
        self._down = set()

    def prepare(self, hosts):
        """Do what has to be done before a member joins."""
        if CONF.servicegroup_driver == "db":
            database = engine.Database(engine.url())
            schema.sync(database)
            database.close()

    def join(self, host):
        """Join; return whether the first report succeeded."""
        service = timers.Service(host, self._group, CONF.report_interval)
        self._api.join(host, self._group, service)
        return not service.model_disconnected

    def leave(self, host):
        self._api.leave(host, self._group)

    def ask(self, hosts):
        """Return a letter for each host: U is up, D is down, ? no answer."""
        return "".join(map(self._ask, hosts))

    def _ask(self, host):
        try:
            if self._api.service_is_up({"host": host, "topic": self._group}):
                self._down.discard(host)
                return "U"
            if host not in self._down:
                self._down.add(host)
                self._explain(host)
            return "D"
        except exception.ServiceGroupUnavailable:
            return "?"

    def _explain(self, host):
        """Log why a member is down, for the table of failures."""
        try:
            reason = self._api.member(self._group, host).reason
        except exception.MemberNotFound:
            reason = "not a member"
        LOG.warning("%s is down: %s", host, reason)
