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

# A real Nova on this machine, to try nova_sg on: MariaDB, RabbitMQ, placement,
# conductor, scheduler, API and a compute with Nova's fake driver, on loopback.
# It runs until Ctrl-C and leaves nothing behind.
#
# Usage: tools/nova-rig.sh [--nova RELEASE] [--driver zk|mc|db|stock]
#                          [--mode threads|eventlet] [--help] ... [COMMAND...]
#
# RELEASE is an older one, see tools/nova-env.sh: tools/nova-rig.sh --nova 32
#
# "tools/nova-rig.sh many" measures the costs of 200 computes, with each driver
# of Nova and of nova_sg; "many --help" lists the options.
set -euo pipefail

# shellcheck source=tools/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

cd "$ROOT"
install_packages
release=()
if [[ ${1:-} == --nova ]]; then
    release=("${2:?the number of a release}")
    shift 2
fi
python=$(tools/nova-env.sh "${release[@]}")
script=rig.py
if [[ ${1:-} == many ]]; then
    script=many.py
    shift
fi
PYTHONPATH=$ROOT:$ROOT/tools exec "$python" "tools/nova-rig/$script" "$@"
