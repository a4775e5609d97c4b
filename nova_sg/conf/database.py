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

"""[database]: oslo.db's options, by their own names.

oslo.db adds options now and then. tests/cases/test_database.py fails until
each of them is in HONOURED or in WITHOUT_EFFECT.
"""

import copy

from oslo_config import cfg
from oslo_db import options

#: The options that nova_sg reads, with what differs from oslo.db's: default,
#: help.
HONOURED: dict[str, dict] = {
    "backend": {},
    "connection": {},
    "connection_parameters": {
        # They may contain a password.
        "secret": True,
    },
    "connection_recycle_time": {},
    "connection_debug": {},
    "max_pool_size": {
        "default": 10,
        "help": """
How many connections to the database server a process keeps open. 0 is no
limit. With SQLite it has no effect.

The default is enough for a process with thousands of members. They are made
on demand: an agent has two.
""",
    },
    "max_overflow": {
        "default": 0,
        "help": """
How many connections a process may open beyond max_pool_size while it needs
them at the same time. -1 is no limit. With SQLite it has no effect.

By default there are none. A process may always have ten in all, as a report
must not wait for the connection of a refresh.
""",
    },
    "mysql_sql_mode": {},
    "mysql_wsrep_sync_wait": {},
    "pool_timeout": {
        "help": """
Seconds that a call waits for a connection while all of them are in use.

The default, and the most, is the time for which the driver waits for an
answer: a quarter of service_down_time, at least 1 and at most 10 seconds.
""",
    },
    "sqlite_synchronous": {
        "help": """
If True, the SQLite database survives a failure of the power. Its last reports
need not. If False, it may have to be made anew after that.
""",
    },
}

_TRIES = (
    "a call is tried again within its own time, and each report at the next "
    "interval, for ever"
)
#: The options of oslo.db that may be set for other programs and have no effect
#: here, and why.
WITHOUT_EFFECT = {
    "slave_connection": "a replica may be behind, and would show living "
    "members as silent; observers read where members write",
    "synchronous_reader": "it concerns slave_connection",
    "asyncio_connection": "nova_sg does not use asyncio",
    "asyncio_slave_connection": "nova_sg does not use asyncio",
    "connection_trace": "the statements are few, each in one place of the "
    "code; connection_debug shows them",
    "max_retries": _TRIES,
    "retry_interval": _TRIES,
    "use_db_reconnect": _TRIES,
    "db_retry_interval": _TRIES,
    "db_inc_retry_interval": _TRIES,
    "db_max_retry_interval": _TRIES,
    "db_max_retries": _TRIES,
}


def _option(theirs: cfg.Opt) -> cfg.Opt:
    ours = copy.copy(theirs)
    for name, value in HONOURED[theirs.name].items():
        setattr(ours, name, value)
    return ours


DATABASE_OPTS = [
    _option(opt) for opt in options.database_opts if opt.name in HONOURED
]


def list_opts() -> dict[str, list[cfg.Opt]]:
    """Return the options of this module by their section."""
    return {"database": DATABASE_OPTS}
