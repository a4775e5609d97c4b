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

"""The settings by which groups are judged, from the current options."""

from __future__ import annotations

from nova_sg import grace
from nova_sg import observer as observers
from nova_sg.conf import CONF
from nova_sg.liveness import model
from nova_sg.servicegroup import domain_map


def limits() -> model.Limits:
    """Return the limits by which members are judged.

    They have no failure domains: only an observer needs these.
    """
    limit = CONF.service_down_time
    hold = CONF.servicegroup.mass_silence_hold
    return model.Limits(
        limit,
        CONF.report_interval,
        model.MassRule(
            CONF.servicegroup.mass_silence_fraction,
            CONF.servicegroup.mass_silence_min_members,
            2 * limit if hold is None else hold,
        ),
        grace.restart(),
        grace.crash(),
    )


def current() -> observers.Settings:
    """Return the settings of an observer."""
    return observers.Settings(
        limits()._replace(domains=domain_map.current()),
        CONF.servicegroup.view_refresh_interval,
    )
