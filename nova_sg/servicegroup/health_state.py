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

"""The state of this process's members, as the page /health shows it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from nova_sg.conf import CONF
from nova_sg.servicegroup.shared import Shared


def read(of: Iterable[Shared]) -> dict[str, Any]:
    """Return the state of the members of this process, as /health shows it.

    "healthy" is whether there are members, and each of them is well and has
    reported to a backend within service_down_time.

    :param of: what this process shares
    """
    members = []
    for one in of:
        checks = list(one.health.results())
        for (group, host), reports in one.reported().items():
            found = [
                check
                for check in checks
                if (check.group, check.host) == (group, host)
            ]
            ages = [
                report.age
                for report in reports.values()
                if report.age is not None
            ]
            reporting = bool(ages) and min(ages) <= CONF.service_down_time
            members.append(
                {
                    "group": group,
                    "host": host,
                    "healthy": reporting
                    and not any(check.reason for check in found),
                    "draining": any(
                        report.draining for report in reports.values()
                    ),
                    "reports": {
                        name: {
                            "last_success_seconds": _rounded(report.age),
                            "trouble": report.trouble,
                        }
                        for name, report in reports.items()
                    },
                    "checks": {
                        check.check: {
                            "healthy": not check.reason,
                            "reason": check.reason,
                            "seconds_ago": _rounded(check.age),
                        }
                        for check in found
                    },
                }
            )
    return {
        "healthy": bool(members) and all(one["healthy"] for one in members),
        "pid": os.getpid(),
        "members": members,
    }


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)
