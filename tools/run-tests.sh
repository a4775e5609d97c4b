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

# Style checks and every test, in native threads and in eventlet.
#
# Usage: tools/run-tests.sh [--long] [--constraints FILE] [--nova RELEASE]
#                           [SELECTION...]
#
# --long adds the long form: every driver in every mode on a real Nova, each
# fault at default settings, whole migrations, soak and scale. It takes several
# times as long; a selection takes less.
#
# --constraints has pip install the libraries in these versions, into an
# environment of its own. tests/constraints has a file for each older release
# of OpenStack: tools/run-tests.sh --constraints tests/constraints/2025.1.txt
#
# --nova runs the tests on a real Nova with an older one, of OpenStack, such as
# 2025.2, or of Nova, such as 32, that tests/constraints has a file for. Without
# a selection it runs those that each release has to pass, in every mode that it
# has: tools/run-tests.sh --nova 32
#
# A selection is a regular expression; tests whose names match any of them
# run, and the style checks do not. Environment: PYTHON, the Python to use;
# RUN_DEADLINE, the seconds after which a run that hangs is ended.
#
# The last line is "N passed, N failed": the tests of all runs, with each style
# check counted as a test. Before it comes each failure: the test, the end of
# its traceback, the last lines of its servers, and the trace of a test process
# that crashed. The exit status is 0 only if nothing failed.
#
# Ctrl-C or SIGTERM ends it, with all processes that it started.
set -euo pipefail

# shellcheck source=tools/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

ENVIRONMENT=$ROOT/.venv-test
# Seconds until a run that hangs is ended, with a traceback of every thread:
# several times as many as the longest run takes on two cores.
RUN_DEADLINE=${RUN_DEADLINE:-1200}
# Test processes side by side, of the three runs that go on at once. Most of
# the time each of them waits, for example for a session to end, a member to
# fall silent or a server to start. So that the runs end at the same time, each
# has about as many as it has of all that time.
THREADS_WORKERS=6
EVENTLET_WORKERS=3
# The tests of the programs and on a real Nova, and the faults.
PROGRAMS_WORKERS=2

passed=0
failed=0
skipped=0
# The failures, printed at the end, too, where a long output is read first.
failures=()

# fail NAME...: count a failure that is not a test's.
fail() {
    printf 'FAILED: %s\n' "$*"
    failures+=("FAILED: $*")
    failed=$((failed + 1))
}

# style_check NAME COMMAND...
style_check() {
    local name=$1
    shift
    if "$@"; then
        passed=$((passed + 1))
    else
        fail "$name"
    fi
}

bash_syntax() {
    local script
    for script in "$@"; do
        bash -n "$script" || return 1
    done
}

check_style() {
    local scripts=(tools/*.sh .ci/run etc/events/fence-and-evacuate)
    say 'Style checks'
    style_check ruff "$ENVIRONMENT/bin/ruff" check .
    style_check mypy "$ENVIRONMENT/bin/mypy"
    style_check 'bash syntax' bash_syntax "${scripts[@]}"
    style_check shellcheck shellcheck -x "${scripts[@]}"
}

# use_run NAME: use the stestr repository of this run. Runs that go on side by
# side have one each. That of threads is the checkout's own, and is made first:
# the others are inside it.
repository=.
use_run() {
    repository=.
    if [[ $1 != threads ]]; then
        repository=.stestr/$1
        mkdir -p "$repository"
    fi
}

# stestr uses $PYTHON as the Python of the tests, if it is set.
stestr() {
    env -u PYTHON "$ENVIRONMENT/bin/stestr" --repo-url "$repository" "$@"
}

# Each run of tests has a process group of its own, so that all of it can be
# ended. A test process that dies in this way runs no cleanup: the watchdog in
# tests/fixtures ends its servers.
declare -A running=()

end_tests() {
    trap '' INT TERM
    local run
    for run in "${running[@]}"; do
        kill -TERM -- "-$run" 2>/dev/null || true
        wait "$run" || true
    done
    say 'Interrupted'
    exit "$1"
}
trap 'end_tests 130' INT
trap 'end_tests 143' TERM

# Traces of test processes that crashed or hung, and the output of a run that
# goes on beside another one.
scratch=$(mktemp -d -t nova-sg-run-XXXXXX)
trap 'rm -rf "$scratch"' EXIT

# tell_traces NAME: count each trace of a run as a failure.
tell_traces() {
    local trace
    for trace in "$scratch/$1"/*; do
        if [[ -s $trace ]]; then
            fail "$1: a test process crashed or hung:"
            failures+=("$(head -n 60 "$trace" | sed 's/^/    /')")
        fi
    done
}

# begin_run NAME MODE WORKERS STESTR_ARGUMENT...
# The output of threads is that of this script; others are printed at the end.
begin_run() {
    local name=$1 mode=$2 workers=$3 output=$scratch/$1.output listed
    shift 3
    use_run "$name"
    export NOVA_SG_TEST_MODE=$mode NOVA_SG_TEST_TRACES=$scratch/$name
    mkdir "$NOVA_SG_TEST_TRACES"
    # Without a repository stestr can list no tests. The durations let it
    # share the classes out evenly among the workers.
    if [[ ! -e $repository/.stestr/next-stream ]]; then
        stestr init
        "$ENVIRONMENT/bin/python" tools/durations.py stream \
            <tests/durations.txt | stestr load >/dev/null
    fi
    # If the list cannot be made, the run itself prints why.
    if [[ -n $selection ]] && listed=$(stestr list "$@" 2>/dev/null) &&
        [[ -z $listed ]]; then
        say "Tests, $name: no test matches"
        return
    fi
    cp "$repository/.stestr/next-stream" "$scratch/$name.before"
    ran=1
    say "Tests, $name"
    set -m
    if [[ $name == threads ]]; then
        stestr run --concurrency "$workers" "$@" </dev/null &
    else
        stestr run --concurrency "$workers" "$@" </dev/null >"$output" 2>&1 &
    fi
    set +m
    running[$name]=$!
}

# end_run NAME: wait for the end of a run, and count what it says.
end_run() {
    local name=$1 status=0 said p f s
    [[ -n ${running[$name]:-} ]] || return 0
    wait "${running[$name]}" || status=$?
    unset "running[$name]"
    use_run "$name"
    if [[ -e $scratch/$name.output ]]; then
        say "Tests, $name, which went on beside these"
        cat "$scratch/$name.output"
    fi
    if cmp -s "$repository/.stestr/next-stream" "$scratch/$name.before"; then
        fail "$name: the tests cannot be loaded, see above"
        tell_traces "$name"
        return
    fi
    said=$(stestr last --subunit |
        "$ENVIRONMENT/bin/python" tools/last_run.py)
    read -r p f s <<<"$said"
    if ((f)); then
        failures+=("$(tail -n +2 <<<"$said" | sed "s/^FAILED: /&$name: /")")
    elif ((status)); then
        fail "$name: stestr ended with status $status"
    fi
    passed=$((passed + p))
    failed=$((failed + f))
    skipped=$((skipped + s))
    tell_traces "$name"
}

finish() {
    if ((${#failures[@]})); then
        printf '\n%s' "${failures[@]}" $'\n'
        # The names alone, as the last lines of a long output are kept.
        printf '%s\n' "${failures[@]}" | grep '^FAILED: '
    fi
    if ((skipped)); then
        printf '%s skipped\n' "$skipped"
    fi
    printf '%s passed, %s failed\n' "$passed" "$failed"
    ((failed == 0 && passed > 0)) || exit 1
}

usage() {
    sed -n '/^# Style checks/,/^set/{/^set/d;s/^# \{0,1\}//;p}' \
        "${BASH_SOURCE[0]}"
}

unset NOVA_SG_LONG
constraints=()
nova=
while [[ ${1:-} == -* ]]; do
    case $1 in
    --long)
        export NOVA_SG_LONG=1
        RUN_DEADLINE=$((RUN_DEADLINE * 5))
        ;;
    --constraints)
        [[ -r ${2:-} ]] || die "--constraints: no such file: ${2:-}"
        constraints=(--constraint "$(realpath "$2")")
        ENVIRONMENT=$ROOT/.venv-test-$(basename "$2" .txt)
        shift
        ;;
    --nova)
        [[ -n ${2:-} ]] || die '--nova: name a release, such as 32'
        nova=$2
        shift
        ;;
    -h | --help)
        usage
        exit 0
        ;;
    *)
        usage
        exit 2
        ;;
    esac
    shift
done

cd "$ROOT"
if [[ -n $nova && $# == 0 ]]; then
    export NOVA_SG_LONG=1
    set -- '^tests\.nova\.test_(releases|unit_tests)\.'
fi
selection="$*"
install_packages
if [[ -n $nova ]]; then
    NOVA_SG_NOVA_PYTHON=$(tools/nova-env.sh "$nova")
    export NOVA_SG_NOVA_PYTHON
fi
python=$(find_python)
make_environment "$ENVIRONMENT" "$python" \
    --requirement test-requirements.txt --editable . "${constraints[@]}"

if [[ ! -e $ENVIRONMENT/zookeeper.jsa ]]; then
    "$ENVIRONMENT/bin/python" -m tests.fixtures.zookeeper
fi

if [[ -z $selection ]]; then
    # With a selection, tests that need Nova make the environment themselves.
    if NOVA_SG_NOVA_PYTHON=$(tools/nova-env.sh); then
        export NOVA_SG_NOVA_PYTHON
    else
        fail 'the environment with Nova'
    fi
fi

export NOVA_SG_TEST_DEADLINE=$RUN_DEADLINE
# Each test process and each program imports what an earlier one has compiled.
export PYTHONDONTWRITEBYTECODE=
ran=0
# As much of the programs' tests as two workers have time for.
programs='processes\.test_(agent|monitor)\w*|nova|faults'
begin_run threads threads "$THREADS_WORKERS" \
    --exclude-regex "^tests\.($programs)\." "$@"
# Programs have a mode of their own, those of Nova and those that faults are
# played on, too. One worker plays all faults, side by side. Each worker with
# tests on a real Nova has one with a database and a message queue of its own.
begin_run programs threads "$PROGRAMS_WORKERS" --exclude-regex \
    "^tests\.(?!($programs)\.)" "$@"
# Tests of pure logic and of the programs do not depend on the mode, and run
# in threads.
once='nova|faults|chaos|unit|processes'
once+='|cases\.test_(programs|database_programs|log_volume)'
begin_run eventlet eventlet "$EVENTLET_WORKERS" \
    --exclude-regex "^tests\.($once)\." "$@"
[[ -n $selection ]] || check_style
end_run threads
end_run eventlet
end_run programs
if ((!ran)); then
    fail "no test matches: $selection"
fi
finish
