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

"""The detector of nova_sg.liveness, as the simulations use it."""

from nova_sg.liveness import detector, group, model

BACKEND = "db"


class Judge:
    """One observer's detector and what it knows.

    :ivar service_down_time: seconds; a test may change it
    """

    def __init__(
        self, limit, interval, rule, backends=(BACKEND,), restart_grace=0.0
    ):
        self.service_down_time = limit
        self.report_interval = interval
        self.mass = rule
        self.restart_grace = restart_grace
        self.group = group.new(*backends)

    @property
    def failing(self):
        """Whether the last refresh of every backend failed."""
        return all(one.failed is not None for one in self.group.backends)

    def step(self, refresh):
        """Take in a refresh; return the changes."""
        limits = model.Limits(
            *(self.service_down_time, self.report_interval, self.mass),
            self.restart_grace,
        )
        self.group, changes = detector.step(self.group, refresh, limits)
        return changes

    def refresh_failed(self, asked, backend=BACKEND):
        self.group = self.group.refresh_failed(backend, asked)

    def reports_fail(self, source, begin, certain, backend=BACKEND):
        self.group = self.group.reports_fail(backend, source, begin, certain)

    def reports_work(self, source, certain, backend=BACKEND):
        self.group = self.group.reports_work(backend, source, certain)
