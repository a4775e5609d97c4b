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

"""Pure logic. It does not depend on the concurrency mode and runs once."""

import os
import tempfile

# They import whatever is installed, which may not bear being patched by
# eventlet; and every test is loaded in both modes.
os.environ.setdefault("HYPOTHESIS_NO_PLUGINS", "1")
# What it found is printed, see below; nothing is written here.
os.environ.setdefault(
    "HYPOTHESIS_STORAGE_DIRECTORY",
    os.path.join(tempfile.gettempdir(), "hypothesis"),
)

import hypothesis

# A machine that is busy with other things is no defect of what is tested.
hypothesis.settings.register_profile(
    "nova_sg",
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
    # How to have it again.
    print_blob=True,
)
hypothesis.settings.load_profile("nova_sg")
