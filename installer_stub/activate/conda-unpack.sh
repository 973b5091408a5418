#!/bin/sh
# Relocate the tree that this file is in:  bin/conda-unpack [-h] [-v] [--version] ...
# It finds the tree and a Python inside it, and leaves the rest to .pack/relocator; where there is no Python, to the
# frozen .pack/stub, if the archive had one. The user's PATH, PYTHONHOME and the like do not matter;
# LD_LIBRARY_PATH only where no Python runs without it.

newline='
'

# Print where the symlink $1 leads, and an "x" that guards a newline.
link_of() (
    PATH=/usr/bin:/bin:/usr/local/bin:/run/current-system/sw/bin
    readlink "$1" && echo x
)

# Print the physical path of the symlink $1 followed to its end, and an "x" that guards a newline.
follow() {
    place=$1
    while [ -h "$place" ]; do
        link=$(link_of "$place") || return
        link=${link%"${newline}x"}
        case $link in
        /*) place=$link ;;
        *) place=${place%/*}/$link ;;
        esac
    done
    directory=$(cd -P "${place%/*}" >/dev/null && pwd -P && echo x) || return
    printf '%sx' "${directory%"${newline}x"}/${place##*/}"
}

# Say whether the Python $1 runs and is new enough for the relocator.
fits() {
    "$1" -I -S -B -X utf8 -c 'import sys; sys.exit(sys.version_info < (3, 8))' </dev/null >/dev/null 2>&1
}

# Find the Python of the environment: $python. First those that stay inside the tree; a virtual
# environment has only links to one outside, or one that was packed with it, by whose own name it starts anywhere.
choose() {
    for where in inside outside; do
        for bin in "$root"/share/pack-python/bin "$root"/bin; do
            for candidate in "$bin"/python3 "$bin"/python "$bin"/python3.[0-9] "$bin"/python3.[0-9][0-9]; do
                if [ ! -f "$candidate" ] || [ ! -x "$candidate" ]; then continue; fi
                real=$(follow "$candidate") || continue
                case $real in
                "$root"/*) [ "$where" = inside ] || continue ;;
                *) [ "$where" = outside ] || continue ;;
                esac
                if fits "$candidate"; then
                    python=$candidate
                    return 0
                fi
            done
        done
    done
    return 1
}

# Name the Python outside to which a virtual environment's leads, where that is not on this machine: $said.
say_gone() {
    for candidate in "$root"/bin/python3 "$root"/bin/python "$root"/bin/python3.[0-9] "$root"/bin/python3.[0-9][0-9]; do
        if [ ! -h "$candidate" ] || [ -e "$candidate" ]; then continue; fi
        link=$(link_of "$candidate") || continue
        case $link in
        /*)
            said="Its bin/${candidate##*/} is a link to ${link%"${newline}x"}, which is not on this machine: put the same Python there.$newline"
            return
            ;;
        esac
    done
}

# Relocate by the frozen program, and do not return; or say why nothing here can do it.
frozen() {
    unset LD_LIBRARY_PATH
    stub=$root/.pack/stub/relocator
    said=
    if [ -f "$stub" ]; then
        # Whoever started this may be such a frozen program: its loader's variables are not for this one's.
        PYINSTALLER_RESET_ENVIRONMENT=1
        export PYINSTALLER_RESET_ENVIRONMENT
        if said=$("$stub" --version 2>&1 </dev/null); then
            exec "$stub" unpack "$root" "$@"
        fi
        said="Its frozen relocator does not start on this machine: $said$newline"
    else
        say_gone
    fi
    printf '%s\n' "conda-unpack: $root: this environment holds no Python 3.8 or newer that runs, to relocate itself with." \
        "${said}On a machine that has pack, run:  pack relocate $root" >&2
}

unset CDPATH
case $0 in
*/*) self=$0 ;;
*) self=./$0 ;; # "sh conda-unpack" in bin
esac
case $self in
/*) ;;
*) self=./$self ;; # cd would take a name that begins with "-" for an option
esac
if ! self=$(follow "$self"); then
    echo "conda-unpack: cannot find out where $0 stands: readlink, or the directory, is missing." >&2
    exit 10
fi
self=${self%x}
root=${self%/bin/*}
if [ -e "$root/.installing" ] && [ -z "${_PACK_INSTALLING-}" ]; then
    printf '%s\n' "conda-unpack: $root: an installation here was not completed. Run the installer again, or unpack the delta with its base." >&2
    exit 12
fi

kept=${LD_LIBRARY_PATH+set}
library_path=${LD_LIBRARY_PATH-}
unset LD_LIBRARY_PATH
if ! choose; then
    # On clusters a virtual environment's Python may come from a module, and start only with this.
    if [ -n "$kept" ]; then
        LD_LIBRARY_PATH=$library_path
        export LD_LIBRARY_PATH
    fi
    if [ -z "$kept" ] || ! choose; then
        frozen "$@"
        exit 10
    fi
fi
exec "$python" -I -S -B -X utf8 "$root/.pack/relocator" unpack "$root" "$@"
