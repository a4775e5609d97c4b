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

"""Services: objects that a session restores after it was lost.

Here: ZKServiceBase. Not here: the services themselves (membership.py), and
when they are restored (restorer.py).
"""

import threading
from typing import Any

from nova_sg.evzookeeper import utils
from nova_sg.evzookeeper.calls import ZOO_OPEN_ACL_UNSAFE
from nova_sg.evzookeeper.session import ZKSession


class ZKServiceBase:
    """An object below one path that a session restores.

    A subclass may have either or both of:

    - restore(), which is called whenever a server is connected, after the
      restore() of services that were made earlier. It may wait. If it raises
      an exception, that is logged, and it is called again. It is also called
      when nothing was lost.
    - _session_callback(), which runs in a thread of its own. It calls
      self._session_spc.wait_and_get() in a loop, which returns the arguments
      of the session's connection callbacks, until that raises
      PipeConditionClosedError.

    :ivar thread: the thread, or None.
    """

    def __init__(
            self, session: ZKSession, basepath: str,
            acl: list[dict[str, Any]] | None = None) -> None:
        """
        :param session: the session that it belongs to.
        :param basepath: the path of the znode it works below.
        :param acl: for znodes that it creates; None: every client may do
            everything ([ZOO_OPEN_ACL_UNSAFE]).
        """
        self._session = session
        self._basepath = basepath
        self.acl = acl if acl else [ZOO_OPEN_ACL_UNSAFE]
        self._session_spc: utils.StatePipeCondition | None = None
        self.thread: threading.Thread | None = None
        session.add_service(self)
        session_callback = type(self)._session_callback
        if session_callback is not ZKServiceBase._session_callback:
            self._session_spc = utils.StatePipeCondition()
            session.add_connection_callback(self._session_spc)
            self.thread = threading.Thread(
                target=self._run,
                name=f"nova_sg.evzookeeper {type(self).__name__}",
                daemon=True)
            self.thread.start()

    def close(self) -> None:
        """End the thread; the service is not restored any more."""
        self._session.remove_service(self)
        if self._session_spc is not None:
            try:
                self._session.remove_connection_callback(self._session_spc)
            except KeyError:
                pass  # closed before
            self._session_spc.close()

    def restore(self) -> None:
        """Restore what was lost with the session."""

    def _run(self) -> None:
        try:
            self._session_callback()
        except utils.PipeConditionClosedError:
            pass

    def _session_callback(self) -> None:
        """Follow the state of the session."""
