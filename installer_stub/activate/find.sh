# "\." keeps an alias from taking its place; every supported shell has -ef, and posh is turned away.
# shellcheck disable=SC1001,SC3013
if [ -n "${POSH_VERSION-}" ]; then
    echo '@STEM@: posh is not supported: its test has no -ef. Use dash, bash or another shell.' >&2
    # The file may be run as a program, where some shells refuse "return".
    # shellcheck disable=SC2317
    return 2 2>/dev/null || exit 2
fi

_pack_recorded='@PREFIX@'
_pack_host='@HOST@'
_pack_newline='
'

# Find the root of this tree: $_pack_root. The recorded path where it is this tree, else the physical one.
_pack_find() {
    # In zsh options are those of POSIX until the function returns: words, patterns, "command".
    if [ -n "${ZSH_VERSION-}" ] && \command -v emulate >/dev/null 2>&1; then
        emulate -L sh
    fi
    _pack_self=
    # shellcheck disable=SC3028  # asked for only in bash, which has it
    if [ -n "${BASH_VERSION-}" ] && [ -n "${BASH_SOURCE-}" ]; then
        _pack_self=$BASH_SOURCE
    elif [ -n "${ZSH_VERSION-}" ] && [ -n "${ZSH_EVAL_CONTEXT-}" ]; then
        \eval '_pack_self=${(%):-%x}'
        if [ ! -f "$_pack_self" ]; then
            # %x shows a newline as \n. The other way needs a module that not every zsh has.
            \eval '_pack_self=${funcsourcetrace[1]%:*}'
        fi
    else
        # mksh has KSH_VERSION too, and would not parse this.
        case ${KSH_VERSION-} in
        Version*) \eval '_pack_self=${.sh.file}' ;;
        esac
    fi
    # A relative name may begin with "-", and a bare one has no directory to cut off.
    case $_pack_self in
    '' | /*) ;;
    *) _pack_self=./$_pack_self ;;
    esac

    if [ -n "$_pack_self" ]; then
        _pack_program=$_pack_self
        # The directory decides, so that a copy made of hard links is not taken for its original;
        # the file decides only where it was reached through a symlink to it.
        if [ -n "$_pack_recorded" ] && {
            [ "${_pack_self%/*}/.." -ef "$_pack_recorded" ] ||
                { [ -h "$_pack_self" ] && [ "$_pack_self" -ef "$_pack_recorded/bin/@STEM@" ]; }
        }; then
            _pack_root=$_pack_recorded
        else
            _pack_resolve
        fi
    else
        # The other shells hold the file that they are sourcing open.
        _pack_fd=255
        while [ -z "$_pack_root" ] && [ "$_pack_fd" -gt 2 ]; do
            _pack_program=/proc/self/fd/$_pack_fd
            if [ -n "$_pack_recorded" ] && [ "$_pack_program" -ef "$_pack_recorded/bin/@STEM@" ]; then
                _pack_root=$_pack_recorded
            fi
            _pack_fd=$((_pack_fd - 1))
        done
        _pack_fd=255
        while [ -z "$_pack_root" ] && [ "$_pack_fd" -gt 2 ]; do
            _pack_program=/proc/self/fd/$_pack_fd
            if [ -f "$_pack_program" ]; then
                # Opened again as the standard input of readlink: a process that the shell starts does not
                # have the original, and in a subshell $$ is not the process that does.
                { _pack_self=$(\command readlink /proc/self/fd/0 && echo x); } <"$_pack_program"
                _pack_self=${_pack_self%"${_pack_newline}x"}
                case $_pack_self in
                */bin/@STEM@) _pack_resolve ;;
                esac
            fi
            _pack_fd=$((_pack_fd - 1))
        done
    fi

    if [ -n "$_pack_root" ]; then
        # In zsh $0 is the sourced file, or the function.
        # shellcheck disable=SC3028
        case ${ZSH_EVAL_CONTEXT-} in
        '') if [ "$0" -ef "$_pack_program" ]; then _pack_executed; return; fi ;;
        *:file | *:file:*) ;;
        *) _pack_executed; return ;;
        esac
        return 0
    fi
    for _pack_self in "${PACK_PREFIX:+$PACK_PREFIX/bin/@STEM@}" ./bin/@STEM@; do
        if [ -z "$_pack_root" ] && [ -f "$_pack_self" ]; then
            _pack_resolve
        fi
    done
    if [ -z "$_pack_root" ]; then
        \printf '%s\n' "@STEM@: this shell does not tell a sourced file where it stands, and /proc does not either." \
            "The environment was last relocated to '$_pack_recorded' on '$_pack_host'." \
            "cd to the root of the environment, or set PACK_PREFIX to its path, and source bin/@STEM@ again." >&2
        return 3
    fi
}

# Refuse to be run as a program: it would change nothing in the shell that ran it.
_pack_executed() {
    \printf '%s\n' "@STEM@: this file must be sourced, not run:  . bin/@STEM@" >&2
    return 2
}

# Set $_pack_root from $_pack_self, a path of this file; leave it empty where no tree of ours is there.
_pack_resolve() {
    if [ -n "${ZSH_EVAL_CONTEXT-}" ]; then
        # Without cd: that would run the user's chpwd functions.
        \eval '_pack_root=${_pack_self:A:h:h}'
    else
        while [ -h "$_pack_self" ]; do
            _pack_link=$(\command readlink "$_pack_self" && echo x)
            _pack_link=${_pack_link%"${_pack_newline}x"}
            case $_pack_link in
            /*) _pack_self=$_pack_link ;;
            *) _pack_self=${_pack_self%/*}/$_pack_link ;;
            esac
        done
        # pwd ends its output with a newline, and $() would take those of the path with it.
        _pack_root=$(\command cd -P "${_pack_self%/*}/.." >/dev/null && \command pwd -P && echo x)
        _pack_root=${_pack_root%"${_pack_newline}x"}
    fi
    if [ ! -f "$_pack_root/bin/conda-unpack" ]; then
        _pack_root=
    elif [ -n "$_pack_recorded" ] && [ "$_pack_root" -ef "$_pack_recorded" ]; then
        _pack_root=$_pack_recorded
    fi
}
