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

"""What this process itself did to a member, until a refresh shows it."""

from __future__ import annotations

from typing import NamedTuple

from nova_sg.liveness.model import (
    DOWN,
    FORCED_DOWN,
    LEFT,
    REPORTED,
    STOPPED,
    Verdict,
)


class OwnAction(NamedTuple):
    """What this process itself did to a member."""

    #: REPORTED: it joined. LEFT, or STOPPED: it left. FORCED_DOWN: it was
    #: forced down. NOT_A_MEMBER: it was removed. None: it is no longer forced
    #: down.
    verdict: Verdict | None
    #: When. Refreshes that begin later show it.
    at: float

    def over(self, verdict: Verdict, unforced: Verdict) -> Verdict:
        """Return the verdict that takes this action into account.

        :param verdict: by what the backends show
        :param unforced: the same without an operator's command
        """
        if self.verdict is None:
            return unforced if verdict is FORCED_DOWN else verdict
        if self.verdict in (REPORTED, LEFT, STOPPED):
            if verdict is FORCED_DOWN:
                return verdict
            if self.verdict is STOPPED and unforced.state == DOWN:
                # It was down before it left.
                return LEFT
        return self.verdict
