/* opener DIRECTORY < archive.tar.gz: unpacks the stub where there may be neither tar nor gzip.

   What it reads is what pack writes: one gzip member with a tar archive of files and directories, whose names have
   at most 100 bytes. Anything else ends it with one line on stderr. DIRECTORY exists, is empty, and nobody else may
   write into it. */

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

enum { BLOCK = 512, NAME = 100 };

static char member[NAME + 1]; /* the name that is being unpacked; "" before the first and behind the last */
static z_stream stream;
static int ended; /* the gzip member is read to its end, and its checksum was right */

static void fail(const char *what, const char *why) {
    char *each;
    for (each = member; *each; each++)
        if (*each < ' ' || *each > '~')
            *each = '?'; /* a hostile name is no sequence for a terminal */
    fprintf(stderr, "opener: %s%s%s%s%s\n", member, *member ? ": " : "", what, why ? ": " : "", why ? why : "");
    exit(1);
}

/* Read the next bytes of standard input, 0 at its end. */
static size_t receive(void *to, size_t room) {
    ssize_t count;
    do
        count = read(STDIN_FILENO, to, room);
    while (count < 0 && errno == EINTR);
    if (count < 0)
        fail("the archive cannot be read", strerror(errno));
    return (size_t)count;
}

/* Expand the next ``count`` bytes of the archive; return how many there were, which is less at its end alone. */
static size_t expand(unsigned char *to, size_t count) {
    static unsigned char packed[1 << 16];
    stream.next_out = to;
    stream.avail_out = (uInt)count;
    while (stream.avail_out && !ended) {
        int said;
        if (stream.avail_in == 0) {
            stream.next_in = packed;
            stream.avail_in = (uInt)receive(packed, sizeof packed);
            if (stream.avail_in == 0)
                fail("the archive is cut", NULL);
        }
        said = inflate(&stream, Z_NO_FLUSH);
        if (said == Z_STREAM_END)
            ended = 1;
        else if (said == Z_MEM_ERROR)
            fail("there is not enough memory", NULL);
        else if (said != Z_OK)
            fail("the archive is damaged", stream.msg);
    }
    return count - stream.avail_out;
}

static void expand_all(unsigned char *to, size_t count) {
    if (expand(to, count) != count)
        fail("the archive is cut", NULL);
}

static int is_zero(const unsigned char *bytes, size_t count) {
    while (count && *bytes == 0)
        bytes++, count--;
    return count == 0;
}

/* Read a field of octal digits, which a zero byte or a space ends. */
static unsigned long long number(const unsigned char *field, size_t width) {
    unsigned long long value = 0;
    size_t at = 0;
    for (; at < width && field[at] >= '0' && field[at] <= '7'; at++)
        value = value << 3 | (unsigned long long)(field[at] - '0');
    if (at == 0 || at == width || (field[at] != 0 && field[at] != ' '))
        fail("a number in its header is none", NULL);
    return value;
}

/* Read the name that a header holds, without the slash behind a directory's, and refuse one that leads elsewhere. */
static void read_name(const unsigned char *header) {
    size_t length = strnlen((const char *)header, NAME);
    char *part = member;
    memcpy(member, header, length);
    member[length] = 0;
    if (!is_zero(header + length, NAME - length))
        fail("bytes stand behind its name", NULL);
    if (header[156] == '5' && length > 1 && member[length - 1] == '/')
        member[length - 1] = 0;
    for (;;) {
        size_t size = strcspn(part, "/");
        if (size == 0 || (size == 1 && part[0] == '.') || (size == 2 && part[0] == '.' && part[1] == '.'))
            fail("its name is not a plain relative path", NULL);
        if (part[size] == 0)
            return;
        part += size + 1;
    }
}

/* Open the directory that ``member`` lies in, below ``root``, through no link; *last is the rest of its name. */
static int enter(int root, char **last) {
    int folder = dup(root);
    char *slash;
    for (*last = member; folder >= 0 && (slash = strchr(*last, '/')) != NULL; *last = slash + 1) {
        int outer = folder;
        *slash = 0;
        folder = openat(outer, *last, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        *slash = '/';
        close(outer);
    }
    if (folder < 0)
        fail("its directory cannot be opened", strerror(errno));
    return folder;
}

static void write_file(int file, unsigned long long size) {
    static unsigned char content[1 << 16];
    while (size) {
        size_t piece = size < sizeof content ? (size_t)size : sizeof content, written = 0;
        expand_all(content, (piece + BLOCK - 1) / BLOCK * BLOCK); /* the last one with its padding */
        while (written < piece) {
            ssize_t count = write(file, content + written, piece - written);
            if (count < 0 && errno != EINTR)
                fail("it cannot be written", strerror(errno));
            written += count > 0 ? (size_t)count : 0;
        }
        if (!is_zero(content + piece, (BLOCK - piece % BLOCK) % BLOCK))
            fail("bytes stand behind its content", NULL);
        size -= piece;
    }
}

/* Unpack the member of a header; what it holds follows. */
static void unpack(int root, const unsigned char *header) {
    unsigned long long sum = 8 * ' ', mode, size;
    size_t at;
    int folder, done;
    char *last;
    for (at = 0; at < BLOCK; at++)
        sum += at >= 148 && at < 156 ? 0 : header[at]; /* its own field counts as spaces */
    if (memcmp(header + 257, "ustar", 5) != 0 || number(header + 148, 8) != sum)
        fail("a header is damaged", NULL);
    if (header[156] == 'L' || header[156] == 'x' || !is_zero(header + 345, BLOCK - 345))
        fail("a name has more than 100 bytes", NULL);
    read_name(header);
    mode = number(header + 100, 8);
    size = number(header + 124, 12);
    if ((header[156] != '0' && header[156] != '5') || !is_zero(header + 157, 100))
        fail("it is neither a file nor a directory", NULL);
    if (mode > 0777)
        fail("its mode has more than permissions", NULL);
    folder = enter(root, &last);
    if (header[156] == '5') {
        if (size)
            fail("a directory has content", NULL);
        done = mkdirat(folder, last, 0700) == 0 && fchmodat(folder, last, (mode_t)mode, 0) == 0;
    } else {
        int file = openat(folder, last, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
        if (file >= 0)
            write_file(file, size);
        done = file >= 0 && fchmod(file, (mode_t)mode) == 0 && close(file) == 0;
    }
    if (!done)
        fail("it cannot be made", strerror(errno));
    close(folder);
}

int main(int count, char **arguments) {
    unsigned char header[BLOCK];
    int root;
    if (count != 2) {
        fputs("usage: opener DIRECTORY < archive.tar.gz\n", stderr);
        return 2;
    }
    root = open(arguments[1], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (root < 0)
        fail("the directory cannot be opened", strerror(errno));
    if (inflateInit2(&stream, 15 + 16) != Z_OK) /* gzip alone, with its checksum */
        fail("there is not enough memory", NULL);
    for (;;) {
        expand_all(header, BLOCK);
        if (is_zero(header, BLOCK))
            break;
        unpack(root, header);
        *member = 0;
    }
    expand_all(header, BLOCK); /* two blocks of zeros are the end, and tars fill up what they write with more */
    do
        if (!is_zero(header, BLOCK))
            fail("bytes stand behind its end", NULL);
    while (expand(header, BLOCK) == BLOCK);
    if (stream.avail_out != BLOCK || stream.avail_in || receive(header, 1))
        fail("bytes stand behind the archive", NULL);
    return 0;
}
