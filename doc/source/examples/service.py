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

"""A service that is a member while it runs.

Usage: service.py --config-file FILE
"""

from oslo_service import backend

# Native threads. For green threads call nova_sg.monkey_patch.patch() instead.
# Do either before anything else is imported.
backend.init_backend(backend.BackendType.THREADING)

import sys  # noqa: E402

from oslo_service import service  # noqa: E402

from nova_sg import conf, servicegroup  # noqa: E402
from nova_sg.conf import CONF  # noqa: E402


class Worker(service.Service):
    """Does its work, and reports that it is alive."""

    def __init__(self) -> None:
        super().__init__()
        # The attributes that join() needs, besides self.tg.
        self.host = CONF.host
        self.topic = "worker"
        self.binary = "nova-worker"
        self.report_interval = CONF.report_interval
        self.service_ref = None
        self.api = servicegroup.API()

    def start(self) -> None:
        self.api.join(self.host, self.topic, self)

    def stop(self, graceful: bool = False) -> None:
        self.api.leave(self.host, self.topic)
        super().stop(graceful)


def main() -> None:
    conf.CONF(sys.argv[1:], project="nova-sg")
    service.launch(CONF, Worker()).wait()


if __name__ == "__main__":
    main()
