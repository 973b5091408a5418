#!/bin/sh
# Activate this environment in the shell that sources this file:  . bin/@STEM@
# For bash, dash, zsh, ksh93, mksh, yash and busybox sh; see docs/activation.md for what it sets.
#
# Where the recorded path is this tree, nothing here starts a process: no command substitution, no
# pipe, no program. A shell must never fail to parse a line that is meant for another: such lines are
# in eval. Builtins that people alias carry a backslash.

# Some variables are set by the part that finds; only bash asks shopt.
# shellcheck disable=SC2154,SC3044
# @FIND@

# Refuse a tree that an installer has not completed; its own hook, which is the last part of that, may pass.
_pack_complete() {
    if [ -e "$_pack_root/.installing" ] && [ -z "${_PACK_INSTALLING-}" ]; then
        \printf '%s\n' "@STEM@: $_pack_root: an installation here was not completed. Run the installer again, or unpack the delta with its base." >&2
        return 12
    fi
}

# Relocate the tree if that is called for. $_pack_again is set when this file must be read again.
_pack_relocate() {
    if [ "$_pack_root" = "$_pack_recorded" ] || [ "${PACK_RELOCATE-}" = never ]; then
        return 0
    fi
    "$_pack_root/bin/conda-unpack" --activation </dev/null || _pack_status=$?
    case $_pack_status in
    0) _pack_again=yes ;;
    9 | 10 | 12) # it has said what is stale; what can be set is set all the same
        if [ "${PACK_RELOCATE-}" = require ]; then
            return "$_pack_status"
        fi
        ;;
    *) return "$_pack_status" ;;
    esac
}

# Set and export $1=$2, and remember in _PACK_OLD_<level>_$1 what it was; absent if it was unset.
_pack_set() {
    \eval "_pack_was=\${$1+set}"
    if [ -n "$_pack_was" ]; then
        \eval "_PACK_OLD_${_pack_level}_$1=\$$1"
        \export "_PACK_OLD_${_pack_level}_$1"
    else
        \unset -v "_PACK_OLD_${_pack_level}_$1"
    fi
    \eval "$1=\$2"
    \export "${1?}"
    _pack_names="$_pack_names${_pack_names:+ }$1"
}

# Read the level of nesting into $_pack_level: 0 for anything but a small number.
_pack_count() {
    case ${CONDA_SHLVL-} in
    [1-9] | [1-9][0-9]) _pack_level=$CONDA_SHLVL ;;
    *) _pack_level=0 ;;
    esac
}

# Say whether the environment that is active now is this one, activated by this file.
_pack_active() {
    _pack_count
    \eval "_pack_was=\${_PACK_PREFIX_$_pack_level-}"
    [ -n "$_pack_was" ] && [ "$_pack_was" = "${CONDA_PREFIX-}" ] && [ "$_pack_was" -ef "$_pack_root" ]
}

# Set everything but what activate.d sets.
_pack_begin() {
    if [ -n "${ZSH_VERSION-}" ] && \command -v emulate >/dev/null 2>&1; then
        emulate -L sh
    fi
    _pack_count
    _pack_outer=$_pack_level
    _pack_level=$((_pack_level + 1))
    _pack_names=

    _pack_path=:${PATH-}:
    while :; do
        case $_pack_path in
        *":$_pack_root/bin:"*)
            _pack_path=${_pack_path%%":$_pack_root/bin:"*}:${_pack_path#*":$_pack_root/bin:"}
            ;;
        *) break ;;
        esac
    done
    _pack_path=${_pack_path#:}
    _pack_path=${_pack_path%:}
    _pack_set PATH "$_pack_root/bin${_pack_path:+:$_pack_path}"
    \eval "_PACK_PATH_$_pack_level=\$PATH"

    if [ "$_pack_outer" -gt 0 ] && [ -n "${CONDA_PREFIX-}" ]; then
        _pack_set "CONDA_PREFIX_$_pack_outer" "$CONDA_PREFIX"
        # conda's own deactivate then takes our PATH entry out and leaves the rest.
        _pack_set "CONDA_STACKED_$_pack_level" true
    fi
    _pack_set CONDA_PREFIX "$_pack_root"
    _pack_set CONDA_SHLVL "$_pack_level"
    _pack_set CONDA_DEFAULT_ENV "${_pack_root##*/}"

    # What a prompt would expand or run is not shown in it.
    _pack_rest=${_pack_root##*/}
    _pack_name=
    while :; do
        case $_pack_rest in
        *[\$\`\\%!^[:cntrl:]]*)
            _pack_char=${_pack_rest%%[\$\`\\%!^[:cntrl:]]*}
            _pack_name=$_pack_name${_pack_char}_
            _pack_rest=${_pack_rest#"$_pack_char"?}
            ;;
        *) break ;;
        esac
    done
    _pack_name=$_pack_name$_pack_rest
    _pack_former=${CONDA_PROMPT_MODIFIER-}
    _pack_set CONDA_PROMPT_MODIFIER "($_pack_name) "
    case $- in
    *i*)
        if [ -n "${PS1-}" ]; then
            case $PS1 in
            "$_pack_former"*) PS1=${PS1#"$_pack_former"} ;;
            *) _pack_former= ;;
            esac
            PS1=$CONDA_PROMPT_MODIFIER$PS1
            \eval "_PACK_PROMPT_$_pack_level=\$_pack_former"
        fi
        ;;
    esac

    # @VARIABLES@

    \eval "_PACK_NAMES_$_pack_level=\$_pack_names"
    \eval "_PACK_PREFIX_$_pack_level=\$_pack_root"
    \export "_PACK_NAMES_$_pack_level" "_PACK_PREFIX_$_pack_level" "_PACK_PATH_$_pack_level"
    _pack_list "$_pack_root/etc/conda/activate.d"
}

# Put the names of the scripts in directory $1 into $_pack_run, sorted by bytes, each followed by "/".
_pack_list() {
    [ -d "$1" ] || return 0
    _pack_options=
    case $- in
    *f*) _pack_options='set -f' ;;
    esac
    \set +f
    if [ -n "${BASH_VERSION-}" ] && \shopt -q failglob 2>/dev/null; then
        _pack_options="$_pack_options
            shopt -s failglob"
        \shopt -u failglob
    fi
    _pack_was=${LC_ALL+set}
    _pack_locale=${LC_ALL-}
    # A shell may warn of a locale that is not installed, as it did when it started.
    { LC_ALL=C; } 2>/dev/null
    for _pack_script in "$1"/*.sh; do
        if [ -f "$_pack_script" ] && [ -r "$_pack_script" ]; then
            _pack_run=$_pack_run${_pack_script##*/}/
        fi
    done
    if [ -n "$_pack_was" ]; then
        { LC_ALL=$_pack_locale; } 2>/dev/null
    else
        \unset -v LC_ALL
    fi
    \eval "$_pack_options"
}

# Whose first reading asked for this relocation, and is to be read again behind it: a virtual environment's own script.
_pack_own=${_PACK_OWN-}
\unset -v _PACK_OWN || :
_pack_root=${_PACK_ROOT-}
_pack_code=0
_pack_again=
_pack_run=
_pack_level=0
_pack_was=
_pack_status=0
if [ -n "$_pack_root" ]; then
    # This file has been read again, after a relocation: the tree has just been found.
    \unset -v _PACK_ROOT
else
    { _pack_find && _pack_complete && _pack_relocate; } || _pack_code=$?
fi
if [ "$_pack_code" -ne 0 ]; then
    :
elif [ -n "$_pack_again" ]; then
    # Relocation has replaced this file: the recorded path and the variables below are those of the past.
    # shellcheck disable=SC2034  # read at the second reading
    _PACK_ROOT=$_pack_root
    # shellcheck disable=SC1090
    \. "$_pack_root/bin/${_pack_own:-@STEM@}" || _pack_code=$?
else
    case $_pack_root in
    *:*)
        \printf '%s\n' "@STEM@: $_pack_root: a path with ':' cannot stand in PATH. Move the environment." >&2
        _pack_code=7
        ;;
    *)
        if _pack_active && [ -f "$_pack_root/bin/@DEACTIVATE@" ]; then
            # shellcheck disable=SC1091
            \. "$_pack_root/bin/@DEACTIVATE@" || :
        fi
        _pack_begin
        # The scripts of packages are seldom written for these options. ("|| :" is not enough: dash, mksh
        # and busybox apply "set -e" inside a sourced file all the same.)
        case $- in
        *e*) _pack_options='set -e' ;;
        *) _pack_options= ;;
        esac
        case $- in
        *u*) _pack_options="$_pack_options${_pack_newline}set -u" ;;
        esac
        \set +eu
        while [ -n "$_pack_run" ]; do
            _pack_script=${_pack_run%%/*}
            _pack_run=${_pack_run#*/}
            # shellcheck disable=SC1090
            \. "$_pack_root/etc/conda/activate.d/$_pack_script" || :
        done
        \eval "${_pack_options-}"
        ;;
    esac
fi

\unset -f _pack_find _pack_executed _pack_complete _pack_resolve _pack_relocate _pack_set _pack_count _pack_active \
    _pack_begin _pack_list 2>/dev/null || :
\unset -v _pack_recorded _pack_host _pack_newline _pack_root _pack_again _pack_run _pack_self \
    _pack_program _pack_fd _pack_link _pack_status _pack_was _pack_level _pack_outer _pack_names _pack_path \
    _pack_rest _pack_name _pack_char _pack_former _pack_options _pack_locale _pack_script _pack_own || :
if [ "${_pack_code:-0}" -eq 0 ]; then
    \unset -v _pack_code
    # shellcheck disable=SC2317
    return 0 2>/dev/null || exit 0
fi
# The code must outlive its variable.
\eval "\\unset -v _pack_code; return $_pack_code 2>/dev/null || exit $_pack_code"
