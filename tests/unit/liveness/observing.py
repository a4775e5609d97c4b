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

"""An observer for the tests of the rules: it turns refreshes into verdicts."""

from nova_sg.liveness import detector, group, model
from nova_sg.liveness.model import Attributes, Observation

#: service_down_time and report_interval, in seconds.
LIMIT = 60.0
INTERVAL = 10.0


class Observer:
    """The observer of one group, refreshed by hand.

    :ivar changes: the Changes of the last refresh
    """

    def __init__(self, *backends, mass=model.NO_MASS_RULE):
        self.backends = backends or ("db",)
        self.group = group.new(*self.backends)
        self.limits = model.Limits(LIMIT, INTERVAL, mass)
        self.changes = []

    def refresh(self, asked, observations, backend=None, **fields):
        """Take in one refresh.

        :param observations: Observations; or a dict with the moment of each
            host's last report, which is its report_number, too
        :returns: the verdicts' causes, by host
        """
        if isinstance(observations, dict):
            observations = [
                Observation(host, at, at) for host, at in observations.items()
            ]
        refresh = model.Refresh(
            backend or self.backends[0], asked, observations, **fields
        )
        self.group, self.changes = detector.step(
            self.group, refresh, self.limits
        )
        return {
            host: member.verdict.cause
            for host, member in self.group.members.items()
        }

    def fails(self, asked, backend=None):
        """Take in a refresh that failed."""
        name = backend or self.backends[0]
        self.group = self.group.refresh_failed(name, asked)

    def reports_fail(self, begin, certain, backend=None):
        """Take in that this process's own reports fail."""
        name = backend or self.backends[0]
        self.group = self.group.reports_fail(name, "own", begin, certain)

    def reports_work(self, certain, backend=None):
        """Take in that this process's own reports succeed again."""
        name = backend or self.backends[0]
        self.group = self.group.reports_work(name, "own", certain)

    def backend_out(self, begin, end):
        """Take in an outage that the server itself reports."""
        outage = model.Outage(begin, end)
        self.group = self.group.backend_out(self.backends[0], outage)

    def cause(self, host, now=None):
        """Return the cause of the verdict on a member.

        :param now: when the question is asked; None: at the last refresh
        """
        if now is None:
            now = self.group.refreshed
        return self.group.verdict(host, now, LIMIT).cause


def seen(host, report_number, stamp=None, **attributes):
    """Return an Observation of a member.

    :param stamp: the moment that the backend stored with the report
    :param attributes: fields of Attributes
    """
    return Observation(
        host, report_number, stamp, attributes=Attributes(**attributes)
    )
