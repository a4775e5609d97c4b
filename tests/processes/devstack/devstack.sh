#!/usr/bin/env bash
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

# The course of DevStack's three scripts, as far as the plugin sees it.
#
# Usage: devstack.sh stack|unstack|clean FOLDER
#
# FOLDER/localrc has the variables, and FOLDER/bin/nova-sg is the program. All
# files are written below FOLDER.
# shellcheck disable=SC2034  # the plugin uses them

MODE=$1
FOLDER=$2
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
PLUGIN=$HERE/../../../devstack

# shellcheck source=tests/processes/devstack/functions.sh
source "$HERE/functions.sh"

# DevStack traces its commands. A plugin must not switch that off.
exec {BASH_XTRACEFD}>"$FOLDER/trace"
set -o xtrace
# unstack.sh and clean.sh go on after an error, stack.sh does not.
if [[ $MODE == stack ]]; then
    set -o errexit
fi

# -- the variables, as stackrc, localrc and lib/nova set them

DEST=$FOLDER/opt/stack
DATA_DIR=$DEST/data
STACK_USER=$(id -un)
if ((EUID == 0)); then
    STACK_USER=nobody
fi
os_PACKAGE=deb
GLOBAL_VENV=True
DEVSTACK_VENV=$DATA_DIR/venv
declare -A PROJECT_VENV
ENABLED_SERVICES=key,n-api,n-cond,n-sch,n-cpu,mysql,rabbit
DISABLED_SERVICES=
HOSTNAME=devstack
SERVICE_HOST=127.0.0.1
SERVICE_LISTEN_ADDRESS=127.0.0.1
VIRT_DRIVER=fake
# shellcheck source=/dev/null
source "$FOLDER/localrc"
NUMBER_FAKE_NOVA_COMPUTE=${NUMBER_FAKE_NOVA_COMPUTE:-1}
NOVA_SERVICE_REPORT_INTERVAL=${NOVA_SERVICE_REPORT_INTERVAL:-120}
NOVA_NUM_CELLS=${NOVA_NUM_CELLS:-1}
NOVA_CONF_DIR=$FOLDER/etc/nova
NOVA_CONF=$NOVA_CONF_DIR/nova.conf
NOVA_CPU_CONF=$NOVA_CONF_DIR/nova-cpu.conf
NOVA_FAKE_CONF=$NOVA_CONF_DIR/nova-fake.conf
NOVA_BIN_DIR=$FOLDER/bin

mkdir -p "$NOVA_CONF_DIR" "$DATA_DIR" "$FOLDER/pids"
touch "$FOLDER/installed"

# phase MODE [PHASE]
phase() {
    local before=$-
    record "phase $*"
    # shellcheck source=devstack/plugin.sh
    source "$PLUGIN/plugin.sh" "$@"
    if [[ $- != "$before" ]]; then
        die $LINENO "the plugin has changed the shell's options"
    fi
}

# Stands for configure_nova and create_nova_conf.
configure_nova() {
    local cell conf interval=$NOVA_SERVICE_REPORT_INTERVAL
    rm -f "$NOVA_CONF"
    iniset "$NOVA_CONF" DEFAULT debug True
    iniset "$NOVA_CONF" DEFAULT report_interval "$interval"
    iniset "$NOVA_CONF" DEFAULT service_down_time $((interval * 6))
    if [[ -n ${CONFIG_SOURCE:-} ]]; then
        iniset "$NOVA_CONF" DEFAULT config_source "$CONFIG_SOURCE"
    fi
    if is_service_enabled n-api n-cond; then
        iniset "$NOVA_CONF" database connection \
            "sqlite:///$FOLDER/nova_cell0.sqlite"
    fi
    iniset "$NOVA_CONF" upgrade_levels compute auto
    if is_service_enabled n-cond; then
        for ((cell = 1; cell <= NOVA_NUM_CELLS; cell++)); do
            conf=$(conductor_conf "$cell")
            rm -f "$conf"
            iniset "$conf" database connection \
                "sqlite:///$FOLDER/nova_cell$cell.sqlite"
            iniset "$conf" DEFAULT debug True
        done
    fi
    rm -rf "$FOLDER/stock"
    cp -r "$NOVA_CONF_DIR" "$FOLDER/stock"
}

# Changes the files as start_nova_compute does, without starting processes.
start_nova() {
    local number conf
    cp "$NOVA_CONF" "$NOVA_CPU_CONF"
    inidelete "$NOVA_CPU_CONF" database connection
    if is_service_enabled n-cpu && [[ $VIRT_DRIVER == fake ]]; then
        for ((number = 1; number <= NUMBER_FAKE_NOVA_COMPUTE; number++)); do
            conf=$NOVA_FAKE_CONF-$number
            iniset "$conf" DEFAULT host "$HOSTNAME$number"
            iniset "$conf" DEFAULT state_path "$FOLDER/$HOSTNAME$number"
        done
    fi
    record start_nova
}

# shellcheck source=devstack/settings
source "$PLUGIN/settings"

case $MODE in
stack)
    phase stack pre-install
    if is_service_enabled nova; then
        configure_nova
    fi
    phase stack install
    phase stack post-config
    if is_service_enabled nova; then
        start_nova
    fi
    phase stack extra
    phase stack test-config
    ;;
unstack)
    phase unstack
    ;;
clean)
    phase clean
    ;;
esac
# This line is missing if the plugin ends a phase by a failure or by exit.
record "end of $MODE"
