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

"""Log messages on members that are held as up: see mass_silence."""

from __future__ import annotations

from oslo_log import log as logging

from nova_sg.liveness import mass_silence
from nova_sg.liveness.group import Group
from nova_sg.liveness.mass_silence import GROUP
from nova_sg.liveness.model import DOWN, Limits

LOG = logging.getLogger(__name__)


def log(name: str, before: Group, after: Group, limits: Limits) -> None:
    """Log the holds that began or ended with a refresh.

    :param name: the group's name
    """
    was, now = before.mass.holds, after.mass.holds
    if was is now:
        return
    for part in now.keys() - was.keys():
        hold = now[part]
        LOG.warning(
            "%(silent)d of %(members)d members of the %(where)s fell "
            "silent within %(limit)g s and are held as up for "
            "%(hold)g s at most. Check the network between these members "
            "and the backend",
            {
                "silent": hold.silent,
                "members": hold.members,
                "where": _describe(name, part, "of the group"),
                "limit": limits.service_down_time,
                "hold": limits.mass.hold,
            },
        )
    for part in was.keys() - now.keys():
        down = sum(
            member.verdict.state == DOWN
            and (part is GROUP or part in mass_silence.parts(member, limits))
            for member in after.members.values()
        )
        LOG.warning(
            "Mass-silence hold ended for %(where)s: %(down)d members are "
            "now down",
            {"where": _describe(name, part, "of group"), "down": down},
        )


def _describe(name: str, part: str | None, of: str) -> str:
    """Return the name of the group, or of a part of it."""
    if part is GROUP:
        return f"group {name}"
    return f"{mass_silence.name(part)} {of} {name}"
