#include "daemon/locked_code.h"

#include <errno.h>
#include <link.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

static int lock_segment(uintptr_t begin, uintptr_t end) {
  uintptr_t in_page = begin % (uintptr_t)sysconf(_SC_PAGESIZE);
  return mlock2((void *)(begin - in_page), end - begin + in_page,
                MLOCK_ONFAULT);
}

/* Of the program or a library; a non-zero result ends the walk. */
static int lock_object(struct dl_phdr_info *object, size_t len, void *unused) {
  (void)len;
  (void)unused;
  for (int i = 0; i < object->dlpi_phnum; i++) {
    const ElfW(Phdr) *segment = &object->dlpi_phdr[i];
    uintptr_t begin = object->dlpi_addr + segment->p_vaddr;
    if (segment->p_type == PT_LOAD && segment->p_memsz > 0 &&
        lock_segment(begin, begin + segment->p_memsz) < 0)
      return -errno;
  }
  return 0;
}

int locked_code_keep(void) { return dl_iterate_phdr(lock_object, NULL); }
