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

"""The one module that knows eventlet: makes a process a green one.

A green process imports this module first and calls patch() before it
imports anything else. Everything else in nova_sg is written on the standard
library, which is green from then on, and runs as well on native threads.
"""

import warnings


def patch() -> None:
    """Patch the standard library and choose oslo.service's eventlet backend.

    Calling it twice does nothing more.

    :raises oslo_service.backend.exceptions.BackendAlreadySelected: when the
        process has chosen native threads before
    """
    with warnings.catch_warnings():
        # Whoever runs a green process has decided; telling the operator at
        # every start of every command helps nobody.
        warnings.filterwarnings("ignore", message=r"\s*Eventlet is deprecat")
        import eventlet

    eventlet.monkey_patch()

    from oslo_service import backend

    backend.init_backend(backend.BackendType.EVENTLET)
