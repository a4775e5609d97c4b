# shellcheck shell=bash
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

# DevStack sources this in each phase: plugin.sh MODE [PHASE]. README.rst
# explains what it does, and its variables.
#
# stack pre-install   checks the variables, installs packages
# stack install       installs nova_sg in Nova's environment
# stack post-config   writes Nova's configuration, starts the servers
# stack test-config   checks the result
# unstack             stops the servers, undoes the configuration
# clean               uninstalls nova_sg, removes the data

_XTRACE_NOVA_SG=$(set +o | grep xtrace)
set +o xtrace

# The services' names in DevStack and systemd.
NOVA_SG_ZOOKEEPER_SERVICES=(nova-sg-zk-1 nova-sg-zk-2 nova-sg-zk-3)
NOVA_SG_MEMCACHED_SERVICE=nova-sg-memcached
# The options that have to be the same for members and observers.
NOVA_SG_TIMES=(report_interval service_down_time)


# The variables
# -------------

# _check_nova_sg_ports VARIABLE COUNT - COUNT ports from that of the variable
function _check_nova_sg_ports {
    local name=$1 count=$2
    local value=${!name}
    if [[ ! $value =~ ^[1-9][0-9]{0,4}$ ]] ||
        ((value + count - 1 > 65535)); then
        die $LINENO "$name=$value is not a port: set it to a number from 1" \
            "to $((65536 - count)), or remove it from local.conf"
    fi
}

# check_nova_sg_settings - die if a value is wrong
function check_nova_sg_settings {
    local host='([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])'
    local one count

    case $NOVA_SG_DRIVER in
    db | mc | zk) ;;
    *)
        die $LINENO "NOVA_SG_DRIVER=$NOVA_SG_DRIVER is not a driver: set it" \
            "to db, mc or zk"
        ;;
    esac

    case $NOVA_SG_ZOOKEEPER_SERVERS in
    1 | 3) ;;
    *)
        die $LINENO "NOVA_SG_ZOOKEEPER_SERVERS=$NOVA_SG_ZOOKEEPER_SERVERS:" \
            "set it to 1 or 3, the number of ZooKeeper servers to run here;" \
            "for servers elsewhere set NOVA_SG_ZOOKEEPER_ADDRESS"
        ;;
    esac
    count=$NOVA_SG_ZOOKEEPER_SERVERS
    _check_nova_sg_ports NOVA_SG_ZOOKEEPER_PORT "$count"
    _check_nova_sg_ports NOVA_SG_ZOOKEEPER_PEER_PORT 6
    _check_nova_sg_ports NOVA_SG_MEMCACHED_PORT 1
    if ((count > 1 &&
        NOVA_SG_ZOOKEEPER_PORT < NOVA_SG_ZOOKEEPER_PEER_PORT + 6 &&
        NOVA_SG_ZOOKEEPER_PEER_PORT < NOVA_SG_ZOOKEEPER_PORT + count)); then
        die $LINENO "NOVA_SG_ZOOKEEPER_PEER_PORT=$NOVA_SG_ZOOKEEPER_PEER_PORT" \
            "and the five ports after it overlap with the $count from" \
            "NOVA_SG_ZOOKEEPER_PORT=$NOVA_SG_ZOOKEEPER_PORT: move one of them"
    fi

    if [[ -n $NOVA_SG_ZOOKEEPER_ADDRESS &&
        ! $NOVA_SG_ZOOKEEPER_ADDRESS =~ ^$host:[0-9]+(,$host:[0-9]+)*(/[^/ ]+)*$ ]]; then
        die $LINENO "NOVA_SG_ZOOKEEPER_ADDRESS=$NOVA_SG_ZOOKEEPER_ADDRESS:" \
            "write HOST:PORT, with commas and no spaces between several, or" \
            "remove it from local.conf to have a ZooKeeper installed"
    fi
    for one in ${NOVA_SG_MEMCACHED_SERVERS//,/ }; do
        if [[ ! $one =~ ^((inet6:)?$host:[0-9]+|unix:/.+)$ ]]; then
            die $LINENO "NOVA_SG_MEMCACHED_SERVERS: $one is not a server:" \
                "write HOST:PORT, inet6:[ADDRESS]:PORT or unix:PATH, with" \
                "commas between several, or remove it from local.conf to" \
                "have a memcached installed"
        fi
    done

    if [[ $NOVA_SG_DRIVER == zk ]] && ! is_ubuntu; then
        die $LINENO "NOVA_SG_DRIVER=zk needs ZooKeeper's C client library," \
            "which the plugin knows as a package of Debian and Ubuntu only:" \
            "set NOVA_SG_DRIVER to mc or db"
    fi
}

# enable_nova_sg_services - have this node run the servers if it has the API
#
# The other nodes find them at SERVICE_HOST. No node runs any if local.conf
# names other servers.
function enable_nova_sg_services {
    if ! is_service_enabled n-api; then
        return 0
    fi
    if [[ $NOVA_SG_DRIVER == mc && -z $NOVA_SG_MEMCACHED_SERVERS ]]; then
        enable_service "$NOVA_SG_MEMCACHED_SERVICE"
    elif [[ $NOVA_SG_DRIVER == zk && -z $NOVA_SG_ZOOKEEPER_ADDRESS ]]; then
        enable_service \
            "${NOVA_SG_ZOOKEEPER_SERVICES[@]:0:NOVA_SG_ZOOKEEPER_SERVERS}"
    fi
}

# _nova_sg_memcached_servers - print the value for memcached_servers
function _nova_sg_memcached_servers {
    local host=$SERVICE_HOST
    if [[ $host == \[* ]]; then
        host=inet6:$host
    fi
    echo "${NOVA_SG_MEMCACHED_SERVERS:-$host:$NOVA_SG_MEMCACHED_PORT}"
}

# _nova_sg_zookeeper_address - print the value for [zookeeper] address
function _nova_sg_zookeeper_address {
    local number address=$NOVA_SG_ZOOKEEPER_ADDRESS
    if [[ -z $address ]]; then
        for ((number = 0; number < NOVA_SG_ZOOKEEPER_SERVERS; number++)); do
            address+=,$SERVICE_HOST:$((NOVA_SG_ZOOKEEPER_PORT + number))
        done
    fi
    # The C client takes all before the last colon for the host, brackets
    # and all.
    ipv6_unquote "${address#,}"
}


# Packages
# --------

# install_nova_sg_packages - install the driver's packages of Debian or Ubuntu
function install_nova_sg_packages {
    local package packages=() new=()
    if [[ $NOVA_SG_DRIVER == zk ]]; then
        packages+=(libzookeeper-mt2)
    fi
    if is_service_enabled "$NOVA_SG_MEMCACHED_SERVICE"; then
        packages+=(memcached)
    fi
    if is_service_enabled "${NOVA_SG_ZOOKEEPER_SERVICES[0]}"; then
        # Only the classes: the package zookeeperd would run a server with
        # another configuration.
        packages+=(libzookeeper-java default-jre-headless)
    fi
    for package in "${packages[@]}"; do
        if ! is_package_installed "$package"; then
            new+=("$package")
        fi
    done
    sudo install -d -o "$STACK_USER" "$NOVA_SG_DATA_DIR"
    if ((${#new[@]})); then
        install_package "${new[@]}"
        # For clean.sh, which removes only the packages installed here.
        printf '%s\n' "${new[@]}" >>"$NOVA_SG_DATA_DIR/packages"
    fi
}

# _in_nova_environment COMMAND... - have pip_install and its kin use Nova's
function _in_nova_environment {
    local PIP_VIRTUAL_ENV=${PIP_VIRTUAL_ENV:-}
    if [[ -n ${PROJECT_VENV[nova]:-} ]]; then
        PIP_VIRTUAL_ENV=${PROJECT_VENV[nova]}
    elif [[ ${GLOBAL_VENV:-} == True ]]; then
        # pip_uninstall, unlike pip_install, has to be told.
        PIP_VIRTUAL_ENV=$DEVSTACK_VENV
    fi
    "$@"
}


# Configuration
# -------------

# _nova_sg_written_confs - print the files that configure_nova_sg writes
#
# nova-compute, real or fake, starts with a copy of nova.conf that start_nova
# makes.
function _nova_sg_written_confs {
    local number conf
    echo "$NOVA_CONF"
    for ((number = 1; number <= NOVA_NUM_CELLS; number++)); do
        conf=$(conductor_conf "$number")
        # It exists only on the node of the cell's conductor.
        if [[ -e $conf ]]; then
            echo "$conf"
        fi
    done
}

# configure_nova_sg - have all of Nova's services use nova_sg
function configure_nova_sg {
    local conf confs
    # This runs in the background and writes to the same files.
    async_wait configure_neutron_nova
    confs=$(_nova_sg_written_confs)
    for conf in $confs; do
        _configure_nova_sg_in "$conf"
    done
}

function _configure_nova_sg_in {
    local conf=$1 sources option value
    sources=$(iniget "$conf" DEFAULT config_source)
    sources=${sources// /}
    if [[ ,$sources, != *,nova_sg,* ]]; then
        iniset "$conf" DEFAULT config_source "${sources:+$sources,}nova_sg"
    fi
    iniset "$conf" nova_sg driver nova_sg
    iniset "$conf" DEFAULT servicegroup_driver "$NOVA_SG_DRIVER"
    case $NOVA_SG_DRIVER in
    mc)
        iniset "$conf" DEFAULT memcached_servers \
            "$(_nova_sg_memcached_servers)"
        ;;
    zk)
        iniset "$conf" zookeeper address "$(_nova_sg_zookeeper_address)"
        ;;
    esac
    # DevStack writes these into nova.conf alone. A cell's conductor with
    # Nova's defaults could call a compute down between two of its reports.
    for option in "${NOVA_SG_TIMES[@]}"; do
        value=$(iniget "$NOVA_CONF" DEFAULT "$option")
        if [[ -n $value && -z $(iniget "$conf" DEFAULT "$option") ]]; then
            iniset "$conf" DEFAULT "$option" "$value"
        fi
    done
}

# unconfigure_nova_sg - restore Nova's files
function unconfigure_nova_sg {
    local conf confs
    confs=$(_nova_sg_written_confs)
    # A file may be from an earlier run with more cells or fake computes.
    for conf in $confs "$NOVA_CPU_CONF" "$NOVA_FAKE_CONF"-* \
        "$NOVA_CONF_DIR"/nova_cell*.conf; do
        if [[ -e $conf && -n $(iniget "$conf" nova_sg driver) ]]; then
            _unconfigure_nova_sg_in "$conf"
        fi
    done
}

function _unconfigure_nova_sg_in {
    local conf=$1 sources option section
    sources=,$(iniget "$conf" DEFAULT config_source),
    sources=${sources// /}
    sources=${sources/,nova_sg,/,}
    sources=${sources#,}
    sources=${sources%,}
    if [[ -n $sources ]]; then
        iniset "$conf" DEFAULT config_source "$sources"
    else
        inidelete "$conf" DEFAULT config_source
    fi
    for option in servicegroup_driver memcached_servers; do
        inidelete "$conf" DEFAULT "$option"
    done
    inidelete "$conf" zookeeper address
    inidelete "$conf" nova_sg driver
    if [[ $conf == "$NOVA_CONF_DIR"/nova_cell*.conf ]]; then
        for option in "${NOVA_SG_TIMES[@]}"; do
            if [[ $(iniget "$conf" DEFAULT "$option") == \
                $(iniget "$NOVA_CONF" DEFAULT "$option") ]]; then
                inidelete "$conf" DEFAULT "$option"
            fi
        done
    fi
    # Remove empty sections, with the empty line that iniset put above.
    for section in zookeeper nova_sg; do
        sed -i -z "s/\n\n\[$section\]\n\(\n\|\[\|\$\)/\n\1/" "$conf"
    done
}


# Servers
# -------

# start_nova_sg_servers - start this node's servers, and wait for them
function start_nova_sg_servers {
    local index service
    # Servers of an earlier run have other options and old members.
    stop_nova_sg_servers
    if is_service_enabled "$NOVA_SG_MEMCACHED_SERVICE"; then
        _nova_sg_port_is_free NOVA_SG_MEMCACHED_PORT "$NOVA_SG_MEMCACHED_PORT"
        run_process "$NOVA_SG_MEMCACHED_SERVICE" "$(_nova_sg_memcached)"
        _wait_for_nova_sg "$NOVA_SG_MEMCACHED_SERVICE" \
            "$NOVA_SG_MEMCACHED_PORT" 'version\r\nquit\r\n' '^VERSION '
    fi
    for index in "${!NOVA_SG_ZOOKEEPER_SERVICES[@]}"; do
        service=${NOVA_SG_ZOOKEEPER_SERVICES[index]}
        if is_service_enabled "$service"; then
            _nova_sg_port_is_free NOVA_SG_ZOOKEEPER_PORT \
                $((NOVA_SG_ZOOKEEPER_PORT + index))
            _configure_nova_sg_zookeeper $((index + 1))
            run_process "$service" "$(_nova_sg_zookeeper $((index + 1)))"
        fi
    done
    # With three servers none answers before two of them run.
    for index in "${!NOVA_SG_ZOOKEEPER_SERVICES[@]}"; do
        service=${NOVA_SG_ZOOKEEPER_SERVICES[index]}
        if is_service_enabled "$service"; then
            _wait_for_nova_sg "$service" \
                $((NOVA_SG_ZOOKEEPER_PORT + index)) 'srvr\n' '^Mode: '
        fi
    done
}

# stop_nova_sg_servers - stop all servers, also those not configured now
function stop_nova_sg_servers {
    local service
    for service in "$NOVA_SG_MEMCACHED_SERVICE" \
        "${NOVA_SG_ZOOKEEPER_SERVICES[@]}"; do
        # stop_process stops enabled services only.
        (
            enable_service "$service"
            stop_process "$service"
        )
    done
}

# _nova_sg_memcached - print the command
function _nova_sg_memcached {
    echo "/usr/bin/memcached" \
        "-l $(ipv6_unquote "$SERVICE_LISTEN_ADDRESS")" \
        "-p $NOVA_SG_MEMCACHED_PORT -U 0"
}

# _nova_sg_zookeeper NUMBER - print the command
function _nova_sg_zookeeper {
    local jars=/usr/share/java
    # Debian's scripts are for one server a machine. Warnings go to the journal.
    # With -Xrs Java ends by SIGTERM, which systemd takes for a clean end;
    # otherwise by the status 143, and the unit is failed after unstack.sh.
    echo "/usr/bin/java -Xmx256m -Xrs" \
        "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn" \
        "-Dzookeeper.jmx.log4j.disable=true" \
        "-cp $jars/zookeeper.jar:$jars/slf4j-simple.jar" \
        "org.apache.zookeeper.server.quorum.QuorumPeerMain" \
        "$NOVA_SG_DATA_DIR/zk-$1/zoo.cfg"
}

# _configure_nova_sg_zookeeper NUMBER - make its folder, without old data
function _configure_nova_sg_zookeeper {
    local number=$1 peer
    local folder=$NOVA_SG_DATA_DIR/zk-$number
    sudo rm -rf "$folder"
    sudo install -d -o "$STACK_USER" "$folder" "$folder/data"
    # Every fake compute of this machine is a client from the same address,
    # and by default an address may have 60 clients.
    sudo tee "$folder/zoo.cfg" >/dev/null <<ZOO_CFG
dataDir=$folder/data
clientPort=$((NOVA_SG_ZOOKEEPER_PORT + number - 1))
clientPortAddress=$(ipv6_unquote "$SERVICE_LISTEN_ADDRESS")
tickTime=1000
initLimit=10
syncLimit=2
maxClientCnxns=0
autopurge.purgeInterval=1
admin.enableServer=false
ZOO_CFG
    if ((NOVA_SG_ZOOKEEPER_SERVERS > 1)); then
        echo "$number" | sudo tee "$folder/data/myid" >/dev/null
        for ((peer = 0; peer < NOVA_SG_ZOOKEEPER_SERVERS; peer++)); do
            echo "server.$((peer + 1))=127.0.0.1:$((NOVA_SG_ZOOKEEPER_PEER_PORT + peer)):$((NOVA_SG_ZOOKEEPER_PEER_PORT + peer + 3))"
        done | sudo tee --append "$folder/zoo.cfg" >/dev/null
    fi
}

# _ask_nova_sg PORT QUESTION - print the answer of a server of this machine
function _ask_nova_sg {
    local host
    host=$(ipv6_unquote "$SERVICE_HOST")
    # shellcheck disable=SC2016  # expanded by the inner bash
    timeout 5 bash -c \
        'exec 3<>"/dev/tcp/$0/$1" && printf "$2" >&3 && cat <&3' \
        "$host" "$1" "$2" 2>/dev/null
}

# _nova_sg_port_is_free VARIABLE PORT
function _nova_sg_port_is_free {
    local name=$1 port=$2 host
    for host in "$(ipv6_unquote "$SERVICE_HOST")" 127.0.0.1; do
        # shellcheck disable=SC2016  # expanded by the inner bash
        if timeout 5 bash -c 'exec 3<>"/dev/tcp/$0/$1"' "$host" "$port" \
            2>/dev/null; then
            die $LINENO "something else listens on port $port already: stop" \
                "it, or set $name to another port"
        fi
    done
}

# _wait_for_nova_sg SERVICE PORT QUESTION ANSWER
function _wait_for_nova_sg {
    local service=$1 port=$2 question=$3 answer=$4
    local deadline=$((SECONDS + NOVA_SG_START_TIMEOUT))
    until _ask_nova_sg "$port" "$question" | grep -q "$answer"; do
        if ((SECONDS >= deadline)); then
            die $LINENO "$service does not answer at $SERVICE_HOST port" \
                "$port: see journalctl --unit devstack@$service;" \
                "SERVICE_HOST has to be an address of this machine"
        fi
        sleep 0.5
    done
}


# The result
# ----------

# check_nova_sg - check that Nova uses nova_sg, and that nova_sg works
function check_nova_sg {
    local conf confs
    confs=$(_nova_sg_written_confs)
    for conf in $confs; do
        _check_nova_sg_status "$conf"
        if [[ $NOVA_SG_DRIVER == db &&
            -z $(iniget "$conf" database connection) ]]; then
            echo "$conf has no database: nova-sg doctor cannot check it"
        elif ! "$NOVA_BIN_DIR/nova-sg" --config-file "$conf" doctor; then
            die $LINENO "nova-sg doctor finds faults with $conf: follow the" \
                "remedies in the lines that begin with BAD"
        fi
    done
    if is_service_enabled n-cpu; then
        _check_nova_sg_status "$NOVA_CPU_CONF"
    fi
}

function _check_nova_sg_status {
    if ! "$NOVA_BIN_DIR/nova-sg" nova status "$1"; then
        die $LINENO "Nova does not use nova_sg with $1, or something is" \
            "missing: see the lines that begin with BAD; local.conf may" \
            "have a post-config section that sets the same options"
    fi
}


# Phases
# ------

case "$1 ${2:-}" in
stack\ *)
    if is_service_enabled nova; then
        case $2 in
        pre-install)
            check_nova_sg_settings
            echo_summary "Installing what nova_sg's driver" \
                "$NOVA_SG_DRIVER needs"
            enable_nova_sg_services
            install_nova_sg_packages
            ;;
        install)
            echo_summary "Installing nova_sg"
            _in_nova_environment setup_develop "$NOVA_SG_DIR"
            ;;
        post-config)
            echo_summary "Configuring nova_sg"
            configure_nova_sg
            start_nova_sg_servers
            ;;
        test-config)
            echo_summary "Checking nova_sg"
            check_nova_sg
            ;;
        esac
    fi
    ;;
unstack\ *)
    # unstack.sh stops Nova next, too, which then does nothing. Here the
    # services can still reach their servers, and leave their groups at once.
    if is_service_enabled nova; then
        stop_nova
    fi
    stop_nova_sg_servers
    unconfigure_nova_sg
    ;;
clean\ *)
    unconfigure_nova_sg
    _in_nova_environment pip_uninstall nova-sg
    if [[ -s $NOVA_SG_DATA_DIR/packages ]]; then
        # shellcheck disable=SC2046  # one a line
        uninstall_package $(sort -u "$NOVA_SG_DATA_DIR/packages")
    fi
    sudo rm -rf "$NOVA_SG_DATA_DIR"
    ;;
esac

$_XTRACE_NOVA_SG
