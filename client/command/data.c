#include "client/command/data.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "client/command/progress.h"
#include "client/command/stdout.h"

/* ---- cat ----------------------------------------------------------------- */

#define CAT_CHUNK_LEN (256u << 10)

static size_t least(uint64_t a, size_t b) { return a < b ? (size_t)a : b; }

/* Copies bytes from byte `addr` on: `*n` at most, all of one page. */
static enum cachet_status read_in_page(cachet *c, uint64_t addr, uint8_t *buf,
                                       size_t *n) {
  struct cachet_slice page;
  enum cachet_status status = cachet_load(c, addr, 1, &page);
  if (status != CACHET_OK)
    return status;
  size_t in_page = (size_t)(addr - page.offset);
  *n = least(*n, page.length - in_page);
  memcpy(buf, page.data + in_page, *n);
  cachet_release(c, &page);
  return CACHET_OK;
}

/* False: the image could not be read, or not in the version that it had when it
 * was opened; a failed output ends it too.  What is good before a page that
 * cannot be read is written: a chunk that fails is read again page by page. */
static bool cat(cachet *c, uint64_t offset, uint64_t len, uint8_t *buf) {
  struct progress p = progress_begin("cat", len);
  bool ok = true;
  for (uint64_t done = 0, by_page_until = 0; done < len;) {
    size_t n = least(len - done, CAT_CHUNK_LEN);
    bool is_by_page = done < by_page_until;
    enum cachet_status status = is_by_page
                                    ? read_in_page(c, offset + done, buf, &n)
                                    : cachet_read(c, offset + done, buf, n);
    if (status == CACHET_E_IO && !is_by_page) {
      by_page_until = done + n;
      continue;
    }
    ok = status == CACHET_OK;
    if (!ok)
      break;
    done += n;
    if (!stdout_bytes(buf, n))
      break;
    progress_show(&p, done);
  }
  progress_end(&p);
  return ok;
}

int data_cat(const struct command *cmd) {
  cachet *c = command_open(cmd);
  if (!c)
    return 1;
  uint64_t size = cachet_size(c), len = cmd->length;
  int exit_status = 0;
  uint8_t *buf = malloc(CAT_CHUNK_LEN);
  if (!buf)
    exit_status = command_fail("no memory");
  else if (cmd->offset > size)
    exit_status = command_fail("cat: the offset is past the end");
  else if (!cat(c, cmd->offset,
                len < size - cmd->offset ? len : size - cmd->offset, buf))
    exit_status = command_fail("%s", cachet_errmsg(c));
  free(buf);
  cachet_close(c);
  return stdout_end() ? 1 : exit_status;
}

/* ---- get ----------------------------------------------------------------- */

#define PRINTER(name, type, format)                                            \
  static enum cachet_status print_##name(cachet *c, uint64_t addr) {           \
    type value;                                                                \
    enum cachet_status status = cachet_get_##name(c, addr, &value);            \
    if (status == CACHET_OK)                                                   \
      stdout_print("%" format "\n", value);                                    \
    return status;                                                             \
  }

#define PRINTERS(bits)                                                         \
  PRINTER(u##bits##le, uint##bits##_t, PRIu##bits)                             \
  PRINTER(u##bits##be, uint##bits##_t, PRIu##bits)                             \
  PRINTER(u##bits##ne, uint##bits##_t, PRIu##bits)                             \
  PRINTER(i##bits##le, int##bits##_t, PRId##bits)                              \
  PRINTER(i##bits##be, int##bits##_t, PRId##bits)                              \
  PRINTER(i##bits##ne, int##bits##_t, PRId##bits)

PRINTER(u8, uint8_t, PRIu8)
PRINTER(i8, int8_t, PRId8)
PRINTERS(16)
PRINTERS(32)
PRINTERS(64)

#define NAMED(name)                                                            \
  { #name, print_##name }
#define NAMED_ALL(bits)                                                        \
  NAMED(u##bits##le), NAMED(u##bits##be), NAMED(u##bits##ne),                  \
      NAMED(i##bits##le), NAMED(i##bits##be), NAMED(i##bits##ne)

static const struct printer {
  const char *type;
  enum cachet_status (*print)(cachet *c, uint64_t addr);
} printers[] = {
    NAMED(u8), NAMED(i8), NAMED_ALL(16), NAMED_ALL(32), NAMED_ALL(64),
};

static const struct printer *printer_find(const char *type) {
  for (size_t i = 0; i < sizeof printers / sizeof printers[0]; i++)
    if (!strcmp(printers[i].type, type))
      return &printers[i];
  return NULL;
}

bool data_knows(const char *type) { return printer_find(type) != NULL; }

int data_get(const struct command *cmd) {
  uint64_t addr = cmd->offset;
  cachet *c = command_open(cmd);
  if (!c)
    return 1;
  int exit_status = 0;
  if (printer_find(cmd->args[1])->print(c, addr) != CACHET_OK)
    exit_status = command_fail("%s", cachet_errmsg(c));
  cachet_close(c);
  return stdout_end() ? 1 : exit_status;
}
