/* ext4cat: lists, prints and copies files of an ext2/3/4 file system that lies
 * in an image, with libext2fs on top of libcachet-client.
 *
 *   ext4cat [--offset BYTES] URI ls [-R] PATH
 *   ext4cat [--offset BYTES] URI cat PATH
 *   ext4cat [--offset BYTES] URI dump PATH DIR
 *
 * `ls` prints a line for each file: type and permissions, size, path.  `cat`
 * prints a file.  `dump` copies PATH and everything below it into DIR, as
 * debugfs's rdump does: the entries of the root directory, or any other file
 * under its own name.  It copies the bytes and permissions of regular files,
 * directories and symbolic links.  It does not copy owners and times.  It
 * skips devices, sockets and pipes, with a message.
 *
 * The first half of the program is an io_manager, through which libext2fs
 * reads blocks.  The second half uses libext2fs as any program does.
 *
 * The program does not trust the file system, which may have names with a
 * slash, directories that contain themselves, or links that lead out of DIR.
 * It only creates new files, and never through a link.  The first failure ends
 * the program.  Exit status: 0, 1 for a failure, 2 for a bad command line. */
#include <assert.h>
#include <errno.h>
#include <et/com_err.h>
#include <ext2fs/ext2_fs.h>
#include <ext2fs/ext2fs.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cachet/cachet.h>

#define COPY_LEN (256 << 10)

/* ---- The io_manager ------------------------------------------------------ */

/* A file system within an image. */
struct volume {
  cachet *c;
  uint64_t offset; /* of the file system in the image */
  struct struct_io_stats stats;
  ext2_filsys fs;
};

/* ext2fs_open() passes only a name to its io_manager, and cuts the name at a
 * `?`, so a handle cannot pass through it.  Therefore volume_open() stores the
 * volume here just before it calls ext2fs_open(). channel_open() runs inside
 * that call and takes the volume from here.  From then on the volume is the
 * channel's private data. */
static struct volume *opening;

static errcode_t error_of(enum cachet_status status) {
  switch (status) {
  case CACHET_OK:
    return 0;
  case CACHET_END:
  case CACHET_E_BOUNDS:
    return EXT2_ET_SHORT_READ;
  case CACHET_E_NOMEM:
    return ENOMEM;
  case CACHET_E_ACCESS:
    return EACCES;
  case CACHET_E_TIMEOUT:
    return ETIMEDOUT;
  case CACHET_E_CHANGED:
    return ESTALE;
  default:
    return EIO;
  }
}

static struct struct_io_manager cachet_io_manager; /* defined below */

static errcode_t channel_open(const char *name, int flags, io_channel *out) {
  struct volume *vol = opening;
  opening = NULL;
  assert(vol);
  if (flags & IO_FLAG_RW)
    return EXT2_ET_RO_FILSYS;
  io_channel channel = calloc(1, sizeof *channel);
  char *copy = strdup(name);
  if (!channel || !copy) {
    free(channel);
    free(copy);
    return ENOMEM;
  }
  channel->magic = EXT2_ET_MAGIC_IO_CHANNEL;
  channel->manager = &cachet_io_manager;
  channel->name = copy;
  channel->block_size = 1024;
  channel->refcount = 1;
  channel->private_data = vol;
  *out = channel;
  return 0;
}

/* The handle belongs to the volume and stays open. */
static errcode_t channel_close(io_channel channel) {
  if (--channel->refcount > 0)
    return 0;
  free(channel->name);
  free(channel);
  return 0;
}

static errcode_t channel_set_blksize(io_channel channel, int block_size) {
  if (block_size <= 0)
    return EXT2_ET_INVALID_ARGUMENT;
  channel->block_size = block_size;
  return 0;
}

/* Converts blocks of the file system into bytes of the image.  The block
 * numbers come from the file system and may have any value.  A negative `count`
 * is in bytes. */
static errcode_t channel_range(io_channel channel, unsigned long long block,
                               long long count, uint64_t *addr, uint64_t *len) {
  const struct volume *vol = channel->private_data;
  uint64_t block_size = (uint64_t)channel->block_size;
  *len = count < 0 ? (uint64_t)-count : (uint64_t)count * block_size;
  if (__builtin_mul_overflow((uint64_t)block, block_size, addr) ||
      __builtin_add_overflow(*addr, vol->offset, addr))
    return EXT2_ET_SHORT_READ;
  return 0;
}

/* Blocks of two versions of a file system must not be combined.
 * CACHET_ONE_EPOCH makes the handle read one version only, and fail when there
 * is another. */
static errcode_t channel_read_blk64(io_channel channel,
                                    unsigned long long block, int count,
                                    void *data) {
  struct volume *vol = channel->private_data;
  uint64_t addr, len;
  errcode_t err = channel_range(channel, block, count, &addr, &len);
  if (!err)
    err = error_of(cachet_read(vol->c, addr, data, len));
  if (!err)
    vol->stats.bytes_read += len;
  return err;
}

static errcode_t channel_read_blk(io_channel channel, unsigned long block,
                                  int count, void *data) {
  return channel_read_blk64(channel, block, count, data);
}

static errcode_t channel_write_blk64(io_channel channel,
                                     unsigned long long block, int count,
                                     const void *data) {
  (void)channel, (void)block, (void)count, (void)data;
  return EXT2_ET_RO_FILSYS;
}

static errcode_t channel_write_blk(io_channel channel, unsigned long block,
                                   int count, const void *data) {
  return channel_write_blk64(channel, block, count, data);
}

static errcode_t channel_write_byte(io_channel channel, unsigned long offset,
                                    int count, const void *data) {
  return channel_write_blk64(channel, offset, count, data);
}

/* There is never anything to flush. */
static errcode_t channel_flush(io_channel channel) {
  (void)channel;
  return 0;
}

static errcode_t channel_readahead(io_channel channel, unsigned long long block,
                                   unsigned long long count) {
  struct volume *vol = channel->private_data;
  uint64_t addr, len;
  if (count > INT_MAX)
    count = INT_MAX;
  errcode_t err = channel_range(channel, block, (long long)count, &addr, &len);
  return err ? err : error_of(cachet_prefetch(vol->c, addr, len));
}

static errcode_t channel_get_stats(io_channel channel, io_stats *stats) {
  struct volume *vol = channel->private_data;
  if (stats)
    *stats = &vol->stats;
  return 0;
}

/* libext2fs returns an error itself for the operations that are missing here
 * (options, discard, zeroout). */
static struct struct_io_manager cachet_io_manager = {
    .magic = EXT2_ET_MAGIC_IO_MANAGER,
    .name = "cachet I/O manager",
    .open = channel_open,
    .close = channel_close,
    .set_blksize = channel_set_blksize,
    .read_blk = channel_read_blk,
    .read_blk64 = channel_read_blk64,
    .write_blk = channel_write_blk,
    .write_blk64 = channel_write_blk64,
    .write_byte = channel_write_byte,
    .flush = channel_flush,
    .cache_readahead = channel_readahead,
    .get_stats = channel_get_stats,
};

static errcode_t volume_open(struct volume *vol, cachet *c, uint64_t offset) {
  *vol = (struct volume){.c = c, .offset = offset};
  vol->stats.num_fields = 2;
  opening = vol;
  errcode_t err = ext2fs_open("cachet", EXT2_FLAG_64BITS, 0, 0,
                              &cachet_io_manager, &vol->fs);
  opening = NULL; /* also if ext2fs_open() failed early */
  return err;
}

static void volume_close(struct volume *vol) { ext2fs_close_free(&vol->fs); }

/* ---- What fails, and where ----------------------------------------------- */

/* A path that follows the walk through the directories.  Its limit also limits
 * the depth of the walk. */
struct path {
  char text[PATH_MAX];
  size_t len;
};

/* Prints a name without characters that could control a terminal. */
static void print_name(FILE *out, const char *name) {
  for (const unsigned char *p = (const unsigned char *)name; *p; p++) {
    if (*p < ' ' || *p == 0x7f || *p == '\\')
      fprintf(out, "\\x%02x", *p);
    else
      putc(*p, out);
  }
}

__attribute__((format(printf, 2, 3), noreturn)) static void
fail(const char *path, const char *format, ...) {
  va_list args;
  fflush(stdout);
  fputs("ext4cat: ", stderr);
  print_name(stderr, path);
  fputs(": ", stderr);
  va_start(args, format);
  vfprintf(stderr, format, args);
  va_end(args);
  fputs("\n", stderr);
  exit(1);
}

/* Ends the program if `err` is an error.  The first failure is also the last
 * one, so the error message of the handle belongs to this failure. */
static void check(const struct volume *vol, errcode_t err, const char *path) {
  if (!err)
    return;
  const char *why = cachet_errmsg(vol->c);
  if (err == ESTALE)
    fail(path, "the image changed while it was being read");
  fail(path, "%s%s%s", error_message(err), *why ? ": " : "", why);
}

/* Returns the argument for the path_pop() that undoes it. */
static size_t path_push(struct path *path, const char *name) {
  size_t mark = path->len, name_len = strlen(name);
  bool slash = path->len > 0 && path->text[path->len - 1] != '/';
  if (path->len + slash + name_len + 1 > sizeof path->text)
    fail(path->text, "the paths below it are too long");
  if (slash)
    path->text[path->len++] = '/';
  memcpy(path->text + path->len, name, name_len + 1);
  path->len += name_len;
  return mark;
}

static void path_pop(struct path *path, size_t mark) {
  path->len = mark;
  path->text[mark] = '\0';
}

/* ---- Reading files and directories --------------------------------------- */

struct entry {
  ext2_ino_t ino;
  char *name;
};

struct listing {
  struct entry *entries;
  size_t n_entries, capacity;
  errcode_t err;
};

static errcode_t listing_add(struct listing *list, ext2_ino_t ino,
                             const char *name, size_t name_len) {
  if (list->n_entries == list->capacity) {
    size_t capacity = list->capacity ? 2 * list->capacity : 16;
    struct entry *grown =
        reallocarray(list->entries, capacity, sizeof *list->entries);
    if (!grown)
      return ENOMEM;
    list->entries = grown;
    list->capacity = capacity;
  }
  char *copy = strndup(name, name_len);
  if (!copy)
    return ENOMEM;
  list->entries[list->n_entries++] = (struct entry){ino, copy};
  return 0;
}

static void listing_fini(struct listing *list) {
  for (size_t i = 0; i < list->n_entries; i++)
    free(list->entries[i].name);
  free(list->entries);
}

/* Adds an entry of a directory to the listing.  The first two entries name the
 * directory itself and its parent.  Any other entry with such a name, or with
 * a name that is not a file name, indicates damage or an attack. */
static int visit_dirent(ext2_ino_t dir, int position,
                        struct ext2_dir_entry *dirent, int offset,
                        int block_size, char *block, void *arg) {
  (void)dir, (void)offset, (void)block_size, (void)block;
  struct listing *list = arg;
  const char *name = dirent->name;
  size_t len = (size_t)ext2fs_dirent_name_len(dirent);
  bool is_dots = (len == 1 && name[0] == '.') ||
                 (len == 2 && name[0] == '.' && name[1] == '.');
  if (is_dots && position != DIRENT_OTHER_FILE)
    return 0;
  if (is_dots || len == 0 || memchr(name, '/', len) || memchr(name, '\0', len))
    list->err = EXT2_ET_DIR_CORRUPTED;
  else
    list->err = listing_add(list, dirent->inode, name, len);
  return list->err ? DIRENT_ABORT : 0;
}

static int compare_entries(const void *a, const void *b) {
  const struct entry *x = a, *y = b;
  return strcmp(x->name, y->name);
}

/* The entries of a directory, by name.  The caller must call listing_fini(). */
static void read_dir(const struct volume *vol, ext2_ino_t ino,
                     const struct path *path, struct listing *list) {
  *list = (struct listing){0};
  errcode_t err =
      ext2fs_dir_iterate2(vol->fs, ino, 0, NULL, visit_dirent, list);
  check(vol, err ? err : list->err, path->text);
  if (list->n_entries)
    qsort(list->entries, list->n_entries, sizeof *list->entries,
          compare_entries);
}

static void read_inode(const struct volume *vol, ext2_ino_t ino,
                       const char *path, struct ext2_inode *out) {
  check(vol, ext2fs_read_inode(vol->fs, ino, out), path);
}

static void write_all(int fd, const char *bytes, size_t len,
                      const char *out_path) {
  while (len > 0) {
    ssize_t n = write(fd, bytes, len);
    if (n < 0 && errno == EINTR)
      continue;
    if (n < 0)
      fail(out_path, "write: %s", strerror(errno));
    bytes += n;
    len -= (size_t)n;
  }
}

static bool is_zero(const char *bytes, size_t len) {
  return len == 0 || (bytes[0] == 0 && memcmp(bytes, bytes + 1, len - 1) == 0);
}

/* Copies the bytes of a file to `fd`.  With `sparse`, `fd` is a new regular
 * file, and runs of zeros become holes. libext2fs handles extents, holes and
 * inline data. */
static void copy_file(const struct volume *vol, ext2_ino_t ino,
                      const char *path, int fd, bool sparse) {
  ext2_file_t file;
  check(vol, ext2fs_file_open(vol->fs, ino, 0, &file), path);
  char *buf = malloc(COPY_LEN);
  if (!buf)
    fail(path, "no memory");
  off_t end = 0;
  for (;;) {
    unsigned int n = 0;
    check(vol, ext2fs_file_read(file, buf, COPY_LEN, &n), path);
    if (n == 0)
      break;
    end += n;
    if (!sparse || !is_zero(buf, n))
      write_all(fd, buf, n, path);
    else if (lseek(fd, end, SEEK_SET) < 0)
      fail(path, "seek to %jd: %s", (intmax_t)end, strerror(errno));
  }
  if (sparse && ftruncate(fd, end) < 0)
    fail(path, "set the length %jd: %s", (intmax_t)end, strerror(errno));
  free(buf);
  check(vol, ext2fs_file_close(file), path);
}

/* The target of a symbolic link.  A short target is stored in the inode. */
static void read_link(const struct volume *vol, ext2_ino_t ino,
                      struct ext2_inode *inode, const char *path,
                      char target[PATH_MAX]) {
  uint64_t len = EXT2_I_SIZE(inode);
  if (len == 0 || len >= PATH_MAX)
    fail(path, "a symbolic link of %" PRIu64 " bytes", len);
  unsigned int n = (unsigned int)len;
  if (ext2fs_is_fast_symlink(inode)) {
    memcpy(target, inode->i_block, n);
  } else {
    ext2_file_t file;
    check(vol, ext2fs_file_open(vol->fs, ino, 0, &file), path);
    check(vol, ext2fs_file_read(file, target, PATH_MAX - 1, &n), path);
    check(vol, ext2fs_file_close(file), path);
  }
  target[n] = '\0';
}

/* The directories that a walk is in, innermost first. */
struct level {
  ext2_ino_t ino;
  const struct level *up;
};

static void check_no_loop(const struct level *up, ext2_ino_t ino,
                          const char *path) {
  for (; up; up = up->up) {
    if (up->ino == ino)
      fail(path, "the directory is within itself");
  }
}

/* ---- ls ------------------------------------------------------------------ */

static void list_one(const struct volume *vol, ext2_ino_t ino,
                     struct ext2_inode *inode, const char *path) {
  static const char types[] = "?pc?d?b?-?l?s???";
  printf("%c%04o %12" PRIu64 " ", types[inode->i_mode >> 12 & 15],
         inode->i_mode & 07777u, (uint64_t)EXT2_I_SIZE(inode));
  print_name(stdout, path);
  if (LINUX_S_ISLNK(inode->i_mode)) {
    char target[PATH_MAX];
    read_link(vol, ino, inode, path, target);
    printf(" -> ");
    print_name(stdout, target);
  }
  printf("\n");
}

static void list_dir(const struct volume *vol, ext2_ino_t ino,
                     struct path *path, bool recursive,
                     const struct level *up) {
  struct level here = {ino, up};
  struct listing list;
  read_dir(vol, ino, path, &list);
  for (size_t i = 0; i < list.n_entries; i++) {
    const struct entry *e = &list.entries[i];
    struct ext2_inode inode;
    size_t mark = path_push(path, e->name);
    read_inode(vol, e->ino, path->text, &inode);
    list_one(vol, e->ino, &inode, path->text);
    if (recursive && LINUX_S_ISDIR(inode.i_mode)) {
      check_no_loop(&here, e->ino, path->text);
      list_dir(vol, e->ino, path, recursive, &here);
    }
    path_pop(path, mark);
  }
  listing_fini(&list);
}

/* ---- dump ---------------------------------------------------------------- */

static void dump_file(const struct volume *vol, ext2_ino_t ino,
                      const struct ext2_inode *inode, const char *path) {
  int fd =
      open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
  if (fd < 0)
    fail(path, "create: %s", strerror(errno));
  copy_file(vol, ino, path, fd, true);
  if (fchmod(fd, inode->i_mode & 0777) < 0)
    fail(path, "set the permissions: %s", strerror(errno));
  if (close(fd) < 0)
    fail(path, "write: %s", strerror(errno));
}

static void dump_link(const struct volume *vol, ext2_ino_t ino,
                      struct ext2_inode *inode, const char *path) {
  char target[PATH_MAX];
  read_link(vol, ino, inode, path, target);
  if (symlink(target, path) < 0)
    fail(path, "create: %s", strerror(errno));
}

static void dump_dir(const struct volume *vol, ext2_ino_t ino,
                     struct path *path, const struct level *up);

/* Copies one file of any type to `path`, which must not exist.  The program
 * created all directories on that path (or they belong to the user's DIR), so
 * it never follows a link of the file system. */
static void dump_entry(const struct volume *vol, ext2_ino_t ino,
                       struct path *path, const struct level *up) {
  struct ext2_inode inode;
  read_inode(vol, ino, path->text, &inode);
  if (LINUX_S_ISREG(inode.i_mode)) {
    dump_file(vol, ino, &inode, path->text);
  } else if (LINUX_S_ISLNK(inode.i_mode)) {
    dump_link(vol, ino, &inode, path->text);
  } else if (LINUX_S_ISDIR(inode.i_mode)) {
    check_no_loop(up, ino, path->text);
    if (mkdir(path->text, 0700) < 0)
      fail(path->text, "create: %s", strerror(errno));
    dump_dir(vol, ino, path, up);
    if (chmod(path->text, inode.i_mode & 0777) < 0)
      fail(path->text, "set the permissions: %s", strerror(errno));
  } else {
    fputs("ext4cat: ", stderr);
    print_name(stderr, path->text);
    fputs(": left out, a special file\n", stderr);
  }
}

static void dump_dir(const struct volume *vol, ext2_ino_t ino,
                     struct path *path, const struct level *up) {
  struct level here = {ino, up};
  struct listing list;
  read_dir(vol, ino, path, &list);
  for (size_t i = 0; i < list.n_entries; i++) {
    size_t mark = path_push(path, list.entries[i].name);
    dump_entry(vol, list.entries[i].ino, path, &here);
    path_pop(path, mark);
  }
  listing_fini(&list);
}

/* ---- Commands ------------------------------------------------------------ */

static ext2_ino_t look_up(const struct volume *vol, const char *path) {
  ext2_ino_t ino = 0;
  check(vol,
        ext2fs_namei_follow(vol->fs, EXT2_ROOT_INO, EXT2_ROOT_INO, path, &ino),
        path);
  return ino;
}

static void command_ls(const struct volume *vol, const char *name,
                       bool recursive) {
  struct path path = {.len = 0};
  struct ext2_inode inode;
  ext2_ino_t ino = look_up(vol, name);
  path_push(&path, name);
  read_inode(vol, ino, name, &inode);
  if (LINUX_S_ISDIR(inode.i_mode))
    list_dir(vol, ino, &path, recursive, NULL);
  else
    list_one(vol, ino, &inode, name);
}

static void command_cat(const struct volume *vol, const char *name) {
  struct ext2_inode inode;
  ext2_ino_t ino = look_up(vol, name);
  read_inode(vol, ino, name, &inode);
  if (!LINUX_S_ISREG(inode.i_mode))
    fail(name, "not a regular file");
  copy_file(vol, ino, name, STDOUT_FILENO, false);
}

static void command_dump(const struct volume *vol, const char *name,
                         const char *dir) {
  struct path path = {.len = 0};
  ext2_ino_t ino = look_up(vol, name);
  path_push(&path, dir);
  if (mkdir(dir, 0777) < 0 && errno != EEXIST)
    fail(dir, "create: %s", strerror(errno));

  char *copy = strdup(name);
  if (!copy)
    fail(name, "no memory");
  for (size_t n = strlen(copy); n > 0 && copy[n - 1] == '/'; n--)
    copy[n - 1] = '\0';
  const char *slash = strrchr(copy, '/');
  const char *base = slash ? slash + 1 : copy;
  if (strcmp(base, ".") == 0 || strcmp(base, "..") == 0)
    fail(name, "end it in a name, or in /");
  if (ino == EXT2_ROOT_INO || !*base) {
    dump_dir(vol, ino, &path, NULL);
  } else {
    path_push(&path, base);
    dump_entry(vol, ino, &path, NULL);
  }
  free(copy);
}

static int usage(void) {
  fputs("usage: ext4cat [--offset BYTES] URI ls [-R] PATH\n"
        "       ext4cat [--offset BYTES] URI cat PATH\n"
        "       ext4cat [--offset BYTES] URI dump PATH DIR\n",
        stderr);
  return 2;
}

struct command {
  const char *uri;
  uint64_t offset;
  enum { LS, LS_ALL, CAT, DUMP } verb;
  const char *path, *dir;
};

static bool parse_offset(const char *arg, uint64_t *out) {
  char *end;
  errno = 0;
  *out = strtoull(arg, &end, 0);
  return arg[0] >= '0' && arg[0] <= '9' && !*end && !errno;
}

static bool parse(int argc, char **argv, struct command *out) {
  int i = 1;
  if (argc > 2 && strcmp(argv[1], "--offset") == 0) {
    if (!parse_offset(argv[2], &out->offset))
      return false;
    i = 3;
  }
  int n = argc - i;
  if (n < 3)
    return false;
  const char *verb = argv[i + 1];
  out->uri = argv[i];
  out->path = argv[i + 2];
  if (n == 4 && strcmp(verb, "ls") == 0 && strcmp(out->path, "-R") == 0) {
    out->verb = LS_ALL;
    out->path = argv[i + 3];
  } else if (n == 3 && strcmp(verb, "ls") == 0) {
    out->verb = LS;
  } else if (n == 3 && strcmp(verb, "cat") == 0) {
    out->verb = CAT;
  } else if (n == 4 && strcmp(verb, "dump") == 0) {
    out->verb = DUMP;
    out->dir = argv[i + 3];
  } else {
    return false;
  }
  return true;
}

static void run(const struct command *cmd, cachet *c) {
  struct volume vol;
  if (cmd->offset > cachet_size(c))
    fail("the image", "it has %" PRIu64 " bytes", cachet_size(c));
  check(&vol, volume_open(&vol, c, cmd->offset), "the image");
  if (ext2fs_has_feature_journal_needs_recovery(vol.fs->super))
    fputs("ext4cat: its journal is not empty; what it holds is not seen\n",
          stderr);
  switch (cmd->verb) {
  case LS:
  case LS_ALL:
    command_ls(&vol, cmd->path, cmd->verb == LS_ALL);
    break;
  case CAT:
    command_cat(&vol, cmd->path);
    break;
  case DUMP:
    command_dump(&vol, cmd->path, cmd->dir);
    break;
  }
  volume_close(&vol);
}

int main(int argc, char **argv) {
  struct command cmd = {0};
  if (!parse(argc, argv, &cmd))
    return usage();
  initialize_ext2_error_table();
  cachet *c = NULL;
  struct cachet_options options = {.struct_size = sizeof options,
                                   .flags = CACHET_ONE_EPOCH};
  struct cachet_error err;
  if (cachet_open(cmd.uri, &options, &c, &err) != CACHET_OK) {
    fprintf(stderr, "ext4cat: %s\n", err.message);
    return 1;
  }
  run(&cmd, c);
  cachet_close(c);
  return ferror(stdout) || fflush(stdout) ? 1 : 0;
}
