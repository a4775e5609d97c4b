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

"""What is warned of once each, and what is remembered of that."""

from __future__ import annotations

import threading
from collections.abc import Hashable

from oslo_log import log as logging

LOG = logging.getLogger(__name__)

#: So many names are remembered, and warned of one by one.
SIZE = 1000


class Once:
    """Says of each name whether it is asked about for the first time.

    What others write into a backend may have any number of names. Once this
    has seen SIZE of them, it logs that, and says no for every other.

    :param what: what the names are of, in the plural
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._seen: set[Hashable] = set()
        self._full = False
        self._lock = threading.Lock()

    def first(self, name: Hashable) -> bool:
        """Whether name is new, and to be warned of."""
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
            "More than %(size)d %(what)s were ignored or corrected; no more "
            "of them are logged",
            {"size": SIZE, "what": self._what},
        )
        return False
