# shellcheck shell=bash
# Sourced by run.sh and test.sh: finds or makes the Python environment they run in.
#
#   DSD_VENV=DIR   the environment to use or create, instead of .venv in the repository
#
# An active virtualenv that already satisfies the requirements is used as it is.

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

fail() {
  echo "$(basename "$0"): $*" >&2
  exit 2
}

# Runs it rather than trusting its name: pyenv puts a python3.12 on PATH that may not be installed.
is_supported() {
  "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' &>/dev/null
}

# 3.12 first: all that is tested is there for it. 3.11 last: it gets an older JAX.
find_python() {
  local candidate
  for candidate in python3.12 python3.13 python3.11 python3 python; do
    if is_supported "$candidate"; then
      command -v "$candidate"
      return
    fi
  done
  fail "needs Python 3.11, 3.12 or 3.13, and none of python3.12, python3.13, python3.11, python3" \
    "and python is one."
}

# True if nothing would have to be installed; looks at no index, so it needs no network.
satisfies() {
  "$1/bin/python" -m pip install --isolated --no-index --dry-run --quiet -r "$2" &>/dev/null
}

# Runs a command that says nothing itself; says now and then that it goes on, until it or this script
# has ended.
patiently() {
  local code=0 ticker
  (
    SECONDS=0
    while sleep 8 &>/dev/null && kill -0 "$$" 2>/dev/null; do
      echo "Still installing (after $SECONDS s)" >&2
    done
  ) &
  ticker=$!
  "$@" || code=$?
  { kill "$ticker" && wait "$ticker"; } 2>/dev/null || true
  return "$code"
}

create_venv() {
  local python
  python="$(find_python)" || exit
  echo "Creating the environment $1 with $python"
  "$python" -m venv "$1" || fail "could not create the environment $1 with '$python -m venv'" \
    "(on Debian and Ubuntu: apt-get install python3-venv)."
  rm -f "$1"/.installed-*
}

# Where environment $1 keeps a copy of the requirements file $2 as it was when it was installed.
stamp() {
  local name="${2#"$root"/}"
  echo "$1/.installed-${name//\//-}"
}

is_installed() {
  cmp -s "$2" "$(stamp "$1" "$2")"
}

# True if nothing of the requirements file $2 is missing in environment $1; looks closely only once.
is_ready() {
  is_installed "$1" "$2" || { satisfies "$1" "$2" && cp "$2" "$(stamp "$1" "$2")"; }
}

# An environment that was made with other requirements is brought to these; what an accelerator
# needs goes with JAX's version and is installed anew.
install_once() {
  if is_ready "$1" "$2"; then return; fi
  echo "Installing $2 into $1 (once; this can take some minutes)"
  patiently "$1/bin/python" -m pip install --quiet --disable-pip-version-check -r "$2" ||
    fail "could not install $2; pip says why above."
  cp "$2" "$(stamp "$1" "$2")"
  local kind python="$1/bin/python"
  for kind in cuda tpu; do
    if [[ -f "$1/.installed-$kind" ]]; then
      rm "$1/.installed-$kind"
      install_accelerator "$kind"
    fi
  done
}

# The requirements file $1 in the folder $2 of the environment of `python`, off its search path.
install_beside() {
  local venv
  venv="$(dirname "$(dirname "$python")")"
  if is_installed "$venv" "$1"; then return; fi
  echo "Installing $1 into $venv/$2 (once; this can take some minutes)"
  patiently "$python" -m pip install --quiet --disable-pip-version-check --upgrade --target "$venv/$2" -r "$1" ||
    fail "could not install $1; pip says why above."
  cp "$1" "$(stamp "$venv" "$1")"
}

# Sets the array `packages` to what the accelerator $1 needs: jax[cuda], or jax[tpu] and what reads
# gs://. The requirements are for any machine.
take_packages() {
  packages=("jax[$1]")
  case "$1" in
    cuda) ;;
    tpu) packages+=(gcsfs) ;;
    *) fail "accelerator '$1' is unknown; expected cuda or tpu." ;;
  esac
}

# What an accelerator needs, in the environment of `python`.
install_accelerator() {
  local kind="$1" venv packages
  take_packages "$kind"
  venv="$(dirname "$(dirname "$python")")"
  if [[ -f "$venv/.installed-$kind" ]]; then return; fi
  echo "Installing ${packages[*]} into $venv (once; this can take some minutes)"
  # Constrained by what is there: the version of jax that the requirements chose stays.
  patiently "$python" -m pip install --quiet --disable-pip-version-check \
    --constraint <("$python" -m pip freeze --disable-pip-version-check) "${packages[@]}" ||
    fail "could not install ${packages[*]}; pip says why above."
  touch "$venv/.installed-$kind"
}

# Makes the package of this checkout, and its command dsd-jax, found from any folder in environment $1,
# as `pip install --editable` does, but without a network, and without a file in the checkout, which
# may be read-only. A checkout that has moved is found again at its next start; an installed package
# and another checkout that is still there are left alone.
link_package() {
  local site link="" script="$1/bin/dsd-jax"
  for site in "$1"/lib/python3*/site-packages; do
    link="$site/dsd_jax_checkout.pth"
    if [[ ! -d "$site" ]] || compgen -G "$site/dsd_jax-*.dist-info" >/dev/null; then return; fi
    if [[ -f "$link" && -d "$(<"$link")/dsd_jax" && "$1" != "$root/.venv" ]]; then return; fi
    if [[ -f "$link" && "$(<"$link")" == "$root" && -x "$script" ]]; then return; fi
  done
  # The first lines are how pip starts Python where its path has spaces or is long.
  { printf '%s\n' "$root" >"$link" && cat >"$script" && chmod +x "$script"; } 2>/dev/null <<EOF || true
#!/bin/sh
'''exec' "$1/bin/python" "\$0" "\$@"
' '''
import sys
from dsd_jax.__main__ import run
sys.exit(run())
EOF
}

# Sets `python` to the interpreter of an environment in which the requirements files are installed.
use_environment() {
  local venv="${DSD_VENV:-}" requirements is_own=yes
  if [[ -z "$venv" && -n "${VIRTUAL_ENV:-}" ]] && is_supported "$VIRTUAL_ENV/bin/python"; then
    venv="$VIRTUAL_ENV" is_own=""
    for requirements in "$@"; do
      is_ready "$venv" "$requirements" && continue
      venv="" is_own=yes
      break
    done
  fi
  venv="${venv:-$root/.venv}"
  [[ "$venv" == /* ]] || venv="$PWD/$venv"
  [[ -x "$venv/bin/python" ]] || create_venv "$venv"
  is_supported "$venv/bin/python" ||
    fail "the environment $venv is not of Python 3.11, 3.12 or 3.13; remove it or set DSD_VENV."
  for requirements in "$@"; do
    install_once "$venv" "$requirements"
  done
  if [[ -n "$is_own" ]]; then link_package "$venv"; fi
  # shellcheck disable=SC2034  # for the script that sources this one
  python="$venv/bin/python"
}
