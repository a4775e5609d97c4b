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

"""Warning about each name once, with bounded memory."""

from __future__ import annotations

import threading
from collections.abc import Hashable

from oslo_log import log as logging

LOG = logging.getLogger(__name__)

#: How many names are remembered.
SIZE = 1000


class Once:
    """Remembers the names that a warning was logged about.

    Other programs may write any number of names into a backend. After SIZE
    names this logs that there are more, and first() returns False for others.

    :param what: what the names belong to, in the plural, for that message
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._seen: set[Hashable] = set()
        self._full = False
        self._lock = threading.Lock()

    def first(self, name: Hashable) -> bool:
        """Whether a name is new, so that a warning is due."""
        with self._lock:
            if name in self._seen:
                return False
            full = len(self._seen) >= SIZE
            if full and self._full:
                return False
            self._full = full
            if not full:
                self._seen.add(name)
                return True
        LOG.warning(
            "More than %(size)d %(what)s were ignored or corrected; further "
            "ones are not logged",
            {"size": SIZE, "what": self._what},
        )
        return False
