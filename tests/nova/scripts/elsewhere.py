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


"""Asks for members' states, with records of another driver's members.

Usage: python elsewhere.py --config-file FILE

Prints the state of each, as JSON.
"""

import datetime
import json
import os
import sys

# isort: off
# First of all: it decides on the concurrency mode.
import novarig_threads  # noqa: F401
from nova import config, servicegroup
from nova_sg.nova import hook
from oslo_utils import timeutils

GROUP = "compute"


def main():
    config.parse_args(sys.argv)
    assert hook.installed()
    api = servicegroup.API()
    # The same moment for all questions, as another stamp is another report.
    now = timeutils.utcnow()

    def up(host, *, age=None, registered=None, count=1):
        """Ask with a record that is so many seconds old."""

        def moment(ago):
            if ago is None:
                return None
            return now - datetime.timedelta(seconds=ago)

        return api.service_is_up(
            {
                "host": host,
                "topic": GROUP,
                "last_seen_up": moment(age),
                "created_at": moment(registered),
                "report_count": count,
            }
        )

    found = {
        "never here, reports": up("stranger", age=1),
        "never here, comes over": up("stranger", age=1, count=0),
        "never here, silent": up("silent", age=1000),
        "never here, never reported": up("new", registered=1),
    }
    api.join("returned", GROUP)
    found["here"] = up("returned", age=20)
    api.leave("returned", GROUP)
    found["left, reported before"] = up("returned", age=20)
    # In the future, as by a clock that is ahead, so that no time has to pass.
    found["left, reports since"] = up("returned", age=-5)
    found["left, comes over again"] = up("returned", age=-5, count=0)
    api.force_down("returned", GROUP)
    found["forced down, reports since"] = up("returned", age=-5)
    print(json.dumps(found), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
