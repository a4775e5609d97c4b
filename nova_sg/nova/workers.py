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


"""Which of several workers is the last one to leave.

The workers of nova-conductor and nova-scheduler all join as one member, which
is up while one of them lives. So the word that it has left is not for any of
them to give, but for the last: it is the one that can have a file for itself.
The kernel lets go of the file for who dies.
"""

from __future__ import annotations

import fcntl
import hashlib
import os

from oslo_concurrency import lockutils
from oslo_log import log as logging

from nova_sg.conf import CONF

LOG = logging.getLogger(__name__)


class Worker:
    """One process, among those of this host that are the same member.

    :param names: what the member is known by
    """

    def __init__(self, *names: str) -> None:
        self._descriptor: int | None = None
        text = "\0".join(names)
        digest = hashlib.sha256(text.encode(errors="replace")).hexdigest()
        folder = lockutils.get_lock_path(CONF) or CONF.state_path
        try:
            os.makedirs(folder, exist_ok=True)
            self._descriptor = os.open(
                os.path.join(folder, f"nova-sg-{digest[:16]}"),
                os.O_RDWR | os.O_CREAT | os.O_CLOEXEC,
                0o660,
            )
            # Others may hold it like this, too. Who is about to leave may
            # have it alone for a moment: then this one does not count.
            fcntl.flock(self._descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as error:
            LOG.debug("Other workers of %s are not known: %s", names, error)

    def is_last(self) -> bool:
        """Whether nobody else is left; where that is not known, say no.

        This process does not count any longer; it has the file for itself,
        if it is the last one, until done().
        """
        if self._descriptor is None:
            return False
        try:
            # Who goes at the same time must not take us for one who stays.
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def done(self) -> None:
        """Let go of the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
