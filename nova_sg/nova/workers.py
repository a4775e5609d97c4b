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

All workers of nova-conductor, or of nova-scheduler, join as one member. It is
up while one of them lives, so only the last one takes it out of the group.
Each worker holds a shared lock on a file. The last worker is the one that can
get the exclusive lock. The kernel releases the lock of a worker that dies.
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
    """One of the processes of this host that report for the same member.

    :param names: the names that identify the member
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
            # If a worker that is leaving holds the exclusive lock, this fails:
            # then this worker does not count.
            fcntl.flock(self._descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as error:
            LOG.debug(
                "Cannot find out about other workers of %s: %s", names, error
            )

    def is_last(self) -> bool:
        """Whether no other worker is left; False if that is not known.

        From now on this process does not count. If it is the last one, it
        holds the exclusive lock until done().
        """
        if self._descriptor is None:
            return False
        try:
            # Unlock first: two workers that leave at the same time must not
            # take each other for one that stays.
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def done(self) -> None:
        """Unlock the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
