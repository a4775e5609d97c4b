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

"""What judges the members of a simulated group."""

from nova_sg.liveness import detector as rules
from nova_sg.liveness import group, model
from nova_sg.liveness.model import Observation, Refresh
from nova_sg.servicegroup import detector

BACKEND = "db"


class Detector(detector.Detector):
    """The detector that observers use today."""


class Liveness:
    """The rules of nova_sg.liveness, with the methods of a Detector."""

    def __init__(self, limit, interval, rule, backends=(BACKEND,)):
        self.service_down_time = limit
        self.report_interval = interval
        self.mass = rule
        self.group = group.new(*backends)

    @property
    def failing(self):
        return all(one.failed is not None for one in self.group.backends)

    def look(self, asked, facts, *, complete=True):
        observations = [
            Observation(
                fact.host,
                fact.last_report,
                fact.last_report,
                facts=model.Facts(outage=fact.away),
            )
            for fact in facts
        ]
        return self.step(Refresh(BACKEND, asked, observations))

    def step(self, refresh):
        limits = model.Limits(
            self.service_down_time,
            self.report_interval,
            model.MassRule(*self.mass),
        )
        self.group, changes = rules.step(self.group, refresh, limits)
        return changes

    def look_failed(self, asked, backend=BACKEND):
        self.group = self.group.refresh_failed(backend, asked)

    def reports_fail(self, source, begin, certain, backend=BACKEND):
        self.group = self.group.reports_fail(backend, source, begin, certain)

    def reports_work(self, source, certain, backend=BACKEND):
        self.group = self.group.reports_work(backend, source, certain)
