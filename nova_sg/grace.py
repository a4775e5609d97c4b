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

"""For how long a member that stopped may be starting again."""

from nova_sg.conf import CONF

#: Whether the members are Nova's services. Their hosts, and the instances on
#: them, go on working while a service starts again: nothing is to be done
#: behind its back meanwhile.
of_nova = False


def restart() -> float:
    """Return the seconds for a member that left on purpose."""
    return _or_default(CONF.servicegroup.restart_grace)


def crash() -> float:
    """Return the seconds for one whose process ended without leaving."""
    return _or_default(CONF.servicegroup.crash_grace)


def _or_default(configured: float | None) -> float:
    if configured is not None:
        return configured
    return CONF.service_down_time if of_nova else 0.0
