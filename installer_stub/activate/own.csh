# Added by pack.
# Where this environment has moved, bin/@BESIDE@.csh relocates it, and this file is read again. Where the recorded path is
# this tree, nothing here starts a process.

# @FIND@

set _pack_own = 1
if ( $_pack_code == 0 ) then
    if ( -e $_pack_root:q/.installing ) then
        set _pack_own = 0
        if ( $?_PACK_INSTALLING ) then
            if ( "$_PACK_INSTALLING:q" != '' ) then
                set _pack_own = 1
            endif
        endif
    endif
    if ( "$_pack_root:q" != "$_pack_recorded:q" ) then
        set _pack_own = 0
    endif
endif
unset nonomatch
foreach _pack_each ( $_pack_kept )
    set $_pack_each
end
if ( ! $_pack_own ) then
    if ( $_pack_reread ) then
        # After a relocation, which has not changed this file: once is enough.
        set _PACK_ROOT = $_pack_root:q
    else
        set _PACK_OWN = @STEM@.csh
    endif
    source $_pack_root:q/bin/@BESIDE@.csh
    exit $status
endif
set _pack_status = $_pack_code
foreach _pack_each ( kept has recorded host newline root code reread own again run mode lines self )
    unset _pack_$_pack_each
end
unset _pack_each
if ( $_pack_status ) then
    eval "unset _pack_status; exit $_pack_status"
endif
unset _pack_status
# End of what pack added.
