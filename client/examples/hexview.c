/* hexview: prints data structures of a disk image, with the typed getters.
 *
 *   hexview URI
 *
 * Prints the GPT's header and partitions, and the ext2/3/4 superblock of each
 * Linux partition.  It treats an image without a GPT as one file system.  It
 * reads each field with one call that names the field's type and address: the
 * library loads the page, checks the bounds and swaps the bytes.
 *
 * The program does not trust the image.  An address from the image may be past
 * its end; then the call fails with CACHET_E_BOUNDS.  If the image is replaced
 * during the run, calls fail with CACHET_E_CHANGED because of
 * CACHET_ONE_EPOCH: addresses from the old version have no meaning in the new
 * one.  Any failure ends the program with status 1. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cachet/cachet.h>

#define EXT_SUPERBLOCK 1024   /* where it is in a file system */
#define GPT_MAX_ENTRIES 1024u /* the program ignores more; 128 is usual */

static void check(cachet *c, enum cachet_status status) {
  if (status == CACHET_OK)
    return;
  const char *why = cachet_errmsg(c);
  fprintf(stderr, "hexview: %s\n", *why ? why : cachet_strerror(status));
  exit(1);
}

static uint16_t u16(cachet *c, uint64_t addr) {
  uint16_t value = 0;
  check(c, cachet_get_u16le(c, addr, &value));
  return value;
}

static uint32_t u32(cachet *c, uint64_t addr) {
  uint32_t value = 0;
  check(c, cachet_get_u32le(c, addr, &value));
  return value;
}

static uint64_t u64(cachet *c, uint64_t addr) {
  uint64_t value = 0;
  check(c, cachet_get_u64le(c, addr, &value));
  return value;
}

/* The address of a sector.  If it does not fit into 64 bits, the result is past
 * the end of any image, and the getters fail. */
static uint64_t sector_addr(uint64_t lba, uint32_t sector) {
  uint64_t addr;
  return __builtin_mul_overflow(lba, sector, &addr) ? UINT64_MAX - 4096 : addr;
}

static bool has_magic(cachet *c, uint64_t addr, const char *magic) {
  size_t len = strlen(magic);
  if (addr > cachet_size(c) || cachet_size(c) - addr < len)
    return false;
  char *bytes = NULL;
  check(c, cachet_get_string(c, addr, len, &bytes));
  bool same = memcmp(bytes, magic, len) == 0;
  free(bytes);
  return same;
}

static int printable(int byte) {
  return byte >= ' ' && byte < 0x7f ? byte : '?';
}

/* Text of at most `len` bytes, up to a NUL. */
static void print_text(cachet *c, uint64_t addr, size_t len) {
  char *text = NULL;
  check(c, cachet_get_string(c, addr, len, &text));
  for (const char *p = text; *p; p++)
    putchar(printable((unsigned char)*p));
  free(text);
}

/* UTF-16, of which it prints only ASCII. */
static void print_utf16(cachet *c, uint64_t addr, size_t n_units) {
  for (size_t i = 0; i < n_units; i++) {
    uint16_t unit = u16(c, addr + 2 * i);
    if (!unit)
      return;
    putchar(printable(unit));
  }
}

/* Bytes `first` to `first + n - 1` of a UUID, in the order in which they are
 * stored. */
static void print_uuid_bytes(cachet *c, uint64_t addr, int first, int n) {
  for (int i = first; i < first + n; i++) {
    uint8_t byte = 0;
    check(c, cachet_get_u8(c, addr + (uint64_t)i, &byte));
    printf("%s%02x", i == 8 || i == 10 ? "-" : "", byte);
  }
}

/* A GPT stores a GUID's first three parts little-endian. */
static void print_guid(cachet *c, uint64_t addr) {
  printf("%08" PRIx32 "-%04x-%04x", u32(c, addr), u16(c, addr + 4),
         u16(c, addr + 6));
  print_uuid_bytes(c, addr, 8, 8);
}

/* ext4 stores a UUID in the order in which it is written. */
static void print_uuid(cachet *c, uint64_t addr) {
  print_uuid_bytes(c, addr, 0, 4);
  putchar('-');
  print_uuid_bytes(c, addr, 4, 2);
  putchar('-');
  print_uuid_bytes(c, addr, 6, 10);
}

/* A hexadecimal dump of one slice, which may cross pages. */
static void dump(cachet *c, uint64_t addr, uint64_t len) {
  struct cachet_slice s;
  enum cachet_status status = cachet_map(c, addr, len, &s);
  if (status == CACHET_END)
    return;
  check(c, status);
  for (size_t i = 0; i < s.length; i += 16) {
    size_t n = s.length - i < 16 ? s.length - i : 16;
    printf("  %010" PRIx64 " ", addr + i);
    for (size_t k = 0; k < n; k++)
      printf(" %02x", s.data[i + k]);
    printf("%*s", (int)(3 * (16 - n)) + 2, "");
    for (size_t k = 0; k < n; k++)
      putchar(printable(s.data[i + k]) == s.data[i + k] ? s.data[i + k] : '.');
    putchar('\n');
  }
  cachet_release(c, &s);
}

static void show_ext(cachet *c, uint64_t start) {
  uint64_t sb = start + EXT_SUPERBLOCK;
  uint64_t size = cachet_size(c);
  if (start > size || size - start < 2 * EXT_SUPERBLOCK ||
      u16(c, sb + 0x38) != 0xef53) {
    printf("  no ext4 superblock\n");
    return;
  }
  bool is_64bit = u32(c, sb + 0x60) & 0x80;
  uint64_t n_blocks = u32(c, sb + 0x04), n_free = u32(c, sb + 0x0c);
  if (is_64bit) {
    n_blocks |= (uint64_t)u32(c, sb + 0x150) << 32;
    n_free |= (uint64_t)u32(c, sb + 0x158) << 32;
  }
  uint32_t log_block_size = u32(c, sb + 0x18);
  uint16_t state = u16(c, sb + 0x3a);
  printf("  ext4 label \"");
  print_text(c, sb + 0x78, 16);
  printf("\", uuid ");
  print_uuid(c, sb + 0x68);
  printf("\n  %" PRIu64 " blocks", n_blocks);
  if (log_block_size <= 6) /* 64 KiB; more is not ext4 */
    printf(" of %u bytes", 1024u << log_block_size);
  printf(", %" PRIu64 " free, %s%s\n", n_free,
         state & 1 ? "clean" : "not cleanly unmounted",
         state & 2 ? ", with errors" : "");
  dump(c, sb, 64);
}

static void show_partition(cachet *c, uint64_t entry, uint32_t number,
                           uint32_t sector) {
  uint64_t first = u64(c, entry + 32), last = u64(c, entry + 40);
  printf("\npartition %" PRIu32 " \"", number);
  print_utf16(c, entry + 56, 36);
  printf("\", sectors %" PRIu64 " to %" PRIu64 "\n  type ", first, last);
  print_guid(c, entry);
  printf("\n  guid ");
  print_guid(c, entry + 16);
  printf("\n");
  /* 0FC63DAF-8483-4772-8E79-3D69D8477DE4: Linux file system data */
  if (u64(c, entry) == 0x477284830fc63daf &&
      u64(c, entry + 8) == 0xe47d47d8693d798e)
    show_ext(c, sector_addr(first, sector));
}

static void show_gpt(cachet *c, uint32_t sector) {
  uint64_t header = sector;
  printf("protective MBR: %s\n",
         u16(c, 510) == 0xaa55 ? "signed 55 aa" : "no signature");
  printf("GPT: sectors of %" PRIu32 " bytes, usable %" PRIu64 " to %" PRIu64
         "\ndisk ",
         sector, u64(c, header + 40), u64(c, header + 48));
  print_guid(c, header + 56);
  printf("\n");
  dump(c, header, 96);

  uint64_t table = sector_addr(u64(c, header + 72), sector);
  uint32_t n_entries = u32(c, header + 80), entry_len = u32(c, header + 84);
  if (entry_len < 128 || entry_len > 4096) {
    fprintf(stderr, "hexview: GPT entries of %" PRIu32 " bytes\n", entry_len);
    exit(1);
  }
  if (n_entries > GPT_MAX_ENTRIES)
    n_entries = GPT_MAX_ENTRIES;
  for (uint32_t i = 0; i < n_entries; i++) {
    uint64_t entry = table + (uint64_t)i * entry_len;
    if (u64(c, entry) || u64(c, entry + 8)) /* a type of zero: unused */
      show_partition(c, entry, i + 1, sector);
  }
}

int main(int argc, char **argv) {
  if (argc != 2) {
    fprintf(stderr, "usage: hexview URI\n");
    return 2;
  }
  cachet *c = NULL;
  struct cachet_options options = {.struct_size = sizeof options,
                                   .flags = CACHET_ONE_EPOCH};
  struct cachet_error err;
  if (cachet_open(argv[1], &options, &c, &err) != CACHET_OK) {
    fprintf(stderr, "hexview: %s\n", err.message);
    return 1;
  }
  printf("%" PRIu64 " bytes, pages of %zu\n", cachet_size(c),
         cachet_page_size(c));
  if (has_magic(c, 512, "EFI PART")) {
    show_gpt(c, 512);
  } else if (has_magic(c, 4096, "EFI PART")) {
    show_gpt(c, 4096);
  } else {
    printf("no GPT\n");
    show_ext(c, 0);
  }
  cachet_close(c);
  return ferror(stdout) || fflush(stdout) ? 1 : 0;
}
