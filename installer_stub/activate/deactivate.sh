#!/bin/sh
# Undo what bin/@STEM@ did in the shell that sources this file:  . bin/@DEACTIVATE@
# It reads nothing but the variables that activation left: the environment itself may be gone.

# "\." keeps an alias from taking its place; only bash asks shopt.
# shellcheck disable=SC1001,SC3044

# Find what is active: $_pack_off_level, the level that we activated last; 0 for none.
_pack_off_find() {
    case ${CONDA_SHLVL-} in
    [1-9] | [1-9][0-9]) _pack_off_level=$CONDA_SHLVL ;;
    *) return 0 ;;
    esac
    \eval "_pack_off_root=\${_PACK_PREFIX_$_pack_off_level-}"
    if [ -n "$_pack_off_root" ] && [ "$_pack_off_root" = "${CONDA_PREFIX-}" ]; then
        return 0
    fi
    _pack_off_outer=$((_pack_off_level - 1))
    _pack_off_level=0
    while [ "$_pack_off_outer" -gt 0 ]; do
        \eval "_pack_off_root=\${_PACK_PREFIX_$_pack_off_outer-}"
        \eval "_pack_off_was=\${CONDA_PREFIX_$_pack_off_outer-}"
        if [ -n "$_pack_off_root" ] && [ "$_pack_off_root" = "$_pack_off_was" ]; then
            \printf '%s\n' "@DEACTIVATE@: ${CONDA_PREFIX-} was activated on top of $_pack_off_root, by another program." \
                "Deactivate that first." >&2
            return 1
        fi
        _pack_off_outer=$((_pack_off_outer - 1))
    done
}

# Put the names of the scripts of deactivate.d into $_pack_off_run, last one first, each followed by "/".
_pack_off_list() {
    if [ -n "${ZSH_VERSION-}" ] && \command -v emulate >/dev/null 2>&1; then
        emulate -L sh
    fi
    [ -d "$_pack_off_root/etc/conda/deactivate.d" ] || return 0
    _pack_off_options=
    case $- in
    *f*) _pack_off_options='set -f' ;;
    esac
    \set +f
    if [ -n "${BASH_VERSION-}" ] && \shopt -q failglob 2>/dev/null; then
        _pack_off_options="$_pack_off_options
            shopt -s failglob"
        \shopt -u failglob
    fi
    _pack_off_was=${LC_ALL+set}
    _pack_off_locale=${LC_ALL-}
    { LC_ALL=C; } 2>/dev/null
    for _pack_off_script in "$_pack_off_root/etc/conda/deactivate.d"/*.sh; do
        if [ -f "$_pack_off_script" ] && [ -r "$_pack_off_script" ]; then
            _pack_off_run=${_pack_off_script##*/}/$_pack_off_run
        fi
    done
    if [ -n "$_pack_off_was" ]; then
        { LC_ALL=$_pack_off_locale; } 2>/dev/null
    else
        \unset -v LC_ALL
    fi
    \eval "$_pack_off_options"
}

# Give every variable that activation set its former value, or none.
_pack_off_restore() {
    if [ -n "${ZSH_VERSION-}" ] && \command -v emulate >/dev/null 2>&1; then
        emulate -L sh
    fi
    if [ -n "${CONDA_PROMPT_MODIFIER-}" ]; then
        case ${PS1-} in
        "$CONDA_PROMPT_MODIFIER"*)
            \eval "_pack_off_was=\${_PACK_PROMPT_$_pack_off_level-}"
            PS1=$_pack_off_was${PS1#"$CONDA_PROMPT_MODIFIER"}
            ;;
        esac
    fi

    # What was put before or behind our PATH since, stays.
    _pack_off_ours=
    \eval "_pack_off_ours=\${_PACK_PATH_$_pack_off_level-}"
    \eval "_pack_off_was=\${_PACK_OLD_${_pack_off_level}_PATH-}"
    _pack_off_path=:${PATH-}:
    case $_pack_off_path in
    ":$_pack_off_ours:")
        _pack_off_path=:$_pack_off_was:
        ;;
    *":$_pack_off_ours:"*)
        # Without a former value no empty entry may appear: it would mean the working directory.
        _pack_off_was=${_pack_off_was:+$_pack_off_was:}
        _pack_off_path=${_pack_off_path%%":$_pack_off_ours:"*}:$_pack_off_was${_pack_off_path#*":$_pack_off_ours:"}
        ;;
    *":$_pack_off_root/bin:"*)
        _pack_off_path=${_pack_off_path%%":$_pack_off_root/bin:"*}:${_pack_off_path#*":$_pack_off_root/bin:"}
        ;;
    esac
    _pack_off_path=${_pack_off_path#:}
    _pack_off_path=${_pack_off_path%:}

    \eval "_pack_off_names=\${_PACK_NAMES_$_pack_off_level-}"
    while [ -n "$_pack_off_names" ]; do
        _pack_off_name=${_pack_off_names%% *}
        case $_pack_off_names in
        *' '*) _pack_off_names=${_pack_off_names#* } ;;
        *) _pack_off_names= ;;
        esac
        # The list comes from the environment: what is no name of a variable is not evaluated.
        case $_pack_off_name in
        '' | [0-9]* | *[!A-Za-z0-9_]*) continue ;;
        esac
        \eval "_pack_off_was=\${_PACK_OLD_${_pack_off_level}_$_pack_off_name+set}"
        if [ "$_pack_off_name" = PATH ] && [ -n "$_pack_off_was$_pack_off_path" ]; then
            PATH=$_pack_off_path
        elif [ -n "$_pack_off_was" ]; then
            \eval "$_pack_off_name=\$_PACK_OLD_${_pack_off_level}_$_pack_off_name"
            \export "${_pack_off_name?}"
        else
            \unset -v "$_pack_off_name"
        fi
        \unset -v "_PACK_OLD_${_pack_off_level}_$_pack_off_name"
    done
    \unset -v "_PACK_NAMES_$_pack_off_level" "_PACK_PREFIX_$_pack_off_level" \
        "_PACK_PATH_$_pack_off_level" "_PACK_PROMPT_$_pack_off_level"
}

_pack_off_level=0
_pack_off_root=
_pack_off_run=
_pack_off_code=0
_pack_off_newline='
'
_pack_off_find || _pack_off_code=$?
if [ "$_pack_off_level" -gt 0 ]; then
    _pack_off_list
    # The scripts of packages are seldom written for these options; see bin/@STEM@.
    case $- in
    *e*) _pack_off_options='set -e' ;;
    *) _pack_off_options= ;;
    esac
    case $- in
    *u*) _pack_off_options="$_pack_off_options$_pack_off_newline"'set -u' ;;
    esac
    \set +eu
    while [ -n "$_pack_off_run" ]; do
        _pack_off_script=${_pack_off_run%%/*}
        _pack_off_run=${_pack_off_run#*/}
        # shellcheck disable=SC1090
        \. "$_pack_off_root/etc/conda/deactivate.d/$_pack_off_script" || :
    done
    \eval "${_pack_off_options-}"
    _pack_off_restore
fi

\unset -f _pack_off_find _pack_off_list _pack_off_restore 2>/dev/null || :
\unset -v _pack_off_level _pack_off_root _pack_off_run _pack_off_newline _pack_off_outer _pack_off_was \
    _pack_off_options _pack_off_locale _pack_off_script _pack_off_ours _pack_off_path _pack_off_names \
    _pack_off_name || :
if [ "$_pack_off_code" -eq 0 ]; then
    \unset -v _pack_off_code
    # Run as a program, which some shells do not let "return", this does nothing.
    # shellcheck disable=SC2317
    return 0 2>/dev/null || exit 0
fi
\unset -v _pack_off_code
# shellcheck disable=SC2317
return 1 2>/dev/null || exit 1
