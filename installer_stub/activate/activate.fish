# Activate this environment in the fish that sources this file:  source bin/@STEM@.fish
# See docs/activation.md for what it sets. Where the recorded path is this tree, nothing here starts a process.

# @FIND@

# Refuse a tree that an installer has not completed; its own hook, which is the last part of that, may pass.
function _pack_complete --no-scope-shadowing
    if test -e "$_pack_root/.installing"; and test -z "$_PACK_INSTALLING"
        echo "@STEM@.fish: $_pack_root: an installation here was not completed. Run the installer again, or unpack the delta with its base." >&2
        return 12
    end
end

# Relocate the tree if that is called for. $_pack_again is set when this file must be read again.
function _pack_relocate --no-scope-shadowing
    if test "$_pack_root" = "$_pack_recorded"; or test "$PACK_RELOCATE" = never
        return 0
    end
    $_pack_root/bin/conda-unpack --activation </dev/null
    set _pack_code $status
    switch $_pack_code
        case 0
            set _pack_again yes
        case 9 10 12 # it has said what is stale; what can be set is set all the same
            if test "$PACK_RELOCATE" != require
                set _pack_code 0
            end
    end
    return $_pack_code
end

# Set and export $argv[1], and remember in _PACK_OLD_<level>_NAME what it was; absent if it was unset.
# Only globals count: a universal variable of that name shows again when ours is erased.
function _pack_set --no-scope-shadowing
    if set -qgx $argv[1]
        set -gx _PACK_OLD_{$_pack_level}_$argv[1] $$argv[1]
    else if set -qg $argv[1]
        set -gu _PACK_OLD_{$_pack_level}_$argv[1] $$argv[1]
    else
        set -eg _PACK_OLD_{$_pack_level}_$argv[1]
    end
    set -gx $argv
    set -a _pack_names $argv[1]
end

# Set everything but what activate.d sets.
function _pack_begin --no-scope-shadowing
    set _pack_outer 0
    if string match -qr '^[1-9][0-9]?$' -- "$CONDA_SHLVL"
        set _pack_outer $CONDA_SHLVL
    end
    set _pack_level (math $_pack_outer + 1)

    set _pack_path $_pack_root/bin
    for _pack_entry in $PATH
        if test "$_pack_entry" != "$_pack_root/bin"
            set -a _pack_path $_pack_entry
        end
    end
    _pack_set PATH $_pack_path
    set -gx _PACK_PATH_$_pack_level "$PATH"

    if test $_pack_outer -gt 0; and test -n "$CONDA_PREFIX"
        _pack_set CONDA_PREFIX_$_pack_outer $CONDA_PREFIX
        # conda's own deactivate then takes our PATH entry out and leaves the rest.
        _pack_set CONDA_STACKED_$_pack_level true
    end
    set _pack_name (string split -r -m 1 / -- $_pack_root)[2]
    _pack_set CONDA_PREFIX $_pack_root
    _pack_set CONDA_SHLVL $_pack_level
    _pack_set CONDA_DEFAULT_ENV $_pack_name
    # The same text as in the other shells, whose prompts would expand or run these.
    _pack_set CONDA_PROMPT_MODIFIER '('(string replace -ra '[$`\\\\%!^[:cntrl:]]' _ -- $_pack_name)') '
    # conda's own prompt shows the modifier already.
    if status is-interactive; and functions -q fish_prompt
        and not functions -q __conda_add_prompt; and not functions -q _PACK_fish_prompt
        functions -c fish_prompt _PACK_fish_prompt
        function fish_prompt
            # First, while $status is still that of the user's command.
            set -l prompt (_PACK_fish_prompt)
            echo -n -s "$CONDA_PROMPT_MODIFIER"
            string join -- \n $prompt
        end
    end

    # @VARIABLES@

    set -gx _PACK_NAMES_$_pack_level "$_pack_names"
    set -gx _PACK_PREFIX_$_pack_level $_pack_root
    set _pack_run $_pack_root/etc/conda/activate.d/*.fish
    set _pack_code 0
end

set -l _pack_recorded '@PREFIX@'
set -l _pack_host '@HOST@'
set -l _pack_root $_PACK_ROOT
# What is read behind a relocation: this file again, or the virtual environment's own that asked for it.
set -l _pack_own @STEM@.fish
if set -q _PACK_OWN
    set _pack_own $_PACK_OWN
    set -eg _PACK_OWN
end
set -l _pack_self
set -l _pack_again
set -l _pack_code 0
set -l _pack_outer
set -l _pack_level
set -l _pack_path
set -l _pack_entry
set -l _pack_name
set -l _pack_names
set -l _pack_run
if set -q _PACK_ROOT
    # This file has been read again, after a relocation: the tree has just been found.
    set -eg _PACK_ROOT
else
    _pack_find (status filename | string collect)
    and _pack_complete
    and _pack_relocate
    set _pack_code $status
end
if test $_pack_code -ne 0
    true
else if test -n "$_pack_again"
    # Relocation has replaced this file: the recorded path and the variables above are those of the past.
    set -g _PACK_ROOT $_pack_root
    source $_pack_root/bin/$_pack_own
    set _pack_code $status
else if string match -q '*:*' -- $_pack_root
    echo "@STEM@.fish: $_pack_root: a path with ':' cannot stand in PATH. Move the environment." >&2
    set _pack_code 7
else
    set -l _pack_active _PACK_PREFIX_$CONDA_SHLVL
    if string match -qr '^_PACK_PREFIX_[0-9]+$' -- $_pack_active; and test -n "$$_pack_active"
        and test "$$_pack_active" = "$CONDA_PREFIX"; and test "$CONDA_PREFIX" -ef "$_pack_root"
        and test -f $_pack_root/bin/@DEACTIVATE@.fish
        source $_pack_root/bin/@DEACTIVATE@.fish
    end
    _pack_begin
    for _pack_script in $_pack_run
        test -f $_pack_script; and source $_pack_script
    end
end
functions -e _pack_find _pack_complete _pack_relocate _pack_set _pack_begin
# "return" outside a function is younger than some fish that still run.
function _pack_end
    functions -e _pack_end
    return $argv[1]
end
_pack_end $_pack_code
