# Added by pack.
# Where this environment has moved, bin/@BESIDE@.fish relocates it, and this file is read again. Where the recorded path is
# this tree, nothing here starts a process.

# @FIND@

set -l _pack_recorded '@PREFIX@'
set -l _pack_host '@HOST@'
set -l _pack_root $_PACK_ROOT
set -l _pack_self
set -l _pack_code 0
if not set -q _PACK_ROOT
    _pack_find (status filename | string collect)
    set _pack_code $status
    if test $_pack_code -ne 0
        functions -e _pack_find
        exit $_pack_code # of this file, not of the shell
    end
end
if test "$_pack_root" != "$_pack_recorded"; or test -e "$_pack_root/.installing" -a -z "$_PACK_INSTALLING"
    # Where it is set, this file has been read again, after a relocation, which has not changed it: once is enough.
    set -q _PACK_ROOT; or set -g _PACK_OWN @STEM@.fish
    source $_pack_root/bin/@BESIDE@.fish
    exit $status
end
set -eg _PACK_ROOT
functions -e _pack_find
# End of what pack added.
