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

"""[masakari]: what masakari-hostmonitor does about hosts that are down."""

from oslo_config import cfg

MASAKARI_OPTS = [
    cfg.StrOpt(
        "fence",
        help="""
A command that makes sure that a host is off, such as one that powers it off by
its management board and checks that. It gets the event as [events] exec does:
NOVA_SG_HOST is the host. It succeeds with status 0, and may be run again.

Masakari is told of a dead host after the command has succeeded. Without a
command Masakari is told that it is not known whether the host is off
(host_status UNKNOWN), and does nothing. Set it to "true" where every host is
fenced by other means before its instances can be started elsewhere.

Related options:

* [events] time_limit: how long the command may run.
* [events] retry_for: for how long a command that failed is tried again.
""",
    ),
    cfg.ListOpt(
        "causes",
        default=["silent", "lost"],
        item_type=cfg.types.String(
            choices=[
                *("silent", "lost", "crashed", "forced-down"),
                *("never-reported", "left"),
            ]
        ),
        help="""
The causes for which a host that is down is reported to Masakari.

The default leaves out hosts that are alive: the process has crashed, or an
operator has stopped it or forced it down. It also leaves out hosts that have
never reported.
""",
    ),
]


def list_opts() -> dict[str, list[cfg.Opt]]:
    """Return the options of this module by their section."""
    return {"masakari": MASAKARI_OPTS}
