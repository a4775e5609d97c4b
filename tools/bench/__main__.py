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

"""The program `python tools/bench`."""

import os
import sys

if __name__ == "__main__":
    _tools = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    # Replace the folder itself, so that its modules are not top-level ones.
    # The fixtures are those of the checkout.
    sys.path[:1] = [_tools, os.path.dirname(_tools)]
    # The fixtures run in this process, which measures nothing.
    os.environ["NOVA_SG_TEST_MODE"] = "threads"

    if sys.argv[1:2] == ["--plots"]:
        from bench import plots

        sys.exit(plots.main(sys.argv[2:]))

    if sys.argv[1:2] == ["--scale"]:
        from bench import scale

        sys.exit(scale.main(sys.argv[2:]))

    from bench import main

    sys.exit(main.main())
