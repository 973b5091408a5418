# Activate this environment in the tcsh that sources this file:  source bin/@STEM@.csh
# See docs/activation.md for what it sets. Where the recorded path is this tree, nothing here starts a process.
#
# What looks odd is csh: it knows no functions, expands a one-line "if" even where that is false, reads
# nothing behind an eval on the same line, keeps a value in one piece with ":q", and drops an empty one
# from an expression or a list unless it is in double quotes.

# @FIND@

# What is read behind a relocation: this file again, or the virtual environment's own that asked for it.
set _pack_own = @STEM@.csh
if ( $?_PACK_OWN ) then
    set _pack_own = $_PACK_OWN:q
    unset _PACK_OWN
endif
set _pack_again = 0
set _pack_run = ()
set _pack_mode = ''
if ( $?PACK_RELOCATE ) then
    set _pack_mode = $PACK_RELOCATE:q
endif
if ( $_pack_reread ) then
    set _pack_mode = never
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
        /bin/sh -c 'printf "%s\n" "$@" >&2' sh "@STEM@.csh: ${_pack_root:q}: an installation here was not completed. Run the installer again, or unpack the delta with its base."
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
    source $_pack_root:q/bin/$_pack_own:q
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
foreach _pack_each ( kept has recorded host newline root code reread own again run mode lines self level prefix was outer path \
        name shown names )
    unset _pack_$_pack_each
end
unset _pack_each
# One line, read before its variable is gone.
eval "unset _pack_status; exit $_pack_status"
