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

"""[DEFAULT]: seconds between reports, and without a report."""

from oslo_config import cfg

SERVICE_OPTS = [
    cfg.FloatOpt(
        "report_interval",
        default=10,
        min=0,
        help="""
Seconds between two reports of a member. 0 switches reporting off.

The default is Nova's. Five reports may be lost before a member is down.
Lower it together with service_down_time to find dead hosts sooner; each
report is a write to the backend.

Related options:

* service_down_time: has to be larger, at least 2.5 times as large. If it is
  not larger, 2.5 times report_interval is used and a warning is logged.
""",
    ),
    cfg.FloatOpt(
        "service_down_time",
        default=60,
        min=0.1,
        help="""
Seconds without a report after which a member is down.

The default is Nova's. Lower it to find dead hosts sooner; raise it if
pauses of the network, of the backend or of busy hosts last longer than
this.

Related options:

* report_interval: has to be smaller than this.
""",
    ),
]


def list_opts() -> dict[str, list[cfg.Opt]]:
    """Return the options of this module by their section."""
    return {"DEFAULT": SERVICE_OPTS}
