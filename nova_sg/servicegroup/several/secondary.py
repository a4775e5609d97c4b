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

"""One secondary: its view of a group, its looks, and what is logged of it."""

from __future__ import annotations

import collections
import threading
import time

from oslo_log import log as logging

from nova_sg.conf import CONF
from nova_sg.servicegroup.several import compare
from nova_sg.servicegroup.view import GroupView

LOG = logging.getLogger(__name__)

# Seconds that somebody who needs the word of a secondary waits for a look,
# and how often somebody has to.
FIRST_LOOK = 5.0
WAIT_EVERY = 30.0
# Disagreements of a group are logged once in so many seconds.
LOG_EVERY = 60.0


def settling_time() -> float:
    """Return the seconds after which a difference is a disagreement.

    One backend may notice a death at once, and another by a silence longer
    than service_down_time; its next look may be a quarter of that away.
    """
    return (
        1.25 * CONF.service_down_time
        + 2 * CONF.servicegroup.view_refresh_interval
    )


class Secondary:
    """One secondary's view of a group, and how it compares."""

    def __init__(self, view: GroupView, changed: threading.Event) -> None:
        self.view = view
        self.comparer = compare.Comparer()
        self._changed = changed
        self._looked = threading.Event()
        self._looking = threading.Lock()
        self._waited_at = float("-inf")
        # The disagreements that were logged last, by kind, and when.
        self._logged: dict[str, int] = {}
        self._logged_at = float("-inf")
        view.on_look = self._on_look

    def _on_look(self) -> None:
        self._looked.set()
        self._changed.set()

    def have_it_say(self) -> None:
        """See to it that it can be asked; wait for that, but seldom."""
        now = time.monotonic()
        if self.view.answering() or now - self._waited_at < WAIT_EVERY:
            return
        self._waited_at = now
        self._looked.clear()
        self.view.start()
        self._looked.wait(FIRST_LOOK)

    def look(self) -> threading.Thread | None:
        """Have it look, on a thread; None: it still does."""
        if not self._looking.acquire(blocking=False):
            return None
        thread = threading.Thread(
            target=self._look, name=f"nova-sg-look-{self.view.group}"
        )
        thread.daemon = True
        thread.start()
        return thread

    def _look(self) -> None:
        try:
            self.view.refresh()
        finally:
            self._looking.release()

    def log(self, primary: str, now: float) -> None:
        """Log what it disagrees about with the primary, if that is news."""
        settled = self.comparer.settled
        kinds = dict(collections.Counter(settled.values()))
        if kinds == self._logged or now - self._logged_at < LOG_EVERY:
            return
        self._logged, self._logged_at = kinds, now
        names = {"primary": primary, "secondary": self.view.name}
        if not kinds:
            LOG.info(
                "The drivers %(primary)s and %(secondary)s agree again over "
                "the group %(group)s",
                names | {"group": self.view.group},
            )
            return
        what = "; ".join(
            f"{count} {compare.KINDS[kind].format(**names)}"
            for kind, count in sorted(kinds.items())
        )
        LOG.warning(
            "The drivers %(primary)s and %(secondary)s disagree over members "
            "of the group %(group)s: %(what)s. One of them is %(host)s; "
            "nova-sg doctor names all",
            names
            | {
                "group": self.view.group,
                "what": what,
                "host": min(settled),
            },
        )
