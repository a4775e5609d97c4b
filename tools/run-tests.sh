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
# Usage: tools/run-tests.sh [SELECTION...]
#
# A selection is a regular expression; tests whose names match any of them
# run, and the style checks do not. Environment: PYTHON, the Python to use;
# NOVA_SG_LONG=1, to run the tests on a real Nova for every driver in every
# mode, which takes half an hour (tools/run-tests.sh tests.nova: only them),
# and the faults at default settings, which takes a quarter of an hour
# (tools/run-tests.sh tests.faults); RUN_DEADLINE, in seconds, for a machine
# with much else to do.
#
# The last line says "N passed, N failed": tests over all runs, each style
# check counted as one. Exit status 0 only if nothing failed.
set -euo pipefail

# shellcheck source=tools/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

ENVIRONMENT=$ROOT/.venv-test
# Seconds until a run that hangs is ended, with a traceback of every thread:
# twice what the longest of them takes on two cores.
RUN_DEADLINE=${RUN_DEADLINE:-1200}
# Test processes side by side. Most of the time each of them waits: for a
# session to end, a member to fall silent, a server to start.
WORKERS=4

passed=0
failed=0
skipped=0

# style_check NAME COMMAND...
style_check() {
    local name=$1
    shift
    if "$@"; then
        passed=$((passed + 1))
    else
        printf 'FAILED: %s\n' "$name"
        failed=$((failed + 1))
    fi
}

bash_syntax() {
    local script
    for script in "$@"; do
        bash -n "$script" || return 1
    done
}

check_style() {
    local scripts=(tools/*.sh .ci/run)
    say 'Style checks'
    style_check ruff "$ENVIRONMENT/bin/ruff" check .
    style_check 'bash syntax' bash_syntax "${scripts[@]}"
    style_check shellcheck shellcheck -x "${scripts[@]}"
}

# Print the numbers of passed, failed and skipped tests of the last run.
count_last_run() {
    stestr last --subunit | "$ENVIRONMENT/bin/python" -c '
import collections
import sys

import subunit
import testtools


class Statuses(testtools.StreamResult):
    def __init__(self):
        super().__init__()
        self.last = {}

    def status(self, test_id=None, test_status=None, **details):
        # "exists" only lists a test; no status is an attachment.
        if test_id and test_status not in (None, "exists"):
            self.last[test_id] = test_status


statuses = Statuses()
stream = subunit.ByteStreamToStreamResult(sys.stdin.buffer, "output")
stream.run(statuses)
numbers = collections.Counter(statuses.last.values())
passed = numbers["success"] + numbers["xfail"]
skipped = numbers["skip"]
# A test that only began was ended together with its process.
print(passed, numbers.total() - passed - skipped, skipped)
'
}

# stestr takes the Python of the tests from $PYTHON where that is set.
stestr() {
    env -u PYTHON "$ENVIRONMENT/bin/stestr" "$@"
}

# run_mode MODE WORKERS STESTR_ARGUMENT...
run_mode() {
    local mode=$1 workers=$2 status=0 listed before after numbers p f s
    shift 2
    export NOVA_SG_TEST_MODE=$mode
    # A list that cannot be made is left to the run, which says why.
    if [[ -n $selection ]] && listed=$(stestr list "$@" 2>/dev/null) &&
        [[ -z $listed ]]; then
        say "Mode $mode: no test matches"
        return
    fi
    say "Tests, mode $mode"
    ran=1
    before=$(cat .stestr/next-stream 2>/dev/null || true)
    stestr run --concurrency "$workers" "$@" || status=$?
    after=$(cat .stestr/next-stream 2>/dev/null || true)
    if [[ $before == "$after" ]]; then
        # It got no further than loading the tests, and has said why.
        failed=$((failed + 1))
        return
    fi
    numbers=$(count_last_run)
    read -r p f s <<<"$numbers"
    if ((status != 0 && f == 0)); then
        printf 'FAILED: stestr ended with status %s\n' "$status"
        f=1
    fi
    passed=$((passed + p))
    failed=$((failed + f))
    skipped=$((skipped + s))
}

finish() {
    if ((skipped)); then
        printf '%s skipped\n' "$skipped"
    fi
    printf '%s passed, %s failed\n' "$passed" "$failed"
    ((failed == 0 && passed > 0)) || exit 1
}

case ${1:-} in
-*)
    sed -n '/^# Style checks/,/^set/{/^set/d;s/^# \{0,1\}//;p}' \
        "${BASH_SOURCE[0]}"
    [[ $1 == -h || $1 == --help ]] || exit 2
    exit 0
    ;;
esac

cd "$ROOT"
selection="$*"
install_packages
python=$(find_python)
make_environment "$ENVIRONMENT" "$python" \
    --requirement test-requirements.txt --editable .

if [[ -z $selection ]]; then
    check_style
    # Where only some tests run, those that need Nova make it themselves.
    if NOVA_SG_NOVA_PYTHON=$(tools/nova-env.sh); then
        export NOVA_SG_NOVA_PYTHON
    else
        printf 'FAILED: the environment with Nova\n'
        failed=$((failed + 1))
    fi
fi

export NOVA_SG_TEST_DEADLINE=$RUN_DEADLINE
ran=0
run_mode threads "$WORKERS" --exclude-regex '^tests\.(nova|faults)\.' "$@"
# Pure logic and the programs do not depend on the mode and ran already.
run_mode eventlet "$WORKERS" \
    --exclude-regex '^tests\.(nova|faults|unit|processes)\.' "$@"
if [[ -n ${NOVA_SG_LONG:-} ]]; then
    NOVA_SG_TEST_DEADLINE=$((RUN_DEADLINE * 5))
fi
# The faults choose a mode each, and are played side by side by one worker.
run_mode threads 1 --exclude-regex '^tests\.(?!faults\.)' "$@"
# Those on a real Nova see to Nova's modes by themselves. Each worker has one
# of its own, with a database and a message queue: two are enough.
run_mode threads 2 --exclude-regex '^tests\.(?!nova\.)' "$@"
if ((!ran)); then
    printf 'FAILED: no test matches: %s\n' "$selection"
fi
finish
