# Find the root of this tree: $_pack_root. The recorded path where it is this tree, else the physical one.
function _pack_find --no-scope-shadowing
    # A path that ends in our name keeps the newlines inside it; "string split" keeps those at the end.
    set _pack_self (builtin realpath -- $argv[1] | string collect)
    set _pack_root (string split -r -m 2 / -- $_pack_self)[1]
    if not test -f "$_pack_root/bin/conda-unpack"
        echo "@STEM@.fish: no environment stands around $_pack_self." \
            "It was last relocated to "(string escape -- $_pack_recorded)" on $_pack_host. Source bin/@STEM@.fish by its path." >&2
        return 3
    end
    # Two names of one tree that no symlink joins (a bind mount) are told by -ef; fish 3 has it.
    if test -n "$_pack_recorded"; and test "$_pack_root" -ef "$_pack_recorded"
        set _pack_root $_pack_recorded
        return 0
    end
end
