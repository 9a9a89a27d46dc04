# shellcheck shell=bash
# Sourced by the scripts beside it: finds the project, and makes and keeps its virtual environment.
#
#   set_up run    .venv has what requirements.txt asks for
#   set_up dev    .venv has what requirements-dev.txt asks for
#   set_up_oracles   and what requirements-oracles.txt lists, after set_up dev
#
# Afterwards $PY is its Python. PYTHON=/path/to/python chooses the Python that .venv is made from.

set -euo pipefail
trap 'exit 130' INT # a child that handles Ctrl-C by itself must not let the script go on

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
VENV="$ROOT/.venv"
PY="$VENV/bin/python"
UNFINISHED="$VENV/.unfinished" # lies there while pip is at work

export KERAS_BACKEND=tensorflow
export MPLBACKEND="${MPLBACKEND:-Agg}"
export TF_CPP_MIN_LOG_LEVEL="${TF_CPP_MIN_LOG_LEVEL:-2}"
export PYTHONPATH="$ROOT${PYTHONPATH:+:$PYTHONPATH}"
unset PYTHONHOME

say() { printf '%s\n' "$*" >&2; }
die() {
    say "$(basename "$0"): $*"
    exit 1
}

# TensorFlow 2.21 has wheels for these.
SUPPORTED='import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))'

# Prints the first Python that will do.
find_python() {
    local path version seen=""
    while IFS= read -r path; do
        case "$path" in "" | "$VENV"/*) continue ;; esac
        version="$("$path" -c 'import platform; print(platform.python_version())' 2>/dev/null)" ||
            continue
        if "$path" -c "$SUPPORTED" 2>/dev/null; then
            printf '%s\n' "$path"
            return
        fi
        seen="${seen:-, but $path is $version}"
    done < <(if [[ -n ${PYTHON:-} ]]; then
        type -P "$PYTHON"
    else
        type -aP python3 python python3.13 python3.12 python3.11
    fi)
    die "needs Python 3.11, 3.12 or 3.13${seen:-, and found none};" \
        "to name one: PYTHON=/path/to/python3.12 $0"
}

make_venv() {
    local python version
    python="$(find_python)" || exit 1
    version="$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')"
    say "Making $VENV with Python $version ($python)"
    if "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        "$python" -m venv --clear "$VENV" || die "could not make $VENV"
    elif "$python" -c 'import pip, venv' 2>/dev/null; then
        # Debian without python3-venv, but with pip: let that pip install one inside.
        "$python" -m venv --clear --without-pip "$VENV" &&
            "$python" -m pip --python "$PY" --quiet --disable-pip-version-check install pip ||
            die "could not make $VENV (Debian, Ubuntu: apt install python$version-venv)"
    else
        die "$python cannot make a virtual environment" \
            "(Debian, Ubuntu: apt install python$version-venv)"
    fi
}

# What .venv should hold: changes with the requirements and with its Python.
fingerprint() {
    {
        "$PY" -ISc 'import sys; print(sys.version)' 2>/dev/null || echo broken
        (cd "$ROOT" && cat "$@")
    } | cksum
}

is_ready() { # is_ready STAMP REQUIREMENTS...
    local stamp="$1"
    shift
    [[ -x $PY && -f $stamp && ! -e $UNFINISHED && "$(<"$stamp")" == "$(fingerprint "$@")" ]]
}

set_up() {
    local kind="$1" requirements status quiet=(--quiet)
    case "$kind" in
    run) requirements=(requirements.txt) ;;
    dev) requirements=(requirements.txt requirements-dev.txt) ;;
    *) die "set_up: no such kind: $kind" ;;
    esac
    if is_ready "$VENV/.ready-$kind" "${requirements[@]}"; then return; fi

    # One at a time where flock exists; who waited may find the work done.
    exec 9<"$ROOT"
    if command -v flock >/dev/null && ! flock -n 9; then
        say "Waiting for another set-up of $VENV"
        flock 9
    fi
    if ! is_ready "$VENV/.ready-$kind" "${requirements[@]}"; then
        if [[ -e $UNFINISHED ]] || ! "$PY" -c "import pip; $SUPPORTED" 2>/dev/null; then
            make_venv
        fi
        say "Installing ${requirements[${#requirements[@]} - 1]} into $VENV" \
            "(some minutes the first time)"
        if [[ -t 2 ]]; then quiet=(); fi
        rm -f "$VENV"/.ready-*
        touch "$UNFINISHED"
        status=0
        "$PY" -m pip install --disable-pip-version-check --no-input ${quiet[@]+"${quiet[@]}"} \
            -r "$ROOT/${requirements[${#requirements[@]} - 1]}" >&2 || status=$?
        if ((status != 0)); then
            # pip undoes what failed, but cannot when it was killed: then .venv is made anew.
            if ((status < 128)); then rm -f "$UNFINISHED"; fi
            die "pip could not install the requirements (see above)"
        fi
        fingerprint requirements.txt >"$VENV/.ready-run"
        if [[ $kind == dev ]]; then
            fingerprint "${requirements[@]}" >"$VENV/.ready-dev"
        fi
        rm -f "$UNFINISHED"
    fi
    exec 9<&-
}

# Adds to a .venv that `set_up dev` made what tests compare with.
set_up_oracles() {
    local requirements=(requirements.txt requirements-dev.txt requirements-oracles.txt)
    if is_ready "$VENV/.ready-oracles" "${requirements[@]}"; then return; fi
    say "Installing requirements-oracles.txt into $VENV"
    "$PY" -m pip install --disable-pip-version-check --no-input --quiet torch==2.13.0 >&2 &&
        "$PY" -m pip install --disable-pip-version-check --no-input --quiet --no-deps \
            -r "$ROOT/requirements-oracles.txt" >&2 ||
        die "pip could not install the oracles (see above)"
    fingerprint "${requirements[@]}" >"$VENV/.ready-oracles"
}
