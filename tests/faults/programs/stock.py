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

"""Stock Nova's servicegroup, in a process with access to the database.

So nova-conductor saves a record for nova-compute. The call from one to the
other, by RPC, is left out.
"""

import os
import random
import time

import nova.conf
import timers
from nova import config, context, objects, servicegroup
from nova.db.main import api as db_api
from nova.servicegroup.drivers import db, mc  # noqa: F401
from oslo_log import log
from oslo_utils import uuidutils

CONF = nova.conf.CONF


class Stack:
    """How a process joins and asks."""

    def __init__(self, folder, group, hosts):
        self._group = group
        config.set_lib_defaults()
        log.register_options(CONF)
        path = os.path.join(folder, "service.conf")
        CONF(["--config-file", path], project="nova")
        log.setup(CONF, "nova")
        db_api.configure(CONF)
        objects.register_all()
        # As nova-conductor does.
        objects.Service.enable_min_version_cache()
        self._context = context.get_admin_context()
        self._api = servicegroup.API()
        self._by_record = CONF.servicegroup_driver == "db"
        self._references = {}

    def prepare(self, hosts):
        """Make the records, which Nova's services have before they join."""
        for host in hosts:
            self._references[host] = {"topic": self._group, "host": host}
            if self._by_record:
                self._references[host] = self._record(host)

    def _record(self, host):
        db_api.service_create(
            self._context,
            {
                "uuid": uuidutils.generate_uuid(),
                "host": host,
                "binary": f"nova-{self._group}",
                "topic": self._group,
                "report_count": 0,
                "disabled": False,
                "forced_down": False,
                "version": 0,
            },
        )
        get = objects.Service.get_by_host_and_topic
        return get(self._context, host, self._group)

    def join(self, host):
        """Join; return whether the first report succeeded."""
        reference = self._references[host]
        interval = CONF.report_interval
        service = timers.Service(host, self._group, interval, reference)
        # Nova's services do not start in one instant.
        time.sleep(random.uniform(0, 0.02))
        self._api.join(host, self._group, service)
        self._api._driver._report_state(service)
        return not service.model_disconnected

    def leave(self, host):
        """Do nothing: a member of Nova's group cannot leave."""

    def ask(self, hosts):
        """Return a letter for each host: U is up, D is down, ? no answer."""
        if not self._by_record:
            return "".join(map(self._ask, hosts))
        try:
            records = {
                record["host"]: record
                for record in db_api.service_get_all_by_topic(
                    self._context, self._group
                )
            }
        except Exception:
            return "?" * len(hosts)
        is_up = self._api.service_is_up
        return "".join(
            "DU"[is_up(records[host])] if host in records else "?"
            for host in hosts
        )

    def _ask(self, host):
        try:
            member = {"topic": self._group, "host": host}
            return "DU"[self._api.service_is_up(member)]
        except Exception:
            return "?"
