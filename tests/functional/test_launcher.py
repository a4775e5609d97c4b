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


"""The launcher of green threads, beside a service that starts slowly."""

import threading
from unittest import mock

from nova_sg.conf import CONF
from tests import base, green_mode


def slow_service():
    """Return a service that starts slowly."""
    from oslo_service import service as oslo_service

    class SlowService(oslo_service.Service):
        def __init__(self):
            super().__init__()
            self.calls = []
            self.begun = threading.Event()
            self.go_on = threading.Event()

        def start(self):
            self.begun.set()
            self.go_on.wait()
            self.calls.append("start")

        def reset(self):
            self.calls.append("reset")

    return SlowService()


@green_mode
class LauncherTest(base.TestCase):
    def setUp(self):
        super().setUp()
        # Here, as oslo.service before 4.2 imports eventlet.
        from nova_sg import service

        self.enterContext(mock.patch.object(service.config, "reload"))
        self.enterContext(
            mock.patch.object(service, "_in_foreground", return_value=False)
        )
        self.module = service
        self.service = slow_service()
        self.launcher = service.launcher(CONF)
        self.launcher.launch_service(self.service)
        self.service.begun.wait()
        self.hang_up = threading.Thread(target=self.launcher._reload)
        self.hang_up.start()

    def test_a_reload_waits_for_the_start(self):
        """It detached the driver by which the service was joining."""
        self.service.go_on.set()
        self.hang_up.join()
        self.assertEqual(["start", "reset"], self.service.calls)
        self.launcher.stop()

    def test_a_stop_waits_for_neither(self):
        with mock.patch.object(self.module, "signal"):
            self.launcher._stop()
        self.hang_up.join()
        self.assertEqual([], self.service.calls)
