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

"""Runs one target under atheris: tests/fuzz/__main__.py starts it."""

import os
import sys

import atheris

with atheris.instrument_imports(include=["nova_sg", "tests.fuzz"]):
    from tests.fuzz import targets


def main():
    """Fuzz the target that the first argument names."""
    name = sys.argv.pop(1)
    os.makedirs(sys.argv[-2], exist_ok=True)
    atheris.Setup(sys.argv, targets.TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
