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

"""[database]: oslo.db's options, of which nova_sg reads `connection`."""

import copy

from oslo_config import cfg
from oslo_db import options

_READ = ("connection",)

DATABASE_OPTS = [
    copy.copy(opt) for opt in options.database_opts if opt.name in _READ
]


def list_opts() -> dict[str, list[cfg.Opt]]:
    """Return the options of this module by their section."""
    return {"database": DATABASE_OPTS}
