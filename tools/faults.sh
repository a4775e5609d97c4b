#!/usr/bin/env bash
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

# Play faults and print what observers answered: nova_sg, and stock Nova.
#
# Usage: tools/faults.sh [OPTION...] [NAME...]; --help lists the options.
# tools/faults.sh --long --write doc/source/faults.txt makes the table of the
# documentation.
set -euo pipefail

# shellcheck source=tools/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

prepare_tests
NOVA_SG_NOVA_PYTHON=$(tools/nova-env.sh)
export NOVA_SG_NOVA_PYTHON
exec "$ROOT/.venv-test/bin/python" -m tests.faults "$@"
