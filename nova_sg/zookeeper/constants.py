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

"""The numbers of python-zookeeper's API.

Here: constants, as plain integers, so that they can be read without the C
library. Not here: the exceptions (exceptions.py). A test compares them with
those of the C library.
"""

# The version of the C headers that clib.py declares. python-zookeeper's
# version is also that of the headers with which it was compiled.
__version__ = "3.8.0"

PERM_READ = 1
PERM_WRITE = 2
PERM_CREATE = 4
PERM_DELETE = 8
PERM_ADMIN = 16
PERM_ALL = 31

EPHEMERAL = 1
SEQUENCE = 2

EXPIRED_SESSION_STATE = -112
AUTH_FAILED_STATE = -113
CONNECTING_STATE = 1
ASSOCIATING_STATE = 2
CONNECTED_STATE = 3
READONLY_STATE = 5
NOTCONNECTED_STATE = 999

CREATED_EVENT = 1
DELETED_EVENT = 2
CHANGED_EVENT = 3
CHILD_EVENT = 4
SESSION_EVENT = -1
NOTWATCHING_EVENT = -2

LOG_LEVEL_ERROR = 1
LOG_LEVEL_WARN = 2
LOG_LEVEL_INFO = 3
LOG_LEVEL_DEBUG = 4

OK = 0
SYSTEMERROR = -1
RUNTIMEINCONSISTENCY = -2
DATAINCONSISTENCY = -3
CONNECTIONLOSS = -4
MARSHALLINGERROR = -5
UNIMPLEMENTED = -6
OPERATIONTIMEOUT = -7
BADARGUMENTS = -8
INVALIDSTATE = -9
NEWCONFIGNOQUORUM = -13
RECONFIGINPROGRESS = -14
SSLCONNECTIONERROR = -15

APIERROR = -100
NONODE = -101
NOAUTH = -102
BADVERSION = -103
NOCHILDRENFOREPHEMERALS = -108
NODEEXISTS = -110
NOTEMPTY = -111
SESSIONEXPIRED = -112
INVALIDCALLBACK = -113
INVALIDACL = -114
AUTHFAILED = -115
CLOSING = -116
NOTHING = -117
SESSIONMOVED = -118
NOTREADONLY = -119
EPHEMERALONLOCALSESSION = -120
NOWATCHER = -121
RECONFIGDISABLED = -123
SESSIONCLOSEDREQUIRESASLAUTH = -124
THROTTLEDOP = -127
