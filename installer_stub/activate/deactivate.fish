# Undo what bin/@STEM@.fish did in the fish that sources this file:  source bin/@DEACTIVATE@.fish
# It reads nothing but the variables that activation left: the environment itself may be gone.

# Find what is active: $_pack_off_level, the level that we activated last; 0 for none.
function _pack_off_find --no-scope-shadowing
    string match -qr '^[1-9][0-9]?$' -- "$CONDA_SHLVL"; or return 0
    set _pack_off_name _PACK_PREFIX_$CONDA_SHLVL
    if test -n "$$_pack_off_name"; and test "$$_pack_off_name" = "$CONDA_PREFIX"
        set _pack_off_level $CONDA_SHLVL
        set _pack_off_root $CONDA_PREFIX
        return 0
    end
    set _pack_off_outer (math $CONDA_SHLVL - 1)
    while test $_pack_off_outer -gt 0
        set _pack_off_name _PACK_PREFIX_$_pack_off_outer
        set _pack_off_was CONDA_PREFIX_$_pack_off_outer
        if test -n "$$_pack_off_name"; and test "$$_pack_off_name" = "$$_pack_off_was"
            echo "@DEACTIVATE@.fish: $CONDA_PREFIX was activated on top of $$_pack_off_name, by another program." \
                "Deactivate that first." >&2
            return 1
        end
        set _pack_off_outer (math $_pack_off_outer - 1)
    end
    return 0
end

# Give every variable that activation set its former value, or none.
function _pack_off_restore --no-scope-shadowing
    # What was put before or behind our PATH since, stays.
    set _pack_off_name _PACK_PATH_$_pack_off_level
    set _pack_off_was _PACK_OLD_{$_pack_off_level}_PATH
    set _pack_off_now ":$PATH:"
    set _pack_off_path (string replace -- ":$$_pack_off_name:" ":$$_pack_off_was:" $_pack_off_now | string collect)
    if test -z "$$_pack_off_was"; or test "$_pack_off_path" = "$_pack_off_now"
        set _pack_off_path (string replace -- ":$_pack_off_root/bin:" : $_pack_off_now | string collect)
    end
    set _pack_off_path (string split : -- $_pack_off_path)

    set _pack_off_name _PACK_NAMES_$_pack_off_level
    for _pack_off_each in (string split ' ' -- $$_pack_off_name)
        set _pack_off_was _PACK_OLD_{$_pack_off_level}_$_pack_off_each
        # The list comes from the environment: what is no name of a variable is passed over.
        if not string match -qr '^[A-Za-z_][A-Za-z0-9_]*$' -- $_pack_off_each
            continue
        else if test $_pack_off_each = PATH
            set -gx PATH $_pack_off_path[2..-2]
        else if set -qgx $_pack_off_was
            set -gx $_pack_off_each $$_pack_off_was
        else if set -qg $_pack_off_was # and it was not exported
            set -gu $_pack_off_each $$_pack_off_was
        else
            set -eg $_pack_off_each
        end
        set -eg $_pack_off_was
    end
    set -eg _PACK_NAMES_$_pack_off_level
    set -eg _PACK_PREFIX_$_pack_off_level
    set -eg _PACK_PATH_$_pack_off_level

    # The wrapped prompt serves every level; it goes with the last one.
    if functions -q _PACK_fish_prompt; and not set -qg _PACK_PREFIX_1
        functions -e fish_prompt
        functions -c _PACK_fish_prompt fish_prompt
        functions -e _PACK_fish_prompt
    end
end

set -l _pack_off_code 0
set -l _pack_off_level 0
set -l _pack_off_outer
set -l _pack_off_root
set -l _pack_off_name
set -l _pack_off_was
set -l _pack_off_now
set -l _pack_off_path
set -l _pack_off_each
_pack_off_find
set _pack_off_code $status
if test $_pack_off_level -gt 0
    set -l _pack_off_run $_pack_off_root/etc/conda/deactivate.d/*.fish
    for _pack_off_script in $_pack_off_run[-1..1]
        test -f $_pack_off_script; and source $_pack_off_script
    end
    _pack_off_restore
end
functions -e _pack_off_find _pack_off_restore
# "return" outside a function is younger than some fish that still run.
function _pack_off_end
    functions -e _pack_off_end
    return $argv[1]
end
_pack_off_end $_pack_off_code
