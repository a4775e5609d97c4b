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

"""The addresses of a session's servers, resolved in the background."""

from collections.abc import Callable

from nova_sg.zookeeper import addresses


class Names:
    """The servers' names, and what they were resolved to last.

    :ivar found: the servers by address, as far as their names could be
        resolved; None: this is not known yet.
    :ivar error: why the last name could not be resolved.
    """

    def __init__(self, host: str, tell: Callable[[], object]) -> None:
        """
        :param host: the C client's host argument.
        :param tell: called on the dispatcher once `found` is known or new;
            it must return at once.
        """
        self._servers = addresses.split(host)
        self._tell = tell
        self._under_way = False
        self.found: addresses.Servers | None = None
        self.error = ""
        if self._servers.are_addresses:
            self.found = self._servers

    def ask(self) -> None:
        """Resolve the names anew, unless that is under way.

        :raises OSError: when no thread can be created.
        """
        if self._under_way or self._servers.are_addresses:
            return
        self._under_way = True
        try:
            addresses.resolve(self._servers, self._resolved)
        except BaseException:
            self._under_way = False
            raise

    def _resolved(self, found: addresses.Servers, error: str) -> None:
        # After a failure the addresses that were known are still the best.
        if found.servers or self.found is None:
            self.found = found
        self.error = error
        self._under_way = False
        self._tell()
