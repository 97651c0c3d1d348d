#include "tests/bench/block_trace.h"

#include <errno.h>
#include <et/com_err.h>
#include <ext2fs/ext2_fs.h>
#include <ext2fs/ext2fs.h>
#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/bench/rig.h"

static void check(errcode_t err, const char *path) {
  if (err)
    rig_fail("%s: %s", path, error_message(err));
}

/* ---- The blocks that libext2fs asks for ---------------------------------- */

/* Where channel_read() writes to: an io_manager has no argument. */
static struct sim_trace *tracing;
static size_t max_reads;

static void trace_add(uint64_t page) {
  struct sim_trace *t = tracing;
  if (t->n_reads == max_reads) {
    max_reads = max_reads ? 2 * max_reads : 1 << 16;
    t->reads = reallocarray(t->reads, max_reads, sizeof *t->reads);
    if (!t->reads)
      rig_fail("no memory");
  }
  if (page >= t->n_pages)
    t->n_pages = (uint32_t)page + 1;
  t->reads[t->n_reads++] = (uint32_t)page;
}

/* A negative `count` is in bytes. */
static errcode_t channel_read_blk64(io_channel channel,
                                    unsigned long long block, int count,
                                    void *data) {
  uint64_t first = block * (uint64_t)channel->block_size;
  uint64_t len = count < 0 ? (uint64_t) - (int64_t)count
                           : (uint64_t)count * (uint64_t)channel->block_size;
  for (uint64_t page = first / RIG_PAGE; page * RIG_PAGE < first + len; page++)
    trace_add(page);
  return unix_io_manager->read_blk64(channel, block, count, data);
}

static errcode_t channel_read_blk(io_channel channel, unsigned long block,
                                  int count, void *data) {
  return channel_read_blk64(channel, block, count, data);
}

/* libext2fs's own, but that it says what is read. */
static struct struct_io_manager tracer;

static ext2_filsys open_traced(const char *image) {
  ext2_filsys fs;
  check(ext2fs_open(image, EXT2_FLAG_64BITS, 0, 0, unix_io_manager, &fs),
        image);
  tracer = *unix_io_manager;
  tracer.read_blk = channel_read_blk;
  tracer.read_blk64 = channel_read_blk64;
  fs->io->manager = &tracer;
  return fs;
}

/* ---- Names --------------------------------------------------------------- */

struct name {
  char *path;
  ext2_ino_t ino;
};

static int compare_names(const void *a, const void *b) {
  return strcmp(((const struct name *)a)->path, ((const struct name *)b)->path);
}

static void free_name(void *name) {
  free(((struct name *)name)->path);
  free(name);
}

/* The inode of a path; looks each name up in its directory once. */
static ext2_ino_t look_up(ext2_filsys fs, void **names, const char *path) {
  ext2_ino_t parent = EXT2_ROOT_INO;
  const char *slash = strrchr(path, '/');
  if (!slash || !slash[1])
    return EXT2_ROOT_INO;
  struct name key = {.path = (char *)path}, *const *found = tfind(
                                                &key, names, compare_names);
  if (found)
    return (*found)->ino;
  struct name *name = malloc(sizeof *name);
  if (!name || !(name->path = strdup(path)))
    rig_fail("no memory");
  if (slash > path) {
    char *up = strndup(path, (size_t)(slash - path));
    if (!up)
      rig_fail("no memory");
    parent = look_up(fs, names, up);
    free(up);
  }
  check(ext2fs_lookup(fs, parent, slash + 1, (int)strlen(slash + 1), NULL,
                      &name->ino),
        path);
  if (!tsearch(name, names, compare_names))
    rig_fail("no memory");
  return name->ino;
}

/* ---- What a program did -------------------------------------------------- */

static int pass_by(struct ext2_dir_entry *entry, int offset, int block_size,
                   char *block, void *arg) {
  (void)entry, (void)offset, (void)block_size, (void)block, (void)arg;
  return 0;
}

/* The file that was read last stays open, as in the program. */
struct replay {
  ext2_filsys fs;
  void *names; /* of tsearch(3) */
  ext2_file_t file;
  ext2_ino_t ino; /* of that; 0: none */
};

static void read_file(struct replay *r, ext2_ino_t ino, uint64_t offset,
                      uint64_t len, const char *path) {
  static char data[1 << 20];
  if (r->ino != ino) {
    if (r->ino)
      check(ext2fs_file_close(r->file), path);
    check(ext2fs_file_open(r->fs, ino, 0, &r->file), path);
    r->ino = ino;
  }
  check(ext2fs_file_llseek(r->file, offset, EXT2_SEEK_SET, NULL), path);
  while (len > 0) {
    unsigned n = len < sizeof data ? (unsigned)len : (unsigned)sizeof data;
    check(ext2fs_file_read(r->file, data, n, &n), path);
    if (n == 0)
      rig_fail("%s: shorter than what was read of it", path);
    len -= n;
  }
}

static void replay_line(struct replay *r, char *line, const char *log) {
  char what;
  unsigned long long offset, len;
  int path_at = 0;
  struct ext2_inode inode;
  line[strcspn(line, "\n")] = '\0';
  if (sscanf(line, "%c %llu %llu %n", &what, &offset, &len, &path_at) != 3 ||
      !path_at)
    rig_fail("%s: \"%s\" is no line of the recorder's", log, line);
  const char *path = line + path_at;
  ext2_ino_t ino = look_up(r->fs, &r->names, path);
  if (what == 'S')
    check(ext2fs_read_inode(r->fs, ino, &inode), path);
  else if (what == 'D')
    check(ext2fs_dir_iterate(r->fs, ino, 0, NULL, pass_by, NULL), path);
  else
    read_file(r, ino, offset, len, path);
}

void block_trace_make(struct sim_trace *out, const char *image,
                      const char *log) {
  char *line = NULL;
  size_t max_line = 0;
  FILE *f = fopen(log, "re");
  if (!f)
    rig_fail("%s: open: %s", log, strerror(errno));
  tracing = out;
  max_reads = 0;
  struct replay r = {.fs = open_traced(image)};
  while (getline(&line, &max_line, f) > 0)
    replay_line(&r, line, log);
  if (r.ino)
    check(ext2fs_file_close(r.file), log);
  tdestroy(r.names, free_name);
  r.fs->io->manager = unix_io_manager;
  check(ext2fs_close(r.fs), image);
  free(line);
  fclose(f);
}
