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

"""[DEFAULT]: how often a service reports, how long its silence may last."""

from oslo_config import cfg

SERVICE_OPTS = [
    cfg.FloatOpt(
        "report_interval",
        default=10,
        min=0,
        help="""
Seconds between two reports of a service. 0 switches reporting off.

Related options:

* service_down_time: has to be larger, 2.5 times this or more. Where it is
  not, a warning says so and 2.5 times this value is used.
""",
    ),
    cfg.FloatOpt(
        "service_down_time",
        default=60,
        min=0.1,
        help="""
Seconds since the last report after which a service is taken to be down.

Related options:

* report_interval: has to be smaller than this.
""",
    ),
]


def list_opts() -> dict[str, list[cfg.Opt]]:
    """Return the options of this module by their section."""
    return {"DEFAULT": SERVICE_OPTS}
