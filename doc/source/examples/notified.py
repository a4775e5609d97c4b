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

"""Prints a line for each notification of nova-sg watch.

Usage: notified.py --config-file FILE
"""

import sys

import oslo_messaging
from oslo_config import cfg


class Endpoint:
    """Handles notifications of priority INFO: those of nova-sg are."""

    filter_rule = oslo_messaging.NotificationFilter(
        publisher_id=r"^nova-sg:", event_type=r"^service\."
    )

    def __init__(self):
        self._done = set()

    def info(self, context, publisher_id, event_type, payload, metadata):
        # The same notification may come twice, the second one late.
        if metadata["message_id"] in self._done:
            return oslo_messaging.NotificationResult.HANDLED
        data = payload["nova_object.data"]
        print(event_type, data["host"], data["state"], data["cause"])
        sys.stdout.flush()
        self._done.add(metadata["message_id"])
        return oslo_messaging.NotificationResult.HANDLED


conf = cfg.ConfigOpts()
conf(sys.argv[1:], project="notified")
listener = oslo_messaging.get_notification_listener(
    oslo_messaging.get_notification_transport(conf),
    [oslo_messaging.Target(topic="versioned_notifications", exchange="nova")],
    [Endpoint()],
    executor="threading",
)
# Handle one at a time, in the order in which they come.
conf.set_override("executor_thread_pool_size", 1)
listener.start()
listener.wait()
