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

# Look for bytes that the parsers of nova_sg do not expect, by atheris.
#
# Usage: tools/fuzz.sh [TARGET...] [--minutes M]
# All targets of tests/fuzz/targets.py are tried, each for M minutes, by default
# one. What fails is kept in tests/fuzz/corpus/TARGET: correct the parser, and
# keep a short form of the bytes there. The unit tests try them.
set -euo pipefail

# shellcheck source=tools/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

cd "$ROOT"
install_packages
python=$(find_python)
make_environment "$ROOT/.venv-fuzz" "$python" \
    --requirement test-requirements.txt --editable . atheris
NOVA_SG_FUZZ_KEPT=$(mktemp --directory)
export NOVA_SG_FUZZ_KEPT
trap 'rm -r "$NOVA_SG_FUZZ_KEPT"' EXIT
"$ROOT/.venv-fuzz/bin/python" -m tests.fuzz "$@"
