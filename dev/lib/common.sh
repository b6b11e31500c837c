# Sourced by the scripts of dev/.
#
# Owns: messages, the cache directory, missing tools, free ports, programs of benches, daemons that are started once and stopped by
# their pid.
# Does not own: what each service needs (dev/kafka, dev/minio, dev/redis).
# shellcheck shell=bash

REPO_DIR=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
SLUICE_DEV_DIR=${SLUICE_DEV_DIR:-${XDG_CACHE_HOME:-${HOME:?HOME is not set}/.cache}/sluice-dev}
export DEFAULT_RUN_DIR=$SLUICE_DEV_DIR/run/default
mkdir -p "$SLUICE_DEV_DIR/bin" "$SLUICE_DEV_DIR/run"
export SLUICE_DEV_DIR
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$REPO_DIR/target}

say() { printf '%s\n' "$*" >&2; }
die() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

# with_lock NAME COMMAND...: one process at a time installs a shared tool.
with_lock() {
    local name=$1
    shift
    if command -v flock >/dev/null; then
        (
            exec 9>"$SLUICE_DEV_DIR/$name.lock"
            flock 9
            "$@" 9>&-
        )
    else
        "$@"
    fi
}

# need TOOL=PACKAGE...: tools that the operating system provides. Installs what is missing when root on Debian or Ubuntu.
need() {
    local pair missing=() packages=()
    for pair in "$@"; do
        command -v "${pair%%=*}" >/dev/null && continue
        missing+=("${pair%%=*}")
        packages+=("${pair#*=}")
    done
    [ ${#missing[@]} -eq 0 ] && return
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        say "installing ${packages[*]}"
        with_lock apt apt_install "${packages[@]}" || die "apt-get could not install ${packages[*]}: see $SLUICE_DEV_DIR/apt.log"
    else
        die "missing tools: ${missing[*]}. Install them, on Debian or Ubuntu with: apt-get install ${packages[*]}"
    fi
}

apt_install() {
    # RUNLEVEL=1 keeps the package from starting a service of its own.
    local install=(env RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@")
    "${install[@]}" >"$SLUICE_DEV_DIR/apt.log" 2>&1 </dev/null && return
    apt-get update -q >>"$SLUICE_DEV_DIR/apt.log" 2>&1 </dev/null || return 1
    "${install[@]}" >>"$SLUICE_DEV_DIR/apt.log" 2>&1 </dev/null
}

# need_given TOOL HINT: tools that a developer chooses the version of; never installed by us.
need_given() {
    command -v "$1" >/dev/null || die "$1 is missing: $2"
}

# free_ports COUNT: as many ports, one a line, that nobody listens on. Below the range that the kernel hands out to
# clients, so that no connection takes one between the choice and the start.
free_ports() {
    python3 - "$1" <<'PY'
import random, socket, sys
held = []
while len(held) < int(sys.argv[1]):
    s = socket.socket()
    try:
        s.bind(("127.0.0.1", random.SystemRandom().randrange(15000, 32000)))
        held.append(s)
    except OSError:
        s.close()
for s in held:
    print(s.getsockname()[1])
PY
}

# When a process was started: tells a live daemon from a stranger that got its number later.
start_time() {
    if [ -r "/proc/$1/stat" ]; then
        sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d ' ' -f 20
    else
        ps -o lstart= -p "$1" 2>/dev/null
    fi
}

# A pid file holds the pid in its first line, the start time in its second.
running() {
    local pid started
    [ -s "$1/pid" ] || return 1
    { read -r pid && read -r started; } <"$1/pid" || return 1
    kill -0 "$pid" 2>/dev/null || return 1
    # A zombie holds no port and no file any more.
    case $(sed 's/.*) //' "/proc/$pid/stat" 2>/dev/null) in Z*) return 1 ;; esac
    [ "$(start_time "$pid")" = "$started" ]
}

# daemon DIR COMMAND...: starts in the background, detached, output to DIR/log, pid to DIR/pid.
daemon() {
    local dir=$1 pid
    shift
    if command -v setsid >/dev/null; then
        setsid "$@" >>"$dir/log" 2>&1 </dev/null &
    else
        nohup "$@" >>"$dir/log" 2>&1 </dev/null &
    fi
    pid=$!
    printf '%s\n%s\n' "$pid" "$(start_time "$pid")" >"$dir/pid"
}

# await DIR SECONDS COMMAND...: until the command succeeds. Returns 1 when the daemon died or time is up.
await() {
    local dir=$1 deadline=$((SECONDS + $2))
    shift 2
    until "$@"; do
        running "$dir" || return 1
        [ "$SECONDS" -lt "$deadline" ] || return 1
        sleep 0.1
    done
}

# stop_daemon DIR [SIGNAL]: SIGTERM and, after 20 seconds, SIGKILL; or only the given signal. Returns when it is gone.
stop_daemon() {
    local dir=$1 signal=${2:-TERM} pid i
    if running "$dir"; then
        read -r pid <"$dir/pid"
        kill "-$signal" "$pid" 2>/dev/null || true
        for ((i = 0; i < 400; i++)); do
            running "$dir" || break
            [ "$i" -eq 200 ] && kill -KILL "$pid" 2>/dev/null
            sleep 0.1
        done
        running "$dir" && die "process $pid of $dir does not end"
    fi
    rm -f "$dir/pid"
}

port_open() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

last_lines() { tail -n 15 "$1" 2>/dev/null | sed 's/^/    /' >&2; }

# release_bench NAME: builds a bench in release mode and prints its program.
release_bench() {
    local program
    program=$(cargo build --release --locked --quiet --bench "$1" --message-format json | python3 -c '
import json, sys
for message in map(json.loads, sys.stdin):
    if message.get("target", {}).get("name") == sys.argv[1] and message.get("executable"):
        print(message["executable"])
' "$1") || return
    [ -x "$program" ] || die "cargo built no bench named $1"
    printf '%s\n' "$program"
}

absolute() {
    case $1 in
    /*) printf '%s\n' "$1" ;;
    *) printf '%s\n' "$PWD/$1" ;;
    esac
}

# python_environment NAME PACKAGE==VERSION...: an environment of its own for packages from PyPI, made once; prints its folder.
python_environment() {
    local name=$1 place
    shift
    place=$SLUICE_DEV_DIR/$name-$(printf '%s\n' "$@" | cksum | cut -d ' ' -f 1)
    if ! [ -x "$place/bin/python" ]; then
        need python3=python3
        # Debian keeps these modules in a package of their own, which has no command that could be missing.
        python3 -c 'import venv, ensurepip' 2>/dev/null || install_venv
        with_lock "$name" build_python_environment "$place" "$@"
    fi
    printf '%s\n' "$place"
}

install_venv() {
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        die "Python cannot make environments. Install python3-venv, on Debian or Ubuntu with: apt-get install python3-venv"
    fi
    say "installing python3-venv"
    with_lock apt apt_install python3-venv || die "apt-get could not install python3-venv: see $SLUICE_DEV_DIR/apt.log"
}

build_python_environment() {
    local place=$1 log=$1.log
    shift
    [ -x "$place/bin/python" ] && return
    say "installing $* (once)"
    rm -rf "$place" "$place.new"
    # The scripts of packages name the python beside them by its path, so the environment is made where it stays.
    if ! {
        python3 -m venv "$place.new" &&
            "$place.new/bin/python" -m pip install --disable-pip-version-check --no-input --only-binary :all: "$@" &&
            sed -i "1s|$place.new|$place|" "$place.new"/bin/* &&
            mv "$place.new" "$place"
    } >"$log" 2>&1 </dev/null; then
        last_lines "$log"
        die "$* could not be installed from PyPI: see $log"
    fi
}
