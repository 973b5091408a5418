# Undo what bin/@STEM@.csh did in the tcsh that sources this file:  source bin/@DEACTIVATE@.csh
# It reads nothing but the variables that activation left: the environment itself may be gone.

if ( ! $?tcsh ) then
    /bin/sh -c 'echo "@DEACTIVATE@.csh: only tcsh is supported, not this csh." >&2'
    exit 2
endif

set _pack_off_kept = ()
foreach _pack_off_each ( noglob nonomatch backslash_quote )
    eval 'set _pack_off_has = $?'$_pack_off_each
    if ( $_pack_off_has ) then
        set _pack_off_kept = ( $_pack_off_kept $_pack_off_each )
        unset $_pack_off_each
    endif
end
set nonomatch

# What is active: the level that we activated last; 0 for none.
set _pack_off_code = 0
set _pack_off_level = 0
set _pack_off_outer = 0
set _pack_off_root = ''
set _pack_off_run = ()
if ( $?CONDA_SHLVL && $?CONDA_PREFIX ) then
    if ( "$CONDA_SHLVL:q" =~ [1-9] || "$CONDA_SHLVL:q" =~ [1-9][0-9] ) then
        set _pack_off_outer = $CONDA_SHLVL
        set _pack_off_root = $CONDA_PREFIX:q
    endif
endif
if ( $_pack_off_outer > 0 ) then
    eval 'set _pack_off_has = $?_PACK_PREFIX_'$_pack_off_outer
    if ( $_pack_off_has ) then
        eval 'set _pack_off_was = $_PACK_PREFIX_'$_pack_off_outer':q'
        if ( "$_pack_off_was:q" == "$_pack_off_root:q" ) then
            set _pack_off_level = $_pack_off_outer
            set _pack_off_outer = 0
        endif
    endif
endif
while ( $_pack_off_outer > 1 )
    @ _pack_off_outer--
    eval '@ _pack_off_has = $?_PACK_PREFIX_'$_pack_off_outer' + $?CONDA_PREFIX_'$_pack_off_outer
    if ( $_pack_off_has == 2 ) then
        eval 'set _pack_off_was = $_PACK_PREFIX_'$_pack_off_outer':q'
        eval 'set _pack_off_shown = $CONDA_PREFIX_'$_pack_off_outer':q'
        if ( "$_pack_off_was:q" == "$_pack_off_shown:q" ) then
            /bin/sh -c 'printf "%s\n" "$@" >&2' sh "@DEACTIVATE@.csh: $CONDA_PREFIX:q was activated on top of $_pack_off_was:q, by another program." \
                "Deactivate that first."
            set _pack_off_code = 1
            set _pack_off_outer = 0
        endif
    endif
end
if ( $_pack_off_level > 0 ) then
    # As in activation: tcsh finds nothing below a quoted path that is not ASCII.
    set _pack_off_lines = ( $_pack_off_root:q/etc/conda/deactivate.d/*.csh )
    if ( ! -e "$_pack_off_lines[1]:q" ) then
        set _pack_off_shown = $_pack_off_root:q
        set _pack_off_shown = $_pack_off_shown:as/ /?/:q
        set _pack_off_shown = $_pack_off_shown:as/	/?/:q
        set _pack_off_shown = $_pack_off_shown:as/[/?/:q
        set _pack_off_shown = $_pack_off_shown:as/]/?/:q
        set _pack_off_shown = $_pack_off_shown:as/{/?/:q
        set _pack_off_shown = $_pack_off_shown:as/}/?/:q
        set _pack_off_shown = $_pack_off_shown:as/\\/?/:q
        set _pack_off_lines = ( $_pack_off_shown/etc/conda/deactivate.d/*.csh )
    endif
    while ( $#_pack_off_lines )
        if ( -f "$_pack_off_lines[1]:q" && -r "$_pack_off_lines[1]:q" ) then
            if ( -F $_pack_off_lines[1]:h:q == -F $_pack_off_root:q/etc/conda/deactivate.d ) then
                set _pack_off_run = ( $_pack_off_lines[1]:q $_pack_off_run:q )
            endif
        endif
        shift _pack_off_lines
    end
endif
unset nonomatch
foreach _pack_off_each ( $_pack_off_kept )
    set $_pack_off_each
end
while ( $#_pack_off_run )
    source $_pack_off_run[1]:q
    shift _pack_off_run
end

if ( $_pack_off_level > 0 ) then
    if ( $?prompt && $?CONDA_PROMPT_MODIFIER ) then
        eval 'set _pack_off_has = $?_PACK_PROMPT_'$_pack_off_level
        if ( $_pack_off_has ) then
            eval 'set _pack_off_was = $_PACK_PROMPT_'$_pack_off_level':q'
            if ( "$prompt:q" == $CONDA_PROMPT_MODIFIER:q$_pack_off_was:q ) then
                set prompt = $_pack_off_was:q
            endif
        endif
    endif
    unset _PACK_PROMPT_$_pack_off_level

    # A PATH that was changed since loses our entry and keeps the rest.
    eval 'set _pack_off_was = $_PACK_PATH_'$_pack_off_level':q'
    set _pack_off_path = ()
    if ( $?PATH ) then
        if ( "$PATH:q" != "$_pack_off_was:q" ) then
            foreach _pack_off_each ( $path:q )
                if ( "$_pack_off_each:q" != $_pack_off_root:q/bin ) then
                    set _pack_off_path = ( $_pack_off_path:q $_pack_off_each:q )
                endif
            end
        endif
    endif

    eval 'set _pack_off_names = ( $_PACK_NAMES_'$_pack_off_level' )'
    foreach _pack_off_each ( $_pack_off_names:q )
        # The list comes from the environment: what is no name of a variable is not evaluated.
        if ( "$_pack_off_each:q" !~ *[^A-Za-z0-9_]* ) then
            eval 'set _pack_off_has = $?_PACK_OLD_'$_pack_off_level'_'$_pack_off_each
            if ( $_pack_off_each == PATH && $#_pack_off_path ) then
                set path = ( $_pack_off_path:q )
            else if ( $_pack_off_has ) then
                eval 'setenv '$_pack_off_each' $_PACK_OLD_'$_pack_off_level'_'$_pack_off_each':q'
            else
                unsetenv $_pack_off_each
            endif
            unsetenv _PACK_OLD_{$_pack_off_level}_$_pack_off_each
        endif
    end
    unsetenv _PACK_NAMES_$_pack_off_level
    unsetenv _PACK_PREFIX_$_pack_off_level
    unsetenv _PACK_PATH_$_pack_off_level
endif

set _pack_off_status = $_pack_off_code
foreach _pack_off_each ( kept has code level outer root run was path names lines shown )
    unset _pack_off_$_pack_off_each
end
unset _pack_off_each
# One line, read before its variable is gone.
eval "unset _pack_off_status; exit $_pack_off_status"
