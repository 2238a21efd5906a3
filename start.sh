#!/usr/bin/env bash
# Starts the service. Makes the environment it needs first, once; `./start.sh help` tells the rest.
set -euo pipefail

usage() {
  cat <<'TEXT'
Book language models in a calendar, and Ray Serve has them up when the event starts.

  ./start.sh [local]         everything on this machine: Ray, a demo model, a calendar to edit
  ./start.sh head            a cluster's head and the daemon (what the container runs)
  ./start.sh worker          one more node, which joins a head
  ./start.sh test [ARGS]     format, lint, types, package arrows, tests; ARGS go to pytest
  ./start.sh COMMAND [ARGS]  any other command: plan, apply, status, run, settings, env
  ./start.sh help            this text

Examples
  ./start.sh                                        try it; Ctrl-C stops all of it
  ./start.sh plan                                   what would be done now, and why
  ./start.sh plan --at 2030-01-31T09:00             ... and then
  HOST_IP=192.168.1.10 ./start.sh head              a head that others can join
  RAY_ADDRESS=192.168.1.10:6380 ./start.sh worker   join it (copy the head's var/ray_token first)
  ./start.sh test -m "not ray" -n auto              the fast tests, side by side
  ./start.sh test -m faults -s                      those that kill parts of a Ray cluster, and what they took

The environment is made in .venv, from Python 3.11 or 3.12, and made again when pyproject.toml or
constraints.txt change. NDIF_PYTHON names the Python to make it from; NDIF_NO_VENV=1 takes the Python
that is there with all it has, as the container does. `test` run as root also installs the browser and
the Prometheus that some tests drive, with apt; elsewhere those tests are skipped.
TEXT
}

fail() {
  printf '%s\n' "$*" >&2
  exit 1
}

project_folder() {
  local source="${BASH_SOURCE[0]}" folder
  while [[ -L $source ]]; do
    folder=$(cd -P -- "$(dirname -- "$source")" && pwd)
    source=$(readlink -- "$source")
    [[ $source == /* ]] || source=$folder/$source
  done
  cd -P -- "$(dirname -- "$source")" && pwd
}

suits() { "$1" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' 2>/dev/null; }

find_python() {
  local name
  for name in ${NDIF_PYTHON:+"$NDIF_PYTHON"} python3.12 python3.11 python3 python; do
    if command -v "$name" >/dev/null && suits "$name"; then
      printf '%s\n' "$name"
      return
    fi
  done
  fail "This needs Python 3.11 or 3.12 with its venv module, and there is none. Install one (on Debian and" \
    "Ubuntu: apt install python3-venv), or set NDIF_PYTHON to the path of one, and start again."
}

# What the environment is made from, and where.
fingerprint() {
  { printf '%s\n' "$root" "$1" && cat "$root/pyproject.toml" "$root/constraints.txt"; } | cksum
}

# Tells what pip does in a line or two, and keeps all it says in a file.
narrate() {
  local line name
  while IFS= read -r line; do
    printf '%s\n' "$line" >>"$1"
    line=${line#"${line%%[![:space:]]*}"}
    case $line in
      Downloading*" MB)")
        name=${line%%-cp[0-9]*}
        tell "  ${name%%-py[0-9]*} (${line##*(}"
        ;;
      "Installing collected"*) tell "  Installing all of them" ;;
    esac
  done
  if [[ -t 2 ]]; then printf '\r\033[K' >&2; fi
}

# On a terminal each line takes the place of the one before.
tell() {
  if [[ -t 2 ]]; then printf '\r\033[K%.70s' "$1" >&2; else printf '%s\n' "$1" >&2; fi
}

make_environment() {
  local extras=$1 stamp=$root/.venv/.made-for-$1 log=$root/.venv/install.log began=$SECONDS base
  [[ -f $stamp && $(<"$stamp") == "$(fingerprint "$extras")" ]] && return
  echo "Making the environment in .venv (once, some minutes) ..." >&2
  # a moved environment names its old place in many files, and an interrupted one has no pip
  if [[ -f $root/.venv/.folder && $(<"$root/.venv/.folder") != "$root" ]] ||
    ! suits "$python" || ! "$python" -m pip --version >/dev/null 2>&1; then
    base=$(find_python)
    "$base" -m venv --clear "$root/.venv" || fail "The environment cannot be made in $root/.venv."
  fi
  printf '%s' "$root" >"$root/.venv/.folder"
  : >"$log"
  if ! "$python" -m pip install --disable-pip-version-check --no-input --progress-bar off \
    -c "$root/constraints.txt" -e "${root}[$extras]" 2>&1 | narrate "$log"; then
    tail -n 5 "$log" >&2
    fail "The packages could not be installed; the whole log is in $log. Once the cause is out of the way," \
      "start again: what was done already is kept."
  fi
  fingerprint "$extras" >"$stamp"
  echo "The environment is made ($((SECONDS - began)) s)." >&2
}

prepare() {
  if [[ -n ${NDIF_NO_VENV:-} ]]; then
    python=${NDIF_PYTHON:-python}
    return
  fi
  python=$root/.venv/bin/python
  if command -v flock >/dev/null; then
    # two starts at once make it once
    (flock 9 && make_environment "$1" 9>&-) 9<"$root"
  else
    make_environment "$1"
  fi
}

# RUNLEVEL: nothing that is installed is to be started as a service
apt_install() {
  RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends "$@"
}

# A browser and Prometheus, which some tests drive, are not among pip's packages.
make_tools() {
  local missing=() log=$root/.venv/tools.log
  command -v chromium-headless-shell >/dev/null || command -v chromium >/dev/null ||
    missing+=(chromium-headless-shell)
  command -v promtool >/dev/null || missing+=(prometheus)
  [[ ${#missing[@]} -gt 0 && -z ${NDIF_NO_TOOLS:-} ]] || return 0
  if [[ $(id -u) -ne 0 ]] || ! command -v apt-get >/dev/null; then
    echo "Tests that need ${missing[*]} are skipped. On Debian: apt install ${missing[*]}" >&2
    return 0
  fi
  echo "Installing ${missing[*]} for the tests (once; NDIF_NO_TOOLS=1 leaves them out) ..." >&2
  # not every distribution has the shell apart from the browser
  if ! { apt-get update && { apt_install "${missing[@]}" || apt_install "${missing[@]/-headless-shell/}"; }; } \
    >"$log" 2>&1; then
    tail -n 5 "$log" >&2
    echo "They could not be installed, so their tests are skipped, or fail under CI." >&2
  fi
}

check() {
  printf '\n== %s\n' "$*" >&2
  "$python" -m "$@"
}

run_tests() {
  cd "$root"
  check ruff check .
  check ruff format --check .
  check mypy
  printf '\n== package arrows\n' >&2
  "$python" -c 'from importlinter.cli import lint_imports_command; lint_imports_command()'
  if [[ $# -gt 0 ]]; then
    printf '\n== pytest %s\n' "$*" >&2
    exec "$python" -m pytest "$@"
  fi
  # what needs no Ray side by side, then what does, one after the other: it takes the whole machine
  check pytest -m "not ray" -n auto --dist worksteal
  check pytest -m "ray and not faults"
}

# Another environment that is active in the caller's shell must not leak into ours.
unset CDPATH PYTHONPATH PYTHONHOME PYTHONUSERBASE VIRTUAL_ENV PIP_USER PIP_TARGET PIP_PREFIX PIP_REQUIRE_VIRTUALENV
root=$(project_folder)

case ${1:-local} in
  help | -h | --help)
    usage
    ;;
  test)
    shift
    prepare demo,test
    make_tools
    run_tests "$@"
    ;;
  *)
    [[ $# -gt 0 ]] || set -- local
    prepare demo
    # what it tells people to type is called as they called this
    if [[ -z ${NDIF_COMMAND:-} ]]; then
      [[ $0 == */* ]] && called=$0 || called=./$0
      printf -v NDIF_COMMAND %q "$called"
    fi
    export NDIF_COMMAND
    # -P: a folder named `scheduler` where the caller stands is not ours
    exec "$python" -P -m scheduler "$@"
    ;;
esac
