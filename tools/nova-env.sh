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

# Make the environment .venv-nova, with a released Nova, which some tests and
# tools/bench need, unless it exists. Print the path of its Python.
#
# Usage: tools/nova-env.sh [RELEASE]
#
# RELEASE is an older one that tests/constraints has a file for, of OpenStack,
# such as 2025.1, or of Nova, such as 31. Its Nova has an environment of its
# own, such as .venv-nova-2025.1. tools/run-tests.sh and tools/nova-rig.sh use
# it with --nova RELEASE.
#
# Nova has an environment of its own, as it has many requirements, some of
# which contradict those that the project itself is tested with.
set -euo pipefail

# shellcheck source=tools/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# Nova's newest release.
NEWEST=34

# openstack_release RELEASE: print OpenStack's name of a release of Nova.
openstack_release() {
    local found name names=()
    for found in "$ROOT"/tests/constraints/20*.txt; do
        name=$(basename "$found" .txt)
        names+=("$name")
        if [[ $1 == "$name" ]] || grep -qx "nova==$1\.\*" "$found"; then
            printf '%s\n' "$name"
            return
        fi
    done
    die "there is no release \"$1\" in tests/constraints; take one of" \
        "${names[*]}, or the number of its Nova"
}

release=${1:-}
if [[ $release == "$NEWEST" ]]; then
    release=
elif [[ -n $release ]]; then
    release=$(openstack_release "$release")
fi
environment=$ROOT/.venv-nova${release:+-$release}
if [[ -z $release ]]; then
    packages=(
        "nova==$NEWEST.0.0"
        'SQLAlchemy<2.1'
        # For the test of its hostmonitor with nova_sg's driver.
        masakari-monitors==22.0.0
    )
else
    packages=(nova --constraint "$ROOT/tests/constraints/$release.txt")
fi
packages+=(
    openstack-placement
    PyMySQL
    # For Nova's own tests.
    ddt
    fixtures
    oslotest
    requests-mock
    stestr
    testresources
    testscenarios
    testtools
    wsgi-intercept
    # Web servers for Nova's API and placement's, in tools/nova-rig.sh.
    pyuwsgi
    waitress
    # The libraries of tooz for memcached and ZooKeeper, for the benchmark.
    kazoo
    pymemcache
    # For the benchmark's plots.
    matplotlib
    # nova_sg itself, for Nova's own tests to run against it.
    --editable .
)

# Test processes that run side by side may all need it.
exec {lock}<"${BASH_SOURCE[0]}"
flock "$lock"
python=$(find_python)
make_environment "$environment" "$python" "${packages[@]}"
printf '%s\n' "$environment/bin/python"
