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

"""python-zookeeper's API on Python 3: the official C client, by cffi.

A program that says `import zookeeper` works with
`from nova_sg import zookeeper`: the same functions, constants, exceptions
and callback arguments. api.py documents the functions.

The import works without the C client. If that is missing, the first call that
needs it raises LibraryNotFound, which is also an ImportError and names
Debian's package (libzookeeper-mt2).

Under eventlet the package has to be imported after monkey-patching, and used
from the thread that runs the hub. With native threads any thread may use it.

:var Immediate: wraps a callback that returns at once, so that it may run on
    the thread of the dispatcher, see dispatch.py.
"""

from typing import Any

from nova_sg.zookeeper import api, constants
from nova_sg.zookeeper.api import *  # noqa: F403
from nova_sg.zookeeper.constants import *  # noqa: F403
from nova_sg.zookeeper.dispatch import Immediate as Immediate
from nova_sg.zookeeper.exceptions import *  # noqa: F403
from nova_sg.zookeeper.logstream import set_debug_level as set_debug_level
from nova_sg.zookeeper.logstream import set_log_stream as set_log_stream

__version__ = constants.__version__



def __getattr__(name: str) -> Any:
    # Only where the C library has TLS, so that hasattr() tells a program,
    # as it does with python-zookeeper.
    if name == "init_ssl":
        return api.init_ssl()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


# A keyword since Python 3.7: reached by getattr(zookeeper, "async").
globals()["async"] = api.async_
