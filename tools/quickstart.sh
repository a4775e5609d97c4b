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

# Set up nova_sg and show its main job: three agents join a group, one is
# killed, the others notice, it comes back.
#
# Usage: tools/quickstart.sh [FILE]
#
# It uses SQLite; or, with FILE, one more nova-sg.conf, the driver and the
# servers of that file.
#
# Environment: PYTHON, the Python to use. No process is left running. Files are
# written only in this checkout and in a temporary folder.
set -euo pipefail

# shellcheck source=tools/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

ENVIRONMENT=$ROOT/.venv
NODES=(node1 node2 node3)
# Seconds to wait for a member to come up or to go down.
PATIENCE=20

configuration=()
if (($#)); then
    [[ $# == 1 && -r $1 ]] ||
        die "usage: tools/quickstart.sh [FILE], a nova-sg.conf; not: $*"
    configuration=(--config-file "$(realpath "$1")")
fi

folder=$(mktemp -d -t nova-sg-quickstart.XXXXXX)
declare -A agents=()

# Whatever ends this script ends its agents.
clean_up() {
    local status=$? node
    trap - EXIT
    # A status above 128 is that of a signal, such as Ctrl-C.
    if ((status > 0 && status < 128)) &&
        compgen -G "$folder/*.log" >/dev/null; then
        printf '%s: failed; the ends of the logs:\n' "${0##*/}" >&2
        tail -n 20 "$folder"/*.log >&2
    fi
    for node in "${!agents[@]}"; do
        kill_agent "$node"
    done
    rm -rf "$folder"
    exit "$status"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# pip and the plugin loader keep caches, which must not be left behind.
export XDG_CACHE_HOME=$folder/cache TMPDIR=$folder
unset PIP_CACHE_DIR

install() {
    local python
    if ! "$ENVIRONMENT/bin/python" -m pip --version &>/dev/null; then
        python=$(find_python)
        ensure_venv_module "$python"
        say "Making ${ENVIRONMENT#"$ROOT"/} with $python"
        # A file of this name is left by tox; it points to tox's environment.
        [[ -d $ENVIRONMENT ]] || rm -f "$ENVIRONMENT"
        "$python" -m venv --clear "$ENVIRONMENT"
    fi
    say "Installing nova_sg into ${ENVIRONMENT#"$ROOT"/}"
    trust_checkout
    # setuptools would also install files of an earlier build.
    rm -rf "$ROOT/build/lib"
    "$ENVIRONMENT/bin/python" -m pip install --quiet "${ROOT}[eventlet]"
}

configure() {
    cat >"$folder/nova-sg.conf" <<EOF
[DEFAULT]
state_path = $folder
report_interval = 1
service_down_time = 3

[servicegroup]
view_refresh_interval = 0.5
EOF
    say 'Times are short for the show: a report every second, down after 3 s'
    say '(by default a report every 10 s, down after 60 s)'
}

nova_sg() {
    "$ENVIRONMENT/bin/nova-sg" --config-file "$folder/nova-sg.conf" \
        "${configuration[@]}" "$@"
}

start_agent() {
    local node=$1
    "$ENVIRONMENT/bin/nova-sg-agent" \
        --config-file "$folder/nova-sg.conf" "${configuration[@]}" \
        --host "$node" \
        --log-file "$folder/$node.log" </dev/null &>"$folder/$node.out.log" &
    agents[$node]=$!
}

kill_agent() {
    local pid=${agents[$1]}
    # bash would report the killed job on stderr.
    { kill -KILL "$pid" && wait "$pid"; } 2>/dev/null || true
    unset "agents[$1]"
}

# End an agent by SIGTERM; make sure that it ends with status 0.
stop_agents() {
    local node pid status deadline=$((SECONDS + PATIENCE))
    kill -TERM "${agents[@]}" || die 'an agent had ended by itself'
    for node in "${NODES[@]}"; do
        pid=${agents[$node]}
        while kill -0 "$pid" 2>/dev/null; do
            ((SECONDS < deadline)) || die "the agent of $node does not end"
            sleep 0.1
        done
        unset "agents[$node]"
        status=0
        wait "$pid" || status=$?
        ((status == 0)) || die "the agent of $node ended with status $status"
    done
}

# wait_for NODE up|down
wait_for() {
    nova_sg wait "$1" --for "$2" --timeout "$PATIENCE" >/dev/null ||
        die "$1 is not $2 after $PATIENCE s"
}

# Every process of this script has the temporary folder in its command line.
check_nothing_left() {
    local process
    for process in /proc/[0-9]*; do
        if grep -qsF "$folder" "$process/cmdline"; then
            die "process ${process#/proc/} is still running"
        fi
    done
}

install
configure

say "Starting three agents, which join the group compute: ${NODES[*]}"
for node in "${NODES[@]}"; do
    start_agent "$node"
done
for node in "${NODES[@]}"; do
    wait_for "$node" up
done
nova_sg list

say "Killing node2 (SIGKILL, process ${agents[node2]})"
kill_agent node2
wait_for node2 down
nova_sg list

say 'Starting node2 again'
start_agent node2
wait_for node2 up
nova_sg list

say 'Stopping all agents (SIGTERM)'
stop_agents
check_nothing_left
say 'All agents have ended. Nothing is left running.'
