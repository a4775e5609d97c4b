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

"""A service whose record Nova deletes is taken out of all backends.

Its record in the services table is gone, so nothing in Nova asks for its
state any more. ZooKeeper and memcached would go on listing it as down. A
service that still runs goes on reporting to them, and so is listed again.
Whether the backends are told or not changes nothing about the deletion.
"""

from __future__ import annotations

import functools
import threading
from typing import Any

from oslo_log import log as logging

from nova_sg import exception, threads
from nova_sg.backends import base
from nova_sg.nova import hook

LOG = logging.getLogger(__name__)

# Seconds that a request to delete a service waits for the backends.
WAIT = 5.0


def follow(module: Any) -> None:
    """Add this to the method that deletes a record.

    :param module: nova.objects.service
    """
    destroy = module.Service.destroy

    @functools.wraps(destroy)
    def destroy_and_forget(self: Any, *args: Any, **kwargs: Any) -> Any:
        answer = destroy(self, *args, **kwargs)
        # Not in a process that does not use service groups.
        if hook.installed():
            host, group = base.field(self, "host"), base.field(self, "topic")
            if host and group:
                forget(host, group)
        return answer

    module.Service.destroy = destroy_and_forget


def forget(host: str, group: str) -> None:
    """Take a member out of all backends, or log what to do.

    :param host: its name in the record that was deleted
    :param group: the record's topic
    """
    # On a thread, and for a limited time: a backend may hang.
    thread = threading.Thread(
        target=_forget, args=[host, group], name="nova-sg-forget", daemon=True
    )
    thread.start()
    threads.join(thread, WAIT)


def _forget(host: str, group: str) -> None:
    # Not earlier: most processes delete no service.
    from nova_sg.servicegroup import commands, process

    try:
        commands.record_deleted(process.shared(), host, group)
    except Exception as error:
        LOG.warning(
            "Nova deleted the service record of %(host)s, but it could not "
            "be removed from the group %(group)s: %(error)s. It stays listed "
            "there as down. Call: nova-sg forget %(host)s --group %(group)s",
            {
                "host": host,
                "group": group,
                "error": exception.describe(error),
            },
        )
