if ( ! $?tcsh ) then
    # This csh cannot tell a file from another, and would not find this tree.
    /bin/sh -c 'echo "@STEM@.csh: only tcsh is supported, not this csh. Start tcsh, or source bin/@STEM@ in sh." >&2'
    exit 2
endif

# Options that change how names and quotes are read, put back before anybody else's script runs.
set _pack_kept = ()
foreach _pack_each ( noglob nonomatch backslash_quote )
    eval 'set _pack_has = $?'$_pack_each
    if ( $_pack_has ) then
        set _pack_kept = ( $_pack_kept $_pack_each )
        unset $_pack_each
    endif
end
set nonomatch

set _pack_recorded = '@PREFIX@'
set _pack_host = '@HOST@'
set _pack_newline = '\
'
set _pack_root = ''
set _pack_code = 0
set _pack_reread = 0

if ( $?_PACK_ROOT ) then
    # This file has been read again, after a relocation: the tree has just been found.
    set _pack_root = $_PACK_ROOT:q
    set _pack_reread = 1
    unset _PACK_ROOT
else
    # tcsh holds the file that it is sourcing open. -F gives a file's device and inode.
    if ( "$_pack_recorded:q" != '' ) then
        foreach _pack_each ( /proc/self/fd/* )
            if ( -f $_pack_each ) then
                if ( -F $_pack_each == -F $_pack_recorded:q/bin/@STEM@.csh ) then
                    set _pack_root = $_pack_recorded:q
                endif
            endif
        end
    endif
    if ( "$_pack_root:q" == '' ) then
        # The processes that backquotes start do not have it: sh goes up to the one that has. Through the
        # environment, because csh would expand what it reads between backquotes once more.
        setenv _PACK_UP 'pid=$PPID; while [ "$pid" -gt 1 ]; do if [ -f "/proc/$pid/fd/$1" ]; then readlink "/proc/$pid/fd/$1"; exit; fi; read -r stat <"/proc/$pid/stat" || exit; stat=${stat##*) ? }; pid=${stat%% *}; done'
        foreach _pack_each ( /proc/self/fd/* )
            if ( -f $_pack_each ) then
                # Backquotes give one word for each line of a path with newlines.
                set _pack_lines = "`printenv _PACK_UP | /bin/sh -s $_pack_each:t`"
                set _pack_self = ''
                while ( $#_pack_lines )
                    set _pack_self = $_pack_self:q$_pack_lines[1]:q
                    shift _pack_lines
                    if ( $#_pack_lines ) then
                        set _pack_self = $_pack_self:q$_pack_newline:q
                    endif
                end
                if ( "$_pack_self:q" =~ */bin/@STEM@.csh ) then
                    set _pack_self = $_pack_self:h:q
                    if ( -f $_pack_self:q/conda-unpack ) then
                        set _pack_root = $_pack_self:h:q
                    endif
                endif
            endif
        end
        unsetenv _PACK_UP
    endif
    if ( "$_pack_root:q" == '' ) then
        set _pack_self = .
        if ( $?PACK_PREFIX ) then
            set _pack_self = $PACK_PREFIX:q
        endif
        if ( -f $_pack_self:q/bin/@STEM@.csh && -f $_pack_self:q/bin/conda-unpack ) then
            set _pack_root = "`cd $_pack_self:q; /bin/pwd -P`"
        endif
    endif
    if ( "$_pack_root:q" == '' ) then
        /bin/sh -c 'printf "%s\n" "$@" >&2' sh "@STEM@.csh: tcsh does not tell a sourced file where it stands, and /proc does not either." \
            "The environment was last relocated to $_pack_recorded:q on $_pack_host:q." \
            "cd to the root of the environment, or set PACK_PREFIX to its path, and source bin/@STEM@.csh again."
        set _pack_code = 3
    else if ( "$_pack_recorded:q" != '' ) then
        if ( -d $_pack_recorded:q ) then
            if ( -F "$_pack_recorded:q" == -F $_pack_root:q ) then
                set _pack_root = $_pack_recorded:q
            endif
        endif
    endif
endif
