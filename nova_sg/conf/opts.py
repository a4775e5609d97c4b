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

"""The options as oslo-config-generator asks for them."""

import copy

from oslo_config import cfg

from nova_sg import conf


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    """Return (section, options) for the sample file."""
    sections: dict[str, list[cfg.Opt]] = {}
    for module in conf.SECTIONS:
        for group, opts in module.list_opts().items():
            sections.setdefault(group, []).extend(copy.deepcopy(opts))
    return list(sections.items())
