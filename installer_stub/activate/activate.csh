# Activate this environment in the tcsh that sources this file:  source bin/@STEM@.csh
# See docs/activation.md for what it sets. Where the recorded path is this tree, nothing here starts a process.
#
# What looks odd is csh: it knows no functions, expands a one-line "if" even where that is false, reads
# nothing behind an eval on the same line, keeps a value in one piece with ":q", and drops an empty one
# from an expression or a list unless it is in double quotes.

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
set _pack_again = 0
set _pack_run = ()
set _pack_mode = ''
if ( $?PACK_RELOCATE ) then
    set _pack_mode = $PACK_RELOCATE:q
endif

if ( $?_PACK_ROOT ) then
    # This file has been read again, after a relocation: the tree has just been found.
    set _pack_root = $_PACK_ROOT:q
    set _pack_mode = never
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

if ( $_pack_code == 0 && -e $_pack_root:q/.installing ) then
    # An installer has not completed it; its own hook, which is the last part of that, may pass.
    set _pack_code = 12
    if ( $?_PACK_INSTALLING ) then
        if ( "$_PACK_INSTALLING:q" != '' ) then
            set _pack_code = 0
        endif
    endif
    if ( $_pack_code ) then
        /bin/sh -c 'printf "%s\n" "$@" >&2' sh "@STEM@.csh: ${_pack_root:q}: an installation here was not completed. Run the installer again."
    endif
endif

if ( $_pack_code == 0 && "$_pack_root:q" != "$_pack_recorded:q" && "$_pack_mode:q" != never ) then
    $_pack_root:q/bin/conda-unpack --activation < /dev/null
    set _pack_code = $status
    if ( $_pack_code == 0 ) then
        set _pack_again = 1
    else if ( $_pack_code == 9 || $_pack_code == 10 || $_pack_code == 12 ) then
        # It has said what is stale; what can be set is set all the same.
        if ( "$_pack_mode:q" != require ) then
            set _pack_code = 0
        endif
    endif
endif

if ( $_pack_code == 0 && ! $_pack_again && "$_pack_root:q" =~ *:* ) then
    /bin/sh -c 'printf "%s\n" "$@" >&2' sh "@STEM@.csh: a path with ':' cannot stand in PATH. Move the environment; it is at $_pack_root:q"
    set _pack_code = 7
endif

if ( $_pack_code == 0 && $_pack_again ) then
    # Relocation has replaced this file: the recorded path and the variables below are those of the past.
    set _PACK_ROOT = $_pack_root:q
    unset nonomatch
    foreach _pack_each ( $_pack_kept )
        set $_pack_each
    end
    source $_pack_root:q/bin/@STEM@.csh
    exit $status
endif

if ( $_pack_code == 0 ) then
    set _pack_level = 0
    if ( $?CONDA_SHLVL ) then
        if ( "$CONDA_SHLVL:q" =~ [1-9] || "$CONDA_SHLVL:q" =~ [1-9][0-9] ) then
            set _pack_level = $CONDA_SHLVL
        endif
    endif
    set _pack_prefix = ''
    if ( $?CONDA_PREFIX ) then
        set _pack_prefix = $CONDA_PREFIX:q
    endif

    # Once more in the same environment: undo, then do.
    eval 'set _pack_has = $?_PACK_PREFIX_'$_pack_level
    if ( $_pack_has && "$_pack_prefix:q" != '' ) then
        eval 'set _pack_was = $_PACK_PREFIX_'$_pack_level':q'
        if ( "$_pack_was:q" == "$_pack_prefix:q" && -d $_pack_prefix:q ) then
            if ( -F "$_pack_prefix:q" == -F $_pack_root:q && -f $_pack_root:q/bin/@DEACTIVATE@.csh ) then
                source $_pack_root:q/bin/@DEACTIVATE@.csh
                @ _pack_level--
                set _pack_prefix = ''
                if ( $?CONDA_PREFIX ) then
                    set _pack_prefix = $CONDA_PREFIX:q
                endif
            endif
        endif
    endif
    set _pack_outer = $_pack_level
    @ _pack_level++

    set _pack_path = $_pack_root:q/bin
    if ( $?PATH ) then
        foreach _pack_each ( $path:q )
            if ( "$_pack_each:q" != $_pack_root:q/bin ) then
                set _pack_path = $_pack_path:q":"$_pack_each:q
            endif
        end
    endif

    # What a prompt would expand is not shown in it.
    set _pack_name = $_pack_root:t:q
    set _pack_shown = $_pack_name:q
    set _pack_shown = $_pack_shown:as/\!/_/:q
    set _pack_shown = $_pack_shown:as/%/_/:q
    set _pack_shown = $_pack_shown:as/$/_/:q
    set _pack_shown = $_pack_shown:as/`/_/:q
    set _pack_shown = $_pack_shown:as/^/_/:q
    set _pack_shown = $_pack_shown:as/\\/_/:q
    if ( "$_pack_shown:q" =~ "*$_pack_newline:q*" ) then
        set _pack_shown = _
    endif
    set _pack_shown = "($_pack_shown:q) "

    # Remember in _PACK_OLD_<level>_NAME what each variable was; absent if it was unset.
    set _pack_names = ( PATH CONDA_PREFIX CONDA_SHLVL CONDA_DEFAULT_ENV CONDA_PROMPT_MODIFIER )
    if ( $_pack_outer > 0 && "$_pack_prefix:q" != '' ) then
        set _pack_names = ( $_pack_names CONDA_PREFIX_$_pack_outer CONDA_STACKED_$_pack_level )
    endif
    # @NAMES@
    foreach _pack_each ( $_pack_names )
        eval 'set _pack_has = $?'$_pack_each
        if ( $_pack_has ) then
            eval 'setenv _PACK_OLD_'$_pack_level'_'$_pack_each' $'$_pack_each':q'
        else
            unsetenv _PACK_OLD_{$_pack_level}_$_pack_each
        endif
    end

    setenv _PACK_NAMES_$_pack_level "$_pack_names"
    setenv _PACK_PREFIX_$_pack_level $_pack_root:q
    setenv _PACK_PATH_$_pack_level $_pack_path:q
    setenv PATH $_pack_path:q
    setenv CONDA_PREFIX $_pack_root:q
    setenv CONDA_SHLVL $_pack_level
    setenv CONDA_DEFAULT_ENV $_pack_name:q
    setenv CONDA_PROMPT_MODIFIER $_pack_shown:q
    if ( $_pack_outer > 0 && "$_pack_prefix:q" != '' ) then
        setenv CONDA_PREFIX_$_pack_outer $_pack_prefix:q
        # conda's own deactivate then takes our PATH entry out and leaves the rest.
        setenv CONDA_STACKED_$_pack_level true
    endif
    # @VARIABLES@
    if ( $?prompt ) then
        eval 'set _PACK_PROMPT_'$_pack_level' = $prompt:q'
        set prompt = $_pack_shown:q$prompt:q
    endif

    # tcsh finds nothing below a quoted path that is not ASCII. Then what would split or match in an
    # unquoted one becomes "?", and what that finds elsewhere is passed over.
    set _pack_lines = ( $_pack_root:q/etc/conda/activate.d/*.csh )
    if ( ! -e "$_pack_lines[1]:q" ) then
        set _pack_shown = $_pack_root:q
        set _pack_shown = $_pack_shown:as/ /?/:q
        set _pack_shown = $_pack_shown:as/	/?/:q
        set _pack_shown = $_pack_shown:as/[/?/:q
        set _pack_shown = $_pack_shown:as/]/?/:q
        set _pack_shown = $_pack_shown:as/{/?/:q
        set _pack_shown = $_pack_shown:as/}/?/:q
        set _pack_shown = $_pack_shown:as/\\/?/:q
        set _pack_lines = ( $_pack_shown/etc/conda/activate.d/*.csh )
    endif
    while ( $#_pack_lines )
        if ( -f "$_pack_lines[1]:q" && -r "$_pack_lines[1]:q" ) then
            if ( -F $_pack_lines[1]:h:q == -F $_pack_root:q/etc/conda/activate.d ) then
                set _pack_run = ( $_pack_run:q $_pack_lines[1]:q )
            endif
        endif
        shift _pack_lines
    end
endif

unset nonomatch
foreach _pack_each ( $_pack_kept )
    set $_pack_each
end
while ( $#_pack_run )
    source $_pack_run[1]:q
    shift _pack_run
end
set _pack_status = $_pack_code
foreach _pack_each ( kept has recorded host newline root code again run mode lines self level prefix was outer path \
        name shown names )
    unset _pack_$_pack_each
end
unset _pack_each
# One line, read before its variable is gone.
eval "unset _pack_status; exit $_pack_status"
