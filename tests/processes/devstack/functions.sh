# shellcheck shell=bash
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

# Stand-ins for the functions of DevStack that the plugin calls. Each call is a
# line in $FOLDER/calls. ini files are really written, and processes really
# run. devstack.sh sources this.

record() {
    printf '%s\n' "$*" >>"$FOLDER/calls"
}

# -- changes of the system

sudo() {
    "$@"
}

die() {
    shift
    printf '[ERROR] %s\n' "$*" >&2
    exit 1
}

# shellcheck disable=SC2154  # devstack.sh and localrc set it
is_ubuntu() {
    [[ $os_PACKAGE == deb ]]
}

is_package_installed() {
    grep -qxF "$1" "$FOLDER/installed"
}

install_package() {
    record install_package "$@"
    printf '%s\n' "$@" >>"$FOLDER/installed"
}

uninstall_package() {
    record uninstall_package "$@"
}

setup_develop() {
    record setup_develop "$1 in $PIP_VIRTUAL_ENV"
}

pip_uninstall() {
    record pip_uninstall "$1 in $PIP_VIRTUAL_ENV"
}

# -- services

define_plugin() {
    record define_plugin "$@"
}

enable_plugin() {
    record enable_plugin "$@"
}

is_service_enabled() {
    local service
    for service in "$@"; do
        if [[ ,$ENABLED_SERVICES, == *,$service,* ||
            $service == nova && ,$ENABLED_SERVICES == *,n-* ]]; then
            return 0
        fi
    done
    return 1
}

enable_service() {
    local service
    for service in "$@"; do
        if [[ ,$DISABLED_SERVICES, != *,$service,* ]] &&
            ! is_service_enabled "$service"; then
            ENABLED_SERVICES+=,$service
        fi
    done
}

disable_service() {
    local service
    for service in "$@"; do
        DISABLED_SERVICES+=,$service
        ENABLED_SERVICES=,$ENABLED_SERVICES,
        ENABLED_SERVICES=${ENABLED_SERVICES/,$service,/,}
        ENABLED_SERVICES=${ENABLED_SERVICES#,}
        ENABLED_SERVICES=${ENABLED_SERVICES%,}
    done
}

# Run it like a unit: without a terminal, as the user of DevStack.
run_process() {
    local service=$1 command user=()
    read -ra command <<<"$2"
    if ! is_service_enabled "$service"; then
        return 0
    fi
    record run_process "$service" "$2"
    if ((EUID == 0)); then
        user=(setpriv "--reuid=$STACK_USER" --clear-groups)
    fi
    setsid "${user[@]}" "${command[@]}" \
        </dev/null >>"$FOLDER/$service.log" 2>&1 &
    echo $! >"$FOLDER/pids/$service"
}

stop_process() {
    local service=$1 pid
    if is_service_enabled "$service" && [[ -e $FOLDER/pids/$service ]]; then
        record stop_process "$service"
        pid=$(<"$FOLDER/pids/$service")
        kill "$pid"
        # A shell can wait for its own children only.
        while kill -0 "$pid" 2>/dev/null && ! is_zombie "$pid"; do
            sleep 0.05
        done
        rm "$FOLDER/pids/$service"
    fi
}

is_zombie() {
    # Its other threads may still end, and keep its ports until then.
    local threads=("/proc/$1/task"/*)
    ((${#threads[@]} == 1)) &&
        grep -q '^State:.Z' "/proc/$1/status" 2>/dev/null
}

# -- configuration

ipv6_unquote() {
    tr -d '[]' <<<"$1"
}

# ini get|set|delete FILE SECTION OPTION [VALUE]
ini() {
    local action=$1 file=$2
    touch "$file"
    SECTION=[$3] OPTION=$4 VALUE=${5:-} awk -v action="$action" '
        function assign() { print ENVIRON["OPTION"] " = " ENVIRON["VALUE"] }
        /^\[/ { here = ($0 == ENVIRON["SECTION"]) }
        here && $0 ~ ("^" ENVIRON["OPTION"] "[ \t]*=") {
            if (action == "get") { sub("^[^=]*=[ \t]*", ""); print }
            next
        }
        action != "get" { print }
        action == "set" && $0 == ENVIRON["SECTION"] { assign(); done = 1 }
        END {
            if (action == "set" && !done) {
                print "\n" ENVIRON["SECTION"]
                assign()
            }
        }' "$file" >"$FOLDER/ini"
    if [[ $action == get ]]; then
        cat "$FOLDER/ini"
    else
        cat "$FOLDER/ini" >"$file"
    fi
}

iniget() {
    ini get "$@"
}

iniset() {
    record iniset "$@"
    ini set "$@"
}

inidelete() {
    ini delete "$@"
}

conductor_conf() {
    echo "$NOVA_CONF_DIR/nova_cell$1.conf"
}

# -- the rest

echo_summary() {
    echo "$@"
}

async_wait() {
    record async_wait "$@"
}

stop_nova() {
    record stop_nova
}
