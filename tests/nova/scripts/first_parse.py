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


"""Prints the modules that Nova's first reading of its options imports.

Usage: python first_parse.py --config-file FILE

Nova reads its configuration once before it decides on the concurrency mode.
Modules that this imports are not patched.
"""

import json
import sys

from nova import monkey_patch

before = set(sys.modules)
mode = monkey_patch._get_concurrency_from_config()
print(json.dumps({"mode": mode, "modules": sorted(set(sys.modules) - before)}))
