#!/bin/sh
# The script at the head of a self-extracting installer. Behind it lie three texts (licence, welcome, conclusion),
# the stub that it runs, the payload, and the trailer: docs/installer.md says how. It runs in dash, bash, zsh, ksh93,
# mksh, yash and busybox sh, and takes nothing for granted but coreutils of whatever make.
#
# All of it is one group, which a shell reads to its end before it runs anything of it: a script that was cut is a
# syntax error; in that group it is one "if", which the second brace of a function does not end whose first is damaged.
# The functions of the story are joined by "&&", so that one which a damaged byte has renamed ends it.
# pack fills in the facts, and leaves out lines that are only a comment.
#
# Facts are assigned where @FACTS@ stands; mksh computes with 32 bits, expr does not; traps and await name functions.
# shellcheck disable=SC2154,SC2003,SC2329
{ : pack-installer 1
if :; then

# Parsed as zsh's own language, run as POSIX's: words, patterns, traps. Bytes are no "\M-x" in what export prints.
# shellcheck disable=SC3040
if [ -n "${ZSH_VERSION-}" ] && command -v emulate >/dev/null 2>&1; then emulate -R sh && set -o printeightbit; fi
set -u +a +e +f +C
# What the caller exported, as commands: whatever is assigned from here on, the program gets these back.
caller=$(export -p)
# In bash these are read-only: exported, they could not be given back.
# shellcheck disable=SC3044
if [ -n "${BASH_VERSION-}" ] && ! (eval "$caller") 2>/dev/null; then
    typeset +x SHELLOPTS BASHOPTS BASH_VERSINFO UID EUID PPID && caller=$(export -p)
fi
unset CDPATH LD_LIBRARY_PATH LD_PRELOAD TAR_OPTIONS GZIP
PATH=${PATH:+$PATH:}/usr/bin:/bin:/usr/local/bin:/run/current-system/sw/bin
newline='
'
IFS=" $(printf '\t')$newline"
# Programs of these names are meant, not functions that a bash has exported.
unset -f printf cd pwd read kill wait command stat tail head cat wc cut tr expr od mkdir rmdir rm mktemp mkfifo \
    chmod uname df sha256sum shasum openssl getconf ldd tar gzip zstd 2>/dev/null

@FACTS@

name='' self='' log='' quiet='' json='' title="$installer_name${installer_version:+ $installer_version}"
action=install chosen='' wanted='' interactive='' batch='' force='' update='' scripts=1 allow='' licensed=''
jobs='' mask='' group='' registered='' added='' skip_glibc='' skip_space='' signers='' only=''
stage='' made='' hasher='' running='' started='' python='' caught=0 signal=0 failed=1

# --- What is said ---

# Write a line into the log.
note() {
    if [ -n "$log" ]; then printf '%s\n' "$1" >>"$log"; fi
}

# Print a line, unless told to be quiet.
say() {
    if [ -z "$quiet$json" ]; then printf '%s\n' "$1"; fi
    note "$1"
}

# Print a line that is no error and yet must be seen.
warn() {
    printf '%s: %s\n' "$name" "$1" >&2
    note "$name: $1"
}

# End with the code $1 for the reason $2; $3, if not empty, is what to do.
fail() {
    set -- "$1" "$(legible "$2")" "$(legible "$3")"
    printf '%s: error: %s\n' "$name" "$2" >&2
    note "$name: error: $2"
    if [ -n "$3" ]; then
        printf 'TIP: %s\n' "$3" >&2
        note "TIP: $3"
    fi
    if [ -n "$json" ]; then printf '{"code": %s, "error": %s}\n' "$1" "$(quoted "$2")"; fi
    exit "$1"
}

# End because the command line makes no sense.
misuse() {
    fail 2 "$1" "${2-sh $name --help lists the options.}"
}

# End because the file is not as it was made.
damaged() {
    fail 11 "$self: the installer is damaged: $1" \
        'Copy or download it again, and compare its SHA-256. Nothing was installed.'
}

# Print text as it can be shown: a control character is a "?".
legible() {
    printf '%s' "$1" | LC_ALL=C tr '\001-\037\177' '?'
}

# Print text as a JSON string.
quoted() {
    printf '%s' "$1" | json_string
}

# Turn standard input into a JSON string. Bytes that are not UTF-8 become U+FFFD.
json_string() {
    printf '"'
    od -An -v -to1 | {
        lead='' held='' missing=0
        while read -r codes; do
            out=
            for code in $codes; do
                case $missing$code in
                0*) ;;
                ?2*)
                    # Too long a form of a character, a surrogate, or beyond the last.
                    case $lead$code in
                    340[2][0-3]? | 355[2][4-7]? | 360[2][01]? | 364[2][1-7]?) missing=0 held='' out=$out'\\ufffd' ;;
                    *) held=$held'\0'$code missing=$((missing - 1)) ;;
                    esac
                    lead=
                    if [ "$missing" = 0 ]; then out=$out$held held=; fi
                    continue
                    ;;
                *) missing=0 held='' out=$out'\\ufffd' ;;
                esac
                case $code in
                011) out=$out'\\t' ;;
                012) out=$out'\\n' ;;
                015) out=$out'\\r' ;;
                042 | 134) out=$out'\\\0'$code ;;
                0[0-3]?) out=$out'\\u00'$(printf '%x%x' "$((${code%?} / 2))" "$((${code%?} % 2 * 8 + ${code#??}))") ;;
                [01]*) out=$out'\0'$code ;;
                30[2-7] | 3[123]?) lead=$code held='\0'$code missing=1 ;;
                3[45]?) lead=$code held='\0'$code missing=2 ;;
                36[0-4]) lead=$code held='\0'$code missing=3 ;;
                *) out=$out'\\ufffd' ;;
                esac
            done
            printf '%b' "$out"
        done
        if [ "$missing" != 0 ]; then printf '\\ufffd'; fi
    }
    printf '"'
}

# Print pairs of a key and a value: lines, or a JSON object, with "true", "false" and numbers bare. The value of
# "licence" is its text.
pairs() {
    before='{'
    while [ $# -gt 1 ]; do
        if [ -z "$json" ]; then
            printf '%s: %s\n' "$1" "${2:--}"
        else
            printf '%s"%s": ' "$before" "$1"
            before=', '
            case $1=$2 in
            licence=*) text licence | json_string ;;
            *=true | *=false) printf '%s' "$2" ;;
            *= | *=0?* | *=*[!0123456789]*) quoted "$2" ;;
            *) printf '%s' "$2" ;;
            esac
        fi
        shift 2
    done
    if [ -n "$json" ]; then printf '}\n'; fi
}

usage() {
    printf '%s\n' "usage: sh $name [options]

Installs $title for $platform. Needs no network, no root, and nothing installed before.

where and how
  -p, --prefix DIR      where to install (default: $default_prefix)
  -b, --batch           ask nothing; accepts the licence, if there is one
  -i, --interactive     ask, also where a target is given or there is no terminal
  -u, --update          replace the installation at the target by this one
  -f, --force           the same, if there is one; otherwise install
  -s, --skip-scripts    run none of its scripts: ${hooks:-there are none}
      --accept-license  accept the licence
      --allow-unrelocated  permit a target so long that some strings keep the old path
      --added carry|drop   what an update does with files that somebody added (default: carry)
      --umask MODE, --group G, --register, --jobs N
      --skip-glibc-check, --skip-space-check
      --dry-run         check everything, say what would be done, write nothing
what else it does
      --info            what is inside and what it needs
      --list            the files inside
      --check           whether this file is whole; with a .sha256 or .sig beside it, these too
      --allowed-signers FILE  with --check: who may have signed it, as ssh-keygen wants it
      --extract DIR     put the files there as they were packed, not installed
      --uninstall       remove what was installed at the target, and nothing else
  -h, --help, --version
what it says
  -q, --quiet           errors only
      --json            results and errors as JSON
      --log FILE        append to FILE what is said"
}

# --- The command line ---

# Take one of the things to do, which exclude each other.
choose() {
    if [ -n "$chosen" ] && [ "$action" != "$1" ]; then misuse "$option and $chosen contradict each other."; fi
    action=$1 chosen=$option
}

# Understand the command line.
understand() {
    for option in "$@"; do
        if [ "$option" = --json ]; then json=1; fi
    done
    while [ $# -gt 0 ]; do
        option=$1 value='' given=''
        shift || return
        case $option in
        --*=*) value=${option#*=} option=${option%%=*} given=1 ;;
        --* | -?) ;;
        -?*)
            value=${option#-?}
            option=${option%"$value"}
            case $option$value in
            -p*) given=1 ;;
            -[bifushq]-*) misuse "$option$value: there is no such option." ;;
            -[bifushq]*) set -- "-$value" "$@" ;;
            esac
            ;;
        esac
        case $option in
        -p | --prefix | --extract | --log | --jobs | --umask | --group | --added | --allowed-signers)
            if [ -z "$given" ]; then
                if [ $# = 0 ]; then misuse "$option: its value is missing."; fi
                value=$1
                shift
            fi
            if [ -z "$value" ]; then misuse "$option: its value is empty."; fi
            ;;
        *) if [ -n "$given" ]; then misuse "$option takes no value."; fi ;;
        esac
        take "$@"
    done
    agree
}

# Take one option; $1 is what follows it.
take() {
    case $option in
    -h | --help) choose help ;;
    --version) choose version ;;
    --info) choose info ;;
    --list) choose list ;;
    --check) choose check ;;
    --dry-run) choose dry-run ;;
    --uninstall) choose uninstall ;;
    --extract) choose extract && directory=$value ;;
    -p | --prefix) wanted=$value ;;
    -b | --batch) batch=1 licensed=1 ;;
    -i | --interactive) interactive=1 ;;
    -f | --force) force=1 only=$option ;;
    -u | --update) update=1 only=$option ;;
    -s | --skip-scripts) scripts='' ;;
    --accept-license) licensed=1 ;;
    --allow-unrelocated) allow=1 only=$option ;;
    --register) registered=1 only=$option ;;
    --added) added=$value only=$option ;;
    --jobs) jobs=$value ;;
    --umask) mask=$value ;;
    --group) group=$value ;;
    --skip-glibc-check) skip_glibc=1 ;;
    --skip-space-check) skip_space=1 ;;
    --allowed-signers) signers=$value ;;
    --log) log=$value ;;
    -q | --quiet) quiet=1 ;;
    --json) ;;
    -k) misuse '-k: there is no directory of packages to keep: one file becomes one environment.' ;;
    -m) misuse '-m: no menu items are made, so there are none to leave out.' ;;
    -t) misuse '-t: the installation is verified as it is made; it brings no tests of packages.' ;;
    -c) misuse '-c: no start-up file of a shell is changed; source bin/activate in the environment.' ;;
    --) [ $# = 0 ] || stray "$1" ;;
    -?*) misuse "$option: there is no such option." ;;
    *) stray "$option" ;;
    esac
}

# End because of a word that is no option.
stray() {
    misuse "$1: is no option, and nothing is expected here." 'A target is given with -p DIR.'
}

# Refuse options that contradict each other, and values that no option takes.
agree() {
    case $log in
    -*) log=./$log ;;
    esac
    if [ -n "$log" ] && ! (: >>"$log") 2>/dev/null; then
        refused=$log log=''
        fail 5 "$refused: the log cannot be written." 'Name another file with --log.'
    fi
    case $action in
    install | dry-run) ;;
    *) if [ -n "$only" ]; then misuse "$only and $chosen do not go together."; fi ;;
    esac
    if [ -n "$interactive$batch" ] && [ "$interactive" = "$batch" ]; then misuse '-b and -i contradict each other.'; fi
    if [ -n "$interactive" ] && [ -n "$json" ]; then misuse '-i and --json contradict each other.'; fi
    if [ "$action" = extract ]; then
        if [ -n "$wanted" ]; then misuse '--extract DIR says where to, so -p has no meaning.'; fi
        wanted=$directory
    fi
    if [ -n "$signers" ] && [ "$action" != check ]; then misuse '--allowed-signers is for --check.'; fi
    case $jobs in
    '') ;;
    0* | *[!0123456789]* | ?????*) misuse "--jobs $jobs: is no number of jobs." ;;
    esac
    case $mask in
    '' | [01234567][01234567][01234567] | 0[01234567][01234567][01234567]) ;;
    *) misuse "--umask $mask: is no umask, such as 022." ;;
    esac
    case $group in
    -*) misuse "--group $group: is no group." ;;
    esac
    case $added in
    '' | carry | drop) ;;
    *) misuse "--added $added: can be carry or drop." ;;
    esac
    if [ -z "$interactive$batch$wanted$json" ] && [ -t 0 ] && [ -t 1 ]; then interactive=1; fi
}

# --- The file itself ---

# Find the physical path of the directory $1, which does not begin with a dash: $place.
where() {
    place=$(cd -P "$1" 2>/dev/null && pwd -P 2>/dev/null && echo x)
    place=${place%"${newline}x"}
    while case $place in //*) ;; *) false ;; esac; do place=${place#/}; done
    # dash goes on with an empty path where the current directory is gone.
    [ "${place#/}" != "$place" ]
}

# Find the file of this script: $self, absolute.
find_self() {
    self=$0
    # In zsh alone this is the file, too, where it is sourced.
    case ${ZSH_VERSION+zsh}${ZSH_EVAL_CONTEXT-} in
    zsh*file*) misuse 'the installer was sourced, and what it does is not for this shell.' 'Run it: sh FILE' ;;
    esac
    case $self in
    */*) ;;
    *) if [ -f "./$self" ]; then self=./$self; else self=$(command -v -- "$self"); fi ;;
    esac
    { begin=$([ -f "$self" ] && head -c 31 "$self" && echo x); } 2>/dev/null
    if [ "$begin" != "#!/bin/sh$newline{ : pack-installer 1${newline}x" ]; then
        misuse 'the installer cannot be found: was it read from a pipe?' 'Save it to a file, and run that: sh FILE'
    fi
    where "${self%/*}/" || misuse "$self: its directory cannot be entered."
    self=${place%/}/${self##*/}
}

# Print the bytes of the file from offset $1 on, $2 of them.
section() {
    tail -c "+$(expr "$1" + 1)" "$self" 2>/dev/null | head -c "$2"
}

# Print the SHA-256 of standard input.
digest() {
    case $hasher in
    shasum) shasum -a 256 ;;
    openssl) openssl dgst -sha256 -r ;;
    *) "$hasher" ;;
    esac | cut -d ' ' -f 1
}

# Say whether $1 is a number as the trailer has it.
is_number() {
    case $1 in
    '' | 0?* | *[!0123456789]*) return 1 ;;
    esac
}

# Say whether $1 can be a SHA-256.
is_sum() {
    case $1 in
    *[!0123456789abcdef]*) return 1 ;;
    esac
    [ ${#1} = 64 ]
}

# Read the trailer, write it again and compare: what the file is made of, and that it ends where it should.
read_trailer() {
    # wc of busybox reads a file to its end to count it.
    size=$(stat -L -c %s "$self" 2>/dev/null || wc -c <"$self" | tr -d ' ')
    { trailer=$(tail -c "+$(expr "$size" - 283)" "$self" && echo x); } 2>/dev/null
    set -f
    # shellcheck disable=SC2086  # its words
    set -- $trailer - - - - - - - - - - - -
    set +f
    header_size=$4 header_sum=$5 stub_size=$7 stub_sum=$8 payload_size=${10} payload_sum=${11}
    again=$(printf 'pack-installer 1\n%-7s %15s %s\n%-7s %15s %s\n%-7s %15s %s\nx' \
        header "$header_size" "$header_sum" stub "$stub_size" "$stub_sum" payload "$payload_size" "$payload_sum")
    {
        is_number "$header_size" && is_number "$stub_size" && is_number "$payload_size" &&
            is_sum "$header_sum" && is_sum "$stub_sum" && is_sum "$payload_sum" && [ "$again" = "$trailer" ] &&
            payload_at=$(expr "$header_size" + "$stub_size") &&
            [ "$(expr "$payload_at" + "$payload_size" + 284)" = "$size" ]
    } || damaged 'it does not end as it should: it was cut, something was appended, or a byte of its end is another.'
    texts_at=$(expr "$header_size" - "$licence_size" - "$welcome_size" - "$conclusion_size")
}

# Compare the SHA-256 of this script and its texts with the trailer's.
check_header() {
    for each in openssl shasum sha256sum; do
        if command -v "$each" >/dev/null 2>&1; then hasher=$each; fi
    done
    if [ -z "$hasher" ]; then
        fail 10 "nothing here can compute a SHA-256, so whether $self is whole cannot be checked." \
            'Install one of sha256sum (coreutils), shasum (Perl) and openssl.'
    fi
    # Nothing goes on without $whole: a byte that hinders this check is not content with itself either.
    [ "$(section 0 "$header_size" | digest)" = "$header_sum" ] && whole=$header_sum && return
    damaged 'its script is not what it was.'
}

# Print one of the texts.
text() {
    case $1 in
    licence) section "$texts_at" "$licence_size" ;;
    welcome) section "$(expr "$texts_at" + "$licence_size")" "$welcome_size" ;;
    conclusion) section "$(expr "$texts_at" + "$licence_size" + "$welcome_size")" "$conclusion_size" ;;
    esac
}

# --- The machine ---

# Refuse a machine that the environment is not for.
check_machine() {
    here_system=$(uname -s) here_machine=$(uname -m)
    if [ "${system:-$here_system}" != "$here_system" ] || [ "${machine:-$here_machine}" != "$here_machine" ]; then
        fail 13 "$title is for $platform, $system${machine:+ on $machine}; this machine is $here_system on $here_machine." \
            'Take the installer that was packed for this kind of machine.'
    fi
    if [ -z "$glibc$skip_glibc" ] || [ -n "$skip_glibc" ]; then return 0; fi
    find_glibc
    case $here_glibc in
    musl)
        fail 13 "$title needs glibc $glibc (for $glibc_file), and the C library of this machine is musl." \
            'Install it on a machine with glibc, or, if one is there, pass --skip-glibc-check.'
        ;;
    [0-9]*.[0-9]*) ;;
    *)
        warn "the version of glibc here cannot be found out, so it was not compared; $glibc is needed."
        return 0
        ;;
    esac
    if is_older "$here_glibc" "$glibc"; then
        fail 13 "$title needs glibc $glibc or newer, which $glibc_file sets, and this machine has $here_glibc." \
            'Install it on a newer system, or pack it on an older one; --skip-glibc-check installs it all the same.'
    fi
}

# Find out the version of glibc: $here_glibc; "musl" where that is the C library, empty where nothing tells.
find_glibc() {
    here_glibc=$(getconf GNU_LIBC_VERSION 2>/dev/null)
    case $here_glibc in
    'glibc '[0-9]*)
        here_glibc=${here_glibc#glibc }
        return 0
        ;;
    esac
    said=$(ldd --version 2>&1 | head -n 1)
    here_glibc=${said##* }
    case $said in
    musl*) here_glibc=musl ;;
    ldd*[0-9].[0-9]*) ;;
    *)
        here_glibc=
        for file in /lib64/libc.so.6 /lib/*/libc.so.6 /usr/lib64/libc.so.6 /lib/libc.so.6; do
            if [ -z "$here_glibc" ] && [ -x "$file" ]; then
                said=$("$file" 2>/dev/null | head -n 1)
                said=${said##* version }
                case $said in
                [0-9]*) here_glibc=${said%%[!0-9.]*} && here_glibc=${here_glibc%.} ;;
                esac
            fi
        done
        ;;
    esac
}

# Say whether the version $1 is older than $2; two numbers count.
is_older() {
    minor=${1#*.} least=${2#*.}
    minor=${minor%%[!0-9]*} least=${least%%[!0-9]*}
    [ "${1%%.*}" -lt "${2%%.*}" ] || { [ "${1%%.*}" = "${2%%.*}" ] && [ "$minor" -lt "$least" ]; }
}

# --- The target ---

# Decide where to: $target, and all that is to be known of it. Ends with a code where the target is refused.
check_target() {
    require_plain "$1" && resolve "$1" && require_fit && find_mount && look && require_free && require_space &&
        require_exec && require_writable
}

# End with the code $1 because the target is refused, for the reason $2; $3 is what to do.
refuse() {
    fail "$1" "$target cannot be the target: $2" "$3"
}

# Print how many bytes $1 has.
bytes() {
    printf '%s' "$1" | wc -c | tr -d ' '
}

# Refuse control characters: they end lines, here and in the files that would hold the path.
require_plain() {
    target=$1
    if [ "$(printf '%sx' "$1" | LC_ALL=C tr -d '\001-\037\177')" != "${1}x" ]; then
        refuse 7 'it holds a newline or another control character, shown as a question mark.' \
            'Choose a directory without control characters and newlines in its path.'
    fi
}

# Find the physical path: $target, its nearest $ancestor that exists, the $parent of it; $exists if it is there itself.
resolve() {
    way=$1
    if [ "${way#/}" = "$way" ]; then
        where . || refuse 5 'it is relative, and the current directory does not exist any more.' 'Give an absolute path.'
        way=${place%/}/$1
    fi
    while :; do
        rest='' up=0 again=''
        while [ ! -d "$way" ]; do
            if [ -h "$way" ] && [ ! -e "$way" ]; then
                fail 5 "$way is a symbolic link that leads nowhere." 'Remove it, or choose another directory.'
            elif [ -e "$way" ]; then
                fail 5 "$way exists, and is no directory." 'Choose another directory.'
            fi
            last=${way##*/} way=${way%/*}
            way=${way:-/}
            case $last in
            '' | .) ;;
            ..) up=$((up + 1)) again=1 ;;
            *) if [ "$up" != 0 ]; then up=$((up - 1)); else rest=/$last$rest; fi ;;
            esac
        done
        while [ "$up" != 0 ]; do way=$way/.. up=$((up - 1)); done
        where "$way" || fail 5 "$way: the directory cannot be entered." 'Choose another directory, or ask its owner.'
        ancestor=$place
        way=${ancestor%/}$rest
        way=${way:-/}
        # What ".." led to, out of a directory that does not exist, may exist.
        if [ -z "$again" ]; then break; fi
    done
    target=$way parent=${way%/*} base=${way##*/} exists=''
    parent=${parent:-/}
    if [ -z "$rest" ]; then exists=1; fi
    if [ "$target" = / ]; then fail 7 'the root directory cannot be the target.' 'Choose a directory below it.'; fi
    require_plain "$target"
}

# Refuse a path that the environment cannot have.
require_fit() {
    length=$(bytes "$target")
    # Twice 128: more than 255 repetitions are not portable.
    if LC_ALL=C expr "$target" : '.*/[^/]\{128\}[^/]\{128\}' >/dev/null; then
        fail 7 "$target cannot be the target: a name in it has more than 255 bytes, which no file system takes." \
            'Choose a directory with shorter names.'
    fi
    if [ "$(expr "$length" + 1 + "$longest_path")" -gt 4095 ]; then
        refuse 7 "it has $length bytes, and with them a path in it would have more than the system's 4095." \
            "Choose a directory of at most $(expr 4094 - "$longest_path") bytes."
    fi
    case $action in
    install | dry-run) ;;
    *) return 0 ;;
    esac
    case $target in
    *:*) refuse 7 'a colon separates directories in PATH.' 'Choose a directory without a colon in its path.' ;;
    *[\"\'\$\\\`]*)
        if [ -n "$has_text" ]; then
            refuse 7 'quotes, dollar signs, backslashes and backticks in it would be run, or end a string, in scripts.' \
                'Choose a directory without such characters in its path.'
        fi
        ;;
    esac
    most=$limit file=$limit_file advice=''
    if [ -n "$allow" ]; then
        most=$limit_allowed file=$limit_allowed_file
    elif [ -n "$limit" ] && [ "$length" -le "${limit_allowed:-$length}" ]; then
        advice=', or let strings without room keep the old path with --allow-unrelocated'
    fi
    if [ -n "$most" ] && [ "$length" -gt "$most" ]; then
        refuse 8 "it has $length bytes, and $file has room for $most." \
            "Choose a directory of at most $most bytes$advice."
    fi
}

# Find the mount point that the ancestor lies below: $mount_point, $mount_options. Nothing where there is no /proc.
find_mount() {
    mount_point='' mount_options=''
    if [ ! -r /proc/mounts ]; then return 0; fi
    while IFS=' ' read -r _device point _kind flags _others; do
        decode "$point"
        case ${ancestor%/}/ in
        "${decoded%/}"/*) if [ ${#decoded} -ge ${#mount_point} ]; then mount_point=$decoded mount_options=$flags; fi ;;
        esac
    done </proc/mounts
}

# Decode what /proc/mounts writes in octal digits: $decoded.
decode() {
    decoded='' encoded=$1
    while :; do
        case $encoded in
        *\\*) decoded=$decoded${encoded%%\\*} encoded=${encoded#*\\} ;;
        *) break ;;
        esac
        case $encoded in
        040*) decoded="$decoded " ;;
        011*) decoded=$decoded$(printf '\t') ;;
        012*) decoded=$decoded$newline ;;
        043*) decoded="$decoded#" ;;
        134*) decoded="$decoded\\" ;;
        *)
            decoded="$decoded\\"
            continue
            ;;
        esac
        encoded=${encoded#???}
    done
    decoded=$decoded$encoded
}

# Look at what stands there: $count and $names of what it holds, $ours, $unfinished; whether to work $inside it.
look() {
    count=0 names='' ours='' unfinished='' inside='' mounted=''
    if [ -z "$exists" ]; then return 0; fi
    if [ ! -r "$target" ] || [ ! -x "$target" ]; then
        fail 5 "$target exists, and cannot be read." 'Choose another directory, or ask its owner.'
    fi
    if [ "$mount_point" = "$target" ]; then mounted=1; fi
    if [ -e "$target/.pack/references.json" ]; then ours=1; fi
    if [ -e "$target/.installing" ]; then unfinished=1; fi
    # A mount point cannot be renamed, nor can anything in a directory that is somebody else's.
    if [ -n "$mounted" ] || [ -d "$target/.pack-staging" ] || ! may_write "$parent"; then inside=1; fi
    for entry in "$target"/* "$target"/.[!.]* "$target"/..?*; do
        if [ ! -e "$entry" ] && [ ! -h "$entry" ]; then continue; fi
        entry=${entry##*/}
        case $mounted$entry in
        1lost+found | *.pack-staging) continue ;;
        esac
        count=$((count + 1))
        if [ "$count" -le 10 ]; then names="$names${names:+, }$entry"; fi
    done
    if [ "$count" -gt 10 ]; then names="$names and $((count - 10)) more"; fi
}

# Say whether files can be made in the directory $1.
may_write() {
    [ -w "$1" ] && [ -x "$1" ]
}

# Refuse a target that holds what nobody has permitted to replace; $replacing if it is an update.
require_free() {
    replacing=
    case $action in
    uninstall)
        if [ -n "$exists" ]; then return 0; fi
        fail 6 "$target does not exist, so there is nothing to uninstall." 'Name the installation with -p DIR.'
        ;;
    list) return 0 ;;
    extract) if [ "$count" = 0 ]; then return 0; fi ;;
    *)
        if [ -n "$ours$unfinished" ] && [ -n "$update$force" ]; then
            replacing=1
            return 0
        elif [ -n "$unfinished" ]; then
            return 0
        elif [ -n "$update" ]; then
            fail 6 "$target holds no installation that could be updated${names:+, but: $names}." \
                'Leave --update out, or name the installation with -p DIR.'
        elif [ "$count" = 0 ]; then
            return 0
        elif [ -n "$ours" ]; then
            fail 5 "$target exists: there is an installation already." \
                'Replace it with --update, remove it with --uninstall, or choose another directory.'
        fi
        ;;
    esac
    fail 5 "$target exists, and is not an empty directory: $names." 'Remove that yourself, or choose another directory.'
}

# Refuse where there is less room than needed. A file system that reports no total says nothing about it (Lustre).
require_space() {
    case $action in
    list | uninstall) return 0 ;;
    esac
    if [ -n "$skip_space" ]; then return 0; fi
    # For a while the program is there, too, as it came and unpacked; or, where there is none, the whole a second time,
    # for its Python. Half a block of a file's last stays empty, more or less.
    trees=1
    if [ "$opener_size" = 0 ]; then trees=2; fi
    files=$(expr "$entries" \* "$trees" + 50)
    needed=$(expr "$unpacked" / 1024 \* "$trees" + "$stub_unpacked" / 1024 + "$stub_size" / 1024 + "$files" \* 2)
    measure -Pk
    if [ -n "$free" ] && [ "$(expr "$free" '<' "$needed")" = 1 ]; then
        fail 5 "$ancestor: there is room for $(expr "$free" / 1024) MB, and $(expr "$needed" / 1024 + 1) MB are needed." \
            'Make room, choose another directory, or pass --skip-space-check.'
    fi
    measure -Pi
    if [ -n "$free" ] && [ "$(expr "$free" '<' "$files")" = 1 ]; then
        fail 5 "$ancestor: there is room for $free more files, and $files are needed." \
            'Remove files there, choose another directory, or pass --skip-space-check.'
    fi
}

# Read from "df $1" what is free below the ancestor: $free, empty where that is not known.
measure() {
    free=
    said=$(df "$1" "$ancestor" 2>/dev/null | tail -n 1)
    set -f
    # shellcheck disable=SC2086  # its words; names before and behind the numbers may have spaces
    set -- $said
    set +f
    while [ $# -gt 3 ]; do
        case $1/$2/$3/$4 in
        *[!-0123456789%/]* | /* | 0/*) ;;
        [0-9]*/[0-9]*/[0-9]*/*%) free=$3 && return 0 ;;
        esac
        shift
    done
}

# Refuse a file system from which nothing may be run: the program has to run beside the target.
require_exec() {
    case ,$mount_options, in
    *,noexec,*)
        refuse 10 "nothing may be run from $mount_point, which is mounted with noexec." \
            'Choose a directory on another file system, or have this one mounted without noexec.'
        ;;
    esac
}

# Refuse where the staging directory cannot be made.
require_writable() {
    if [ "$action" = list ] && [ -z "$exists" ]; then parent=$ancestor; fi
    place=$parent
    if [ -n "$inside" ]; then place=$target; elif [ -z "$exists" ]; then place=$ancestor; fi
    may_write "$place" || refuse 5 "$place cannot be written." 'Choose another directory, or ask the owner of that one.'
}

# Put the default target into $wanted.
default_target() {
    wanted=$default_prefix
    case $wanted in
    [~]/*)
        [ -n "${HOME-}" ] || misuse "the default target is $wanted, and HOME is not set." 'Name a directory with -p DIR.'
        wanted=${HOME%/}/${wanted#??}
        ;;
    esac
}

# --- Questions ---

# Show the texts, and ask what there is to ask.
ask() {
    if [ "$action" = install ]; then
        if [ "$welcome_size" = 0 ]; then printf '%s\n' "This installs $title."; else text welcome; fi
        printf '\n'
    fi
    if is_unlicensed; then ask_licence; fi
    if [ "$action" = install ]; then ask_target; fi
}

# Say whether there is a licence that nobody has accepted.
is_unlicensed() {
    [ -z "$licensed" ] && [ "$licence_size" != 0 ]
}

# Show the licence until the answer is yes or no.
ask_licence() {
    # Not through a pager: more of util-linux spins for ever once its terminal has gone.
    text licence
    while :; do
        printf '\nDo you accept the licence? [yes|no] '
        answer=
        read -r answer || [ -n "$answer" ] || break
        case $answer in
        [Yy]es | YES | [Yy]) licensed=1 && return 0 ;;
        [Nn]o | NO | [Nn]) break ;;
        esac
        printf 'Please answer "yes" or "no".\n'
    done
    printf '\n'
    fail 14 'the licence was not accepted, so nothing was installed.' ''
}

# Ask for the target until it is a good one.
ask_target() {
    default=$wanted
    while :; do
        printf 'Install to [%s]: ' "$default"
        answer=
        IFS= read -r answer || [ -n "$answer" ] || { printf '\n' && misuse 'no target was chosen: the input has ended.' ''; }
        case $answer in
        '') answer=$default ;;
        [~]/*) answer=${HOME-}/${answer#??} ;;
        esac
        # In a process of its own, which a bad one ends.
        if (check_target "$answer"); then break; fi
        printf '\n'
    done
    wanted=$answer
    check_target "$wanted"
}

# --- Work ---

# Make the staging directory, and what of the target's parents is missing.
make_stage() {
    # A signal waits until what was made is known by its name.
    running=starting
    if ! ignored 1; then trap 'interrupted 1' HUP; fi
    if ! ignored 2; then trap 'interrupted 2' INT; fi
    trap 'interrupted 3' QUIT
    trap 'interrupted 13' PIPE
    trap 'interrupted 15' TERM
    trap leave EXIT
    if [ -n "$inside" ]; then
        parent=$target/.pack-staging base=''
        # shellcheck disable=SC2174  # there is but one to make
        if [ -h "$parent" ] || ! mkdir -p -m 700 "$parent"; then fail 5 "$parent: this directory cannot be made." ''; fi
    else
        [ -n "$exists" ] || make_parents ||
            fail 5 "$way: this directory cannot be made." 'Choose another directory, or ask its owner.'
        base=$(printf '%s' "$base" | head -c 238 && echo x)
        base=.${base%x}.pack-
    fi
    for _ in 1 2 3; do
        stage=$(deaf && mktemp -d "$parent/${base}XXXXXXXX" && echo x)
        stage=${stage%"${newline}x"}
        # Another run may take one without an owner for left behind.
        if [ -n "$stage" ] && printf '%s %s\n' "$(deaf && uname -n)" "$$" >"$stage/owner"; then
            running=''
            if [ "$signal" != 0 ]; then stop; fi
            return 0
        fi
        [ -z "$stage" ] || rm -rf "$stage"
    done
    fail 5 "$parent: a directory to work in cannot be made there." \
        'Is the disk full? Choose another directory, or make room.'
}

# Ignore signals, which a terminal sends to all at once: what makes something must come to say its name.
deaf() {
    trap '' HUP INT QUIT PIPE TERM
}

# Make the missing parents of the target, and remember them.
make_parents() {
    way=${ancestor%/}
    left=${parent#"$way"}
    while [ "${left#/}" ]; do
        left=${left#/}
        way=$way/${left%%/*}
        left=${left#"${way##*/}"}
        if (umask "${mask:-$(umask)}" && deaf && mkdir "$way" 2>/dev/null); then
            made=$way$newline$made
        elif [ ! -d "$way" ]; then
            return 1
        fi
    done
}

# Say whether the caller ignores the signal $1, 1 or 2, as under nohup: then it stays ignored. Most shells see to it.
ignored() {
    key='' mask_ignored=''
    if [ ! -r "/proc/$$/status" ]; then return 1; fi
    while read -r key mask_ignored; do
        if [ "$key" = SigIgn: ]; then break; fi
    done <"/proc/$$/status"
    case $1$mask_ignored in
    1*[13579bdf] | 2*[2367abef]) ;;
    *) return 1 ;;
    esac
}

# A signal came: pass it on to what runs, as TERM, or end.
interrupted() {
    caught=$((caught + 1)) signal=$1
    case $running in
    '') stop ;;
    starting | ended) ;;
    *) kill -TERM "$running" 2>/dev/null ;;
    esac
}

# End because of a signal. The program, if it was started, has said so itself.
stop() {
    if [ -n "$started" ]; then exit "$((128 + signal))"; fi
    fail "$((128 + signal))" 'interrupted by a signal. Nothing was installed.' ''
}

# Remove what was only for the time of the run.
leave() {
    deaf
    trap - EXIT
    if [ -n "$stage" ]; then
        # What tells that it was left, "lock" and "owner", goes last: this, too, may be killed.
        rm -rf "$stage"/[!lo]* "$stage/opener" 2>/dev/null
        rm -rf "$stage" 2>/dev/null
        if [ -d "$stage" ]; then
            chmod -R u+rwx "$stage" 2>/dev/null
            rm -rf "$stage"
        fi
        if [ -n "$inside" ]; then rmdir "$parent" 2>/dev/null; fi
    fi
    if [ -n "$failed" ]; then
        set -f
        IFS=$newline
        for way in $made; do rmdir "$way" 2>/dev/null; done
    fi
}

# Run a command in the background, where signals do not wait for its end, with standard input from the file $1: $code.
await() {
    if [ "$signal" != 0 ]; then stop; fi
    input=$1 running=starting
    shift
    "$@" <"$input" &
    running=$!
    if [ "$signal" != 0 ]; then kill -TERM "$running" 2>/dev/null; fi
    seen=$caught
    wait "$running"
    code=$?
    # A signal breaks off waiting, too. A shell that had the code already knows no such process any more.
    while [ "$caught" != "$seen" ]; do
        seen=$caught
        wait "$running" 2>/dev/null
        last=$?
        if [ "$last" != 127 ]; then code=$last; fi
    done
    # What the program has done is done: its code is no longer that of a signal.
    running=${started:+ended}
    # Killed by a signal, the code is 256 and its number in ksh93, 384 in yash.
    if [ "$code" -gt 384 ]; then code=$((code - 256)); elif [ "$code" -gt 256 ]; then code=$((code - 128)); fi
    if [ "$signal" != 0 ] && [ "$code" != 0 ]; then stop; fi
}

# Become a program, with the variables that the caller had. INT and QUIT, which a terminal sends to all at once, are
# ignored as in any background job: in most shells that cannot be changed, so the program does it for what it starts.
become() {
    trap '' INT QUIT
    set +u
    eval "$caller" 2>/dev/null
    # Whoever started this may be a frozen program: its loader's variables are not for this one's.
    PYINSTALLER_RESET_ENVIRONMENT=1
    export PYINSTALLER_RESET_ENVIRONMENT
    exec "$@"
}

# Become a program of which is only to be known whether it starts; what it says is kept.
attempt() {
    become "$@" >"$stage/said" 2>&1
}

# Print what kind of machine a program is for: a few bytes of its ELF header.
kind() {
    od -An -v -tx1 -N20 "$1" 2>/dev/null | tr -d ' \n' | cut -c 1-12,37-40
}

# What has the program start without the caller's libraries, and know of them.
# shellcheck disable=SC2016  # it is for eval
set_aside='for _pack_each in LD_LIBRARY_PATH LD_PRELOAD; do
    if eval "[ -n \"\${$_pack_each+x}\" ]"; then eval "${_pack_each}_ORIG=\$$_pack_each" && export "${_pack_each}_ORIG" && unset "$_pack_each"; fi
done'

# Carve the stub out, check it, unpack it: $program. Or fail, and $why says what hindered it.
unpack_stub() {
    why='this installer carries none'
    if [ "$opener_size" = 0 ]; then return 1; fi
    section "$header_size" "$opener_size" >"$stage/opener"
    section "$(expr "$header_size" + "$opener_size")" "$(expr "$stub_size" - "$opener_size")" >"$stage/stub.tar.gz"
    if [ "$(cat "$stage/opener" "$stage/stub.tar.gz" | wc -c | tr -d ' ')" != "$stub_size" ]; then unwritable ''; fi
    [ "$(cat "$stage/opener" "$stage/stub.tar.gz" | digest)" = "$stub_sum" ] || damaged 'its program is not what it was.'
    program=$stage/stub/relocator
    # Some shells take a program of another machine for a script, and run what they read.
    why='it is for another kind of machine'
    case $(kind "$stage/opener")/$(kind /proc/self/exe) in
    7f454c46*/) ;;
    7f454c46*) if [ "$(kind "$stage/opener")" != "$(kind /proc/self/exe)" ]; then return 1; fi ;;
    esac
    case $(quoted "$stage") in
    *\\ufffd*) why='it does not start where a path is not UTF-8' && return 1 ;;
    esac
    kept=$caller
    for libraries in '' "$newline$set_aside"; do
        # What the caller has set for other programs may be what hinders this one, which gives it back to hooks.
        caller=$caller$libraries
        if ! rm -rf "$stage/stub" || ! chmod 700 "$stage/opener" || ! mkdir "$stage/stub"; then unwritable ''; fi
        await "$stage/stub.tar.gz" attempt "$stage/opener" "$stage/stub"
        if [ "$code" = 0 ]; then await /dev/null attempt "$program" --version; fi
        if [ "$code" = 0 ]; then return 0; fi
        # The loader's warnings come first.
        why=$(tail -n 1 "$stage/said" 2>/dev/null)
        # What starts and cannot write says so; on a full disk not even that.
        case $why in
        opener:*) unwritable "$why" ;;
        '') if [ "$code" -lt 126 ]; then unwritable ''; fi ;;
        esac
        why="it does not start: ${why:-it ended with code $code}"
        case $caller in
        *LD_LIBRARY_PATH=* | *LD_PRELOAD=*) ;;
        *) break ;;
        esac
    done
    caller=$kept
    return 1
}

# End because the staging directory takes no more; $1, if not empty, is what was said of it.
unwritable() {
    fail 5 "$stage: the program of the installer cannot be written there${1:+: $1}." \
        'Is the disk full? Make room, or choose another directory.'
}

# Without a stub that runs: unpack the payload by the machine's own tools, and take the Python in it as $program.
unpack_python() {
    warn "the frozen relocator cannot be used: $why. Trying the environment's own Python."
    tool=zstd python=1
    if [ "$payload" = gz ]; then tool=gzip; fi
    for each in tar "$tool" mkfifo; do
        if ! command -v "$each" >/dev/null 2>&1; then nothing_runs "there is no $each to unpack its Python with"; fi
    done
    await /dev/null sum_payload
    if [ ! -s "$stage/sum" ]; then unwritable ''; fi
    if [ "$(cat "$stage/sum")" != "$payload_sum" ]; then damaged 'its payload is not what it was.'; fi
    if ! mkdir "$stage/boot"; then unwritable ''; fi
    if ! mkfifo "$stage/stream"; then nothing_runs "$stage takes no pipe"; fi
    feed
    await "$stage/stream" untar
    starve
    if [ "$code" != 0 ]; then
        said=$(cat "$stage/feeding" "$stage/said" 2>/dev/null | head -n 1)
        case $said in
        '' | *'No space left'* | *quota*) unwritable "$said" ;;
        esac
        nothing_runs "its Python cannot be unpacked: $said"
    fi
    for libraries in '' "${newline}unset LD_LIBRARY_PATH LD_PRELOAD"; do
        # What the caller has set for other programs may be what hinders this one.
        caller=$caller$libraries
        for bin in "$stage"/boot/share/pack-python/bin "$stage"/boot/bin; do
            for each in "$bin"/python3 "$bin"/python "$bin"/python3.[0-9] "$bin"/python3.[0-9][0-9]; do
                if [ ! -x "$each" ]; then continue; fi
                program=$each
                await /dev/null attempt "$program" -I -S -B -X utf8 -c 'import sys; sys.exit(sys.version_info < (3, 8))'
                if [ "$code" = 0 ]; then return 0; fi
            done
        done
    done
    nothing_runs 'it holds no Python 3.8 or newer that runs here'
}

# End because neither the stub nor a Python can do the work.
nothing_runs() {
    fail 10 "nothing can do the work here. The frozen relocator: $why. The environment's own Python: $1." \
        'Install on a machine like the one it was packed on, or unpack the payload by hand: tail and tar can.'
}

# Write the SHA-256 of the payload.
sum_payload() {
    section "$payload_at" "$payload_size" | digest >"$stage/sum"
}

# Unpack the plain tar on standard input. The files belong to whoever does.
untar() {
    cd "$stage/boot" && LC_ALL=C exec tar -x -o -f - >"$stage/said" 2>&1
}

# Begin to write the payload as a plain tar into the pipe.
feed() {
    rm -f "$stage/fed"
    { : >"$stage/fed" && section "$payload_at" "$payload_size" | "$tool" -dc 2>"$stage/feeding"; } >"$stage/stream" &
    feeder=$!
}

# End that: nobody reads any more, or, where the pipe was not even opened, nobody ever did.
starve() {
    if [ ! -e "$stage/fed" ]; then kill -TERM "$feeder"; fi
    wait "$feeder"
}

# Run the program, and end with its code.
run() {
    set -- "$action" --installer "$self" --staging "$stage"
    if [ "$action" != list ]; then
        set -- "$@" --target "$target" ${quiet:+--quiet} ${log:+--log "$log"}
    fi
    case $action in
    install | uninstall)
        if [ -z "$interactive" ]; then set -- "$@" --unattended; fi
        if [ -z "$scripts" ]; then set -- "$@" --skip-scripts; fi
        ;;
    esac
    case $action in
    install | extract) set -- "$@" --size "$unpacked" ${jobs:+--jobs "$jobs"} ${mask:+--umask "$mask"} ${group:+--group "$group"} ;;
    esac
    set -- "$@" ${update:+--update} ${force:+--force} ${allow:+--allow-unrelocated} ${registered:+--register} \
        ${added:+--added "$added"} ${json:+--json}
    input=/dev/null
    if [ -n "$python" ]; then
        set -- -I -S -B -X utf8 "$stage/boot/.pack/relocator" "$@" --expanded
        feed
        input=$stage/stream
    fi
    started=1
    await "$input" become "$program" "$@"
    if [ -n "$python" ]; then starve; fi
    if [ "$code" -gt 128 ] && [ "$code" -le 192 ]; then
        fail "$code" "the program was ended by signal $((code - 128))." \
            'Was there enough memory? Run it again: what was begun is taken back, or goes on.'
    fi
    if [ "$code" = 0 ] && [ "$action" != list ]; then failed=''; fi
    return "$code"
}

# Say what would be done.
plan() {
    hook_names=$hooks
    if [ -z "$scripts" ]; then hook_names=; fi
    beside=$parent/.$base.pack-XXXXXXXX
    if [ -n "$inside" ]; then beside=$target/.pack-staging/XXXXXXXX; fi
    updating=false
    if [ -n "$replacing" ]; then updating=true; fi
    pairs name "$installer_name" version "$installer_version" target "$target" staging "$beside" update "$updating" \
        scripts "$hook_names" entries "$entries" bytes "$unpacked"
}

# --- What needs no program ---

# Print what is known of the installer, the licence last.
inform() {
    set -- name "$installer_name" version "$installer_version" platform "$platform" environment "$environment" \
        pack "$pack_version" default-target "$default_prefix" glibc "$glibc" glibc-needed-by "$glibc_file" \
        longest-target "$limit" longest-target-set-by "$limit_file" longest-target-unrelocated "$limit_allowed" \
        longest-target-unrelocated-set-by "$limit_allowed_file" scripts "$hooks" entries "$entries" bytes "$unpacked" \
        file-bytes "$size" header-bytes "$header_size" stub-bytes "$stub_size" payload-bytes "$payload_size" \
        payload-first-byte "$(expr "$payload_at" + 1)" \
        payload-format "tar.$payload" header-sha256 "$header_sum" stub-sha256 "$stub_sum" payload-sha256 "$payload_sum"
    if [ -n "$json" ]; then
        pairs "$@" licence ''
    else
        pairs "$@"
        if [ "$licence_size" != 0 ]; then printf '\n' && text licence; fi
    fi
}

# Check every byte of the file, and what lies beside it to vouch for it.
check() {
    bad=''
    say "header   $header_sum  as it was"
    check_section stub "$header_size" "$stub_size" "$stub_sum" program
    check_section payload "$payload_at" "$payload_size" "$payload_sum" payload
    [ -z "$bad" ] || damaged "${bad# }"
    check_sum && check_signature || return
    if [ -n "$json" ]; then
        pairs ok true header "$header_sum" stub "$stub_sum" payload "$payload_sum" sha256 "$file_sum" signature "$signature"
    else
        say OK
    fi
}

# Compare a section, $1 at $2 with $3 bytes, with its SHA-256, $4; $5 is what is in it.
check_section() {
    if [ "$(section "$2" "$3" | digest)" = "$4" ]; then
        say "$(printf '%-7s' "$1")  $4  as it was"
    else
        bad="$bad its $5 is not what it was."
    fi
}

# Compare the SHA-256 of the whole with the one that lies beside it.
check_sum() {
    file_sum=
    if [ ! -f "$self.sha256" ]; then return 0; fi
    file_sum=$(digest <"$self")
    read -r expected _rest <"$self.sha256"
    if [ "${expected#\\}" != "$file_sum" ]; then
        fail 11 "$self: its SHA-256 is $file_sum, and $self.sha256 says ${expected:-nothing}." \
            'One of the two is not of this release, or was changed. Get both again.'
    fi
    say "$self.sha256 says the same."
}

# Check the signature that lies beside the file.
check_signature() {
    signature=''
    if [ ! -f "$self.sig" ]; then
        if [ -z "$signers" ]; then return 0; fi
        fail 11 "$self.sig: there is no signature, and --allowed-signers asks for one." \
            'Get it from where the installer is from.'
    fi
    if ! command -v ssh-keygen >/dev/null 2>&1; then
        [ -z "$signers" ] || fail 10 "$self.sig cannot be checked: there is no ssh-keygen." 'Install OpenSSH 8.2 or newer.'
        warn "$self.sig was not checked: there is no ssh-keygen here."
        return 0
    fi
    if [ -z "$signers" ]; then
        said=$(ssh-keygen -Y check-novalidate -n pack-installer -s "$self.sig" <"$self" 2>&1) || bad_signature
        signature=$said
        say "$said"
        say "Whose key that is was not checked: --allowed-signers FILE does."
        return 0
    fi
    said=$(ssh-keygen -Y find-principals -s "$self.sig" -f "$signers" 2>&1) || bad_signature
    who=${said%%"$newline"*}
    said=$(ssh-keygen -Y verify -n pack-installer -s "$self.sig" -f "$signers" -I "$who" <"$self" 2>&1) || bad_signature
    signature=$said
    say "$said"
}

# End because ssh-keygen does not take the signature.
bad_signature() {
    case $said in
    *'unknown option'* | *'illegal option'* | *'nsupported operation'*)
        fail 10 "$self.sig cannot be checked: this ssh-keygen is too old." 'OpenSSH 8.2 or newer can.'
        ;;
    esac
    fail 11 "$self.sig is no valid signature of this file${signers:+ by one of $signers}: $said" \
        'Do not run it. Get both from where they come from.'
}

# Refuse to go on without the licence.
require_licence() {
    is_unlicensed || return 0
    fail 14 "$title has a licence, which has to be accepted." \
        'Read it with --info, and pass --accept-license, or run it in a terminal.'
}

# The story.
main() {
    name=$(legible "${0##*/}")
    understand "$@" && find_self && read_trailer && check_header || return
    case $action in
    help) usage && return ;;
    version) printf '%s\n' "$title (packed by pack $pack_version)" && return ;;
    info) inform && return ;;
    check) check && return ;;
    esac
    if [ -z "$wanted" ]; then default_target; fi
    case $action in
    install | dry-run) check_machine || return ;;
    uninstall | list) interactive='' licensed=1 ;;
    esac
    if [ "$action" = dry-run ]; then
        check_target "$wanted" && plan
    elif [ -n "$interactive" ] && [ "$action" = install ]; then
        ask && perform
    else
        check_target "$wanted" && if [ -n "$interactive" ]; then ask; fi && require_licence && perform
    fi
}

# Do what needs the program, on a file of which the script is whole.
perform() {
    [ -n "$whole" ] && make_stage && { unpack_stub || unpack_python; } && run || return
    if [ -n "$interactive" ] && [ "$action" = install ]; then text conclusion; fi
}

main "$@"; exit; fi; }
