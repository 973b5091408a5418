# Added by pack.
# Where this environment has moved, bin/@BESIDE@ relocates it, and this file is read again. Where the recorded path is
# this tree, nothing here starts a process.

# Some variables are set by the part that finds.
# shellcheck disable=SC2154
# @FIND@

_pack_code=0
_pack_root=${_PACK_ROOT-}
if [ -z "$_pack_root" ]; then
    _pack_find || _pack_code=$?
fi
if [ "$_pack_code" -eq 0 ] && {
    [ "$_pack_root" != "$_pack_recorded" ] || { [ -e "$_pack_root/.installing" ] && [ -z "${_PACK_INSTALLING-}" ]; }
}; then
    if [ -z "${_PACK_ROOT-}" ]; then
        # Where that is set, this file has been read again, after a relocation, which has not changed it: once is enough.
        # shellcheck disable=SC2034  # read there
        _PACK_OWN=@STEM@
    fi
    # shellcheck disable=SC1090,SC1091
    \. "$_pack_root/bin/@BESIDE@" || _pack_code=$?
    _pack_done=yes
fi
\unset -v _PACK_ROOT || :
\unset -f _pack_find _pack_executed _pack_resolve 2>/dev/null || :
\unset -v _pack_recorded _pack_host _pack_newline _pack_root _pack_self _pack_program _pack_fd _pack_link || :
if [ "${_pack_code:-0}" -ne 0 ] || [ -n "${_pack_done-}" ]; then
    # The code must outlive its variable.
    \eval "\\unset -v _pack_code _pack_done; return ${_pack_code:-0} 2>/dev/null || exit ${_pack_code:-0}"
fi
\unset -v _pack_code
# End of what pack added.
