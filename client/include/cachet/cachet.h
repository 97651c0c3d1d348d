/* libcachet-client: page-by-page read access to images, through a cache.
 *
 * An image is a named, read-only array of bytes.  A handle (`cachet *`) reads
 * one image through a bounded cache of its pages: the cache of this process
 * (a file, a block device, what a server has, or a function of yours), or a
 * daemon's.  On a Unix socket it reads the daemon's memory itself, if the
 * daemon shares it.  The calls are Cachet's, the OCaml library's: load, next,
 * map, get, iter, seq.
 *
 * A whole life: open, load the first page, look, release; then page by page
 * over the image; close.
 *
 *   #include <cachet/cachet.h>
 *   #include <inttypes.h>
 *   #include <stdio.h>
 *
 *   int main(int argc, char **argv) {
 *     const char *uri = argc > 1 ? argv[1] : "cachet+unix:///disk.img";
 *     struct cachet_error err;
 *     cachet *c;
 *     if (cachet_open(uri, NULL, &c, &err) != CACHET_OK) {
 *       fprintf(stderr, "%s\n", err.message);
 *       return 1;
 *     }
 *
 *     // A page is read where it is.  It stays so until it is released.
 *     struct cachet_slice page;
 *     uint16_t signature;
 *     if (cachet_load(c, 510, sizeof signature, &page) == CACHET_OK) {
 *       if (cachet_slice_u16le(&page, 510, &signature))
 *         printf("signature %04" PRIx16 "\n", signature);
 *       cachet_release(c, &page);
 *     }
 *
 *     uint64_t sum = 0;
 *     enum cachet_status status = cachet_load(c, 0, 0, &page);
 *     while (status == CACHET_OK) {
 *       for (size_t i = 0; i < page.length; i++)
 *         sum += page.data[i];
 *       cachet_release(c, &page);
 *       status = cachet_next(c, &page, &page);
 *     }
 *     if (status == CACHET_END)
 *       printf("sum %" PRIu64 "\n", sum);
 *     else
 *       fprintf(stderr, "%s\n", cachet_errmsg(c));
 *     cachet_close(c);
 *     return status == CACHET_END ? 0 : 1;
 *   }
 *
 * Threads.  A handle belongs to one thread at a time: no two calls on the same
 * handle may run at once, from whatever thread.  For another thread take
 * another handle, by cachet_copy().  Handles share what they cache, and that
 * is synchronised inside.  The library installs no signal handler and keeps no
 * global state but a table of the daemons' memory that is mapped, which is
 * locked inside, and a number for debugging.  It starts no thread, unless an
 * image is opened from another server than a daemon: then one, with all
 * signals blocked, which stays, and others of the libraries that it needs.
 *
 * Fork.  A handle does not survive fork() in the child: there each call that
 * can fail returns CACHET_E_FORKED, and only cachet_close() is of use.  The
 * parent's handle is undisturbed.  The child may open handles of its own.  It
 * may close all descriptors, or put other files in their place: cachet_close()
 * closes none there but the handle's own connection.
 *
 * Errors.  Each call returns a status.  Out-parameters are set on CACHET_OK
 * only.  cachet_errmsg() has the message of the last failure.  A page that
 * cannot be read is CACHET_E_IO for the calls that need that page, and for no
 * other; the message says which bytes it is.
 *
 * Pages.  "Loads at most n pages" says how many pages a call may have to bring
 * in from where the image lives; pages that are cached cost nothing of that
 * kind.  cachet_pages() computes the number beforehand.  A call that loads no
 * page never waits.
 *
 * Debugging.  With CACHET_DEBUG=1 in the environment when a handle is opened
 * the library writes what that handle does to standard error, a line an event:
 * to which daemon it connects, whether it attaches to its memory, which pages
 * it misses and waits for, and what it gives up.  A hit is no event.  Lines
 * hold names and numbers, no bytes of an image; their text may change.
 * Since 1.2.
 *
 * Other languages.  Each function of this header, the inline ones too, is a
 * symbol of libcachet-client.so.1, under its own name: a binding finds it by
 * dlsym(3), or as its language finds the functions of C.  Macros and enums are
 * fixed numbers, to be copied; the structs grow at their end only where they
 * begin with `struct_size`.
 *
 * Offsets, addresses and lengths are in bytes.  64-bit Linux, C11 and C++17.
 * All of it is there since 1.0, but for what says otherwise. */
#ifndef CACHET_CACHET_H
#define CACHET_CACHET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/* CACHET_NONNULL: the pointers that must not be NULL; others may be where the
 * call says so.  CACHET_CHECKED: calls that give a slice or many bytes, where
 * going on without a look at the result is to use what is not there. */
#if defined(__GNUC__)
#define CACHET_API __attribute__((visibility("default")))
#define CACHET_NONNULL(...) __attribute__((nonnull(__VA_ARGS__)))
#define CACHET_CHECKED __attribute__((warn_unused_result))
#else
#define CACHET_API
#define CACHET_NONNULL(...)
#define CACHET_CHECKED
#endif

/* What is small enough to be compiled into its caller.  (The library defines it
 * otherwise, to have such functions as symbols too.) */
#ifndef CACHET_INLINE
#define CACHET_INLINE static inline
#endif

/* The version of this header, by the rules of semantic versions: what is
 * compiled against it runs with every library of the same CACHET_VERSION_MAJOR
 * that is not older.  Since 1.2. */
#define CACHET_VERSION_MAJOR 1
#define CACHET_VERSION_MINOR 2
#define CACHET_VERSION_PATCH 0
#define CACHET_VERSION_STRING                                                  \
  CACHET_DOTTED_(CACHET_VERSION_MAJOR, CACHET_VERSION_MINOR,                   \
                 CACHET_VERSION_PATCH)
#define CACHET_DOTTED_(major, minor, patch) CACHET_QUOTED_(major.minor.patch)
#define CACHET_QUOTED_(text) #text

/* The version of the library that runs, as CACHET_VERSION_STRING was when it
 * was built: "1.2.0".  In static storage; from any thread.  Since 1.2. */
CACHET_API const char *cachet_version(void);

/* As a uint64_t length: up to the end of the image. */
#define CACHET_TO_END UINT64_MAX

/* What a call came to.  The numbers are fixed and only ever gain. */
enum cachet_status {
  CACHET_OK = 0,
  CACHET_END = 1,             /* at or past the end, or fewer bytes in that
                                 page than asked for */
  CACHET_E_INVAL = -1,        /* an argument that can never be right */
  CACHET_E_BOUNDS = -2,       /* the bytes asked for reach past the end */
  CACHET_E_NOMEM = -3,        /* no memory, or no address space */
  CACHET_E_IO = -4,           /* the image could not be read */
  CACHET_E_NOIMAGE = -5,      /* there is no image of that name */
  CACHET_E_ACCESS = -6,       /* not permitted */
  CACHET_E_CONN = -7,         /* no connection to the daemon */
  CACHET_E_PROTO = -8,        /* the other side broke the protocol */
  CACHET_E_TIMEOUT = -9,      /* no answer in time */
  CACHET_E_BUSY = -10,        /* too many slices held */
  CACHET_E_FORKED = -11,      /* a handle of the parent process */
  CACHET_E_CANCELED = -12,    /* cancelled, or the handle was closed */
  CACHET_E_CHANGED = -13,     /* the image changed during a seq or an iter, or
                                 again and again during a read; or since a
                                 handle with CACHET_ONE_EPOCH was opened */
  CACHET_E_UNSUPPORTED = -14, /* not possible here */
};

/* A handle: one thread's view of one image.  Opaque. */
typedef struct cachet cachet;

/* An asynchronous call that is under way.  Opaque; lives until its callback
 * has returned. */
struct cachet_request;

/* What went wrong where there is no handle to ask. */
struct cachet_error {
  enum cachet_status code;
  int sys_errno; /* errno of the system call behind it, or 0 */
  char message[256];
};

/* A short English name of a status, in static storage; never NULL. */
CACHET_API const char *cachet_strerror(enum cachet_status status);

/* The message of the last failure on this handle, which names the object and
 * the act; inside a callback, that of the callback's request.  Never NULL; ""
 * before the first failure.  Valid until the next call on the handle. */
CACHET_API const char *cachet_errmsg(const cachet *c) CACHET_NONNULL(1);

/* Copies the status, the errno and the message of the last failure to `*out`:
 * CACHET_OK, 0 and "" before the first one.  CACHET_END is no failure.  Loads
 * no page; works in a forked child, too.  Since 1.2. */
CACHET_API void cachet_last_error(const cachet *c, struct cachet_error *out)
    CACHET_NONNULL(1, 2);

/* ---- Opening and closing ------------------------------------------------- */

/* ---- cachet_options.flags ---- */

/* Read by the socket, never in the daemon's memory. */
#define CACHET_NO_SHARED_MEMORY (1u << 0)

/* Load what is asked for, no more.  Without it a handle that is read from front
 * to back asks for pages ahead, and does not wait for them: 1024 at most, or,
 * over a socket, up to 64 MiB (see `cache_size`). */
#define CACHET_NO_READAHEAD (1u << 1)

/* Bytes of one version of the image only: see cachet_adopt_epoch().  Since 1.1.
 */
#define CACHET_ONE_EPOCH (1u << 2)

/* How to open.  Begin with CACHET_OPTIONS_INIT, or zero it and set
 * `struct_size` to sizeof; then set what matters: 0 is the default everywhere.
 * It may grow at its end. */
struct cachet_options {
  size_t struct_size;
  uint32_t flags;
  uint32_t page_size;         /* 4096; a power of two up to 2 MiB.  It is the
                                 size of slices, and what cachet_pages() and
                                 the counters count; what is cached and read
                                 is at least 4096 bytes, and those are what
                                 hits cost least with.  (Under 4096 since
                                 1.2.)  A daemon's image has the daemon's page
                                 size, whatever stands here */
  uint64_t cache_size;        /* bytes; 4 MiB.  For handles that cache in this
                                 process.  Over a socket a handle holds besides
                                 what it has asked for before a call needs it:
                                 as much as the connection has under way in a
                                 round trip, twice that at most, and no more
                                 than 64 MiB.  It gives that back when the
                                 reader has taken it, goes elsewhere, or has not
                                 come for two seconds; but in a call only: a
                                 handle that is called no more keeps it until
                                 cachet_close() */
  int32_t connect_timeout_ms; /* 5000; -1: none */
  int32_t request_timeout_ms; /* 30000; -1: none.  For each wait for an answer:
                                 a long read may take several */
};

/* All defaults: struct cachet_options o = CACHET_OPTIONS_INIT;  Since 1.2. */
#define CACHET_OPTIONS_INIT                                                    \
  { sizeof(struct cachet_options), 0, 0, 0, 0, 0 }

/* Opens an image and stores a handle in `*out`.
 *
 *   disk.img, file:disk.img           a file or block device, in this process
 *   cachet+unix:///IMAGE?socket=PATH  an image of a daemon on a Unix socket
 *   cachet+unix:///IMAGE              the same, on the default socket:
 *                                     $CACHET_SOCKET, else
 *                                     $XDG_RUNTIME_DIR/cachetd.sock if it is
 *                                     there, else /run/cachetd/cachetd.sock
 *   cachet://HOST[:PORT]/IMAGE        an image of a daemon over TCP (10819)
 *   cachets://HOST[:PORT]/IMAGE?ca=FILE&cert=FILE&key=FILE
 *                                     the same through TLS 1.3 (10820)
 *   https://HOST/PATH, http:, s3://BUCKET/KEY, nbd://HOST/EXPORT, nbds:,
 *   nbd+unix:, nbds+unix:, rbd:POOL/IMAGE
 *                                     what a server has, read and cached in
 *                                     this process
 *
 * TLS, since 1.2: the daemon has to show a certificate for HOST that one in
 * `ca` has signed; without `ca`, one that the system knows.  `cert` is what
 * this side shows, if the daemon wants that, with its key in `key` or in the
 * same file.  All are in PEM, a key without a password.  It needs
 * libcachet-client-tls.so.1, which is loaded here and stays; a program without
 * such a URI loads no OpenSSL.  CACHET_E_ACCESS: the daemon does not accept the
 * certificate, or wants one; a handle that connects anew is told so by
 * the calls that wait for it.  CACHET_E_UNSUPPORTED: that library is not there.
 *
 * By HTTP, S3, NBD and RBD, since 1.2: options are KEY=VALUE behind a #, joined
 * by & and percent-encoded: those that cachetd(8) has for such an image, and
 * `fetch-size`, what a miss reads at least.  What stands before the # is the
 * server's, all of it.  A miss reads an aligned block, 512 KiB by HTTP and S3
 * and 128 KiB by NBD and RBD, as far as the cache has room for several; it is
 * tried again where that may help, for 30 seconds at most, whatever
 * request_timeout_ms says, on the calling thread, also in cachet_dispatch().
 * This needs libcachet-client-sources.so.1 and a module of the package cachetd,
 * or cachetd-rbd, which are loaded here and stay; a program without such a URI
 * loads no libcurl, libnbd, librbd or libevent.  CACHET_E_UNSUPPORTED: one of
 * them is not there.  Messages have neither the user of a URI nor what stands
 * behind its ?.
 *
 * A URI, of any kind, may open a part of the image: `?offset=N&length=N` (`&`
 * in place of the `?` where a query stands already).  By HTTP, S3, NBD and RBD
 * a `#` may stand in its place: then all of the query is the server's.
 * Address 0 is then byte `offset`, and the size is `length`, or up to the end;
 * a part that reaches past the end is CACHET_E_BOUNDS.  N is decimal or 0x,
 * with K, M, G or T behind it.  Pages stay those of the whole image, so that
 * nothing is cached twice: the first page of a part that begins within one is
 * short.  Where the image gets shorter later on, so does the part.  Since 1.2.
 *
 * What has no `scheme:` is a path.  URIs are percent-decoded, paths are not; in
 * file: a ? is written %3F, a # %23 and a comma %2C.  A socket's path may begin
 * with `unix:`, as an address of the daemon does.  An empty IMAGE means the
 * daemon's only image; the error for one that is not served names up to five
 * that are.  `options` and `err` may be NULL; `*err` is written on failure.
 *
 * Waits for the daemon at most connect_timeout_ms, for all of a host's
 * addresses together; looking up a host's name takes as long as getaddrinfo(3)
 * does.  Loads no page.  The caller owes one cachet_close().
 *
 * A file that is changed behind the cache: that is noticed when a page of it is
 * loaded, or when something past its end is asked for (a second after the last
 * look at the earliest), and then the image has a new epoch.  What is cached is
 * read without a look at the file: cachet_invalidate() tells of a change.
 *
 * Noticed is what size, inode and time stamps tell; of a block device, its
 * medium, its node's mtime and the writes that this kernel counts.  Where time
 * stamps have a grain (up to two seconds) a write within it may be hidden: what
 * was read of a file so young is read again by the first load after that time.
 * Not noticed are stores through a shared mapping that move no time stamp, and
 * writes to a device by another machine.  "Never mixes two epochs" means
 * contents that can be told apart by this.  A daemon notices the same, and can
 * be told to read again what is old: see "Changes of an image" in cachetd(8).
 */
CACHET_API enum cachet_status cachet_open(const char *uri,
                                          const struct cachet_options *options,
                                          cachet **out,
                                          struct cachet_error *err);

/* Where the bytes of an image come from when you bring them yourself. */
struct cachet_source {
  size_t struct_size; /* sizeof; it may grow at its end */
  uint64_t size;      /* of the image */
  void *ctx;          /* passed to each function */

  /* Points `*bytes` at the image's bytes from `pos` on and returns how many
   * there are, at most `len`; 0 past the end; a negative errno on failure.
   * `pos` is a multiple of the page size, and of 4096.  One atomic act: the
   * bytes are of one moment.  Never called twice at once, but on any thread
   * that holds a handle on this source.  The bytes are read before unmap is
   * called. */
  ssize_t (*map)(void *ctx, uint64_t pos, size_t len, const void **bytes);

  /* Ends what map returned; may be NULL. */
  void (*unmap)(void *ctx, const void *bytes, size_t len);

  /* Runs once, after the last handle is closed, on the thread that closed it;
   * may be NULL.  Does not run when cachet_make() fails. */
  void (*close)(void *ctx);
};

/* Makes a handle over a source of your own, cached in this process.  Copies
 * `*source`.  Loads no page.  Semantics: Cachet's `make`. */
CACHET_API enum cachet_status cachet_make(const struct cachet_source *source,
                                          const struct cachet_options *options,
                                          cachet **out,
                                          struct cachet_error *err);

/* The `ctx` of the source that the handle, or the one it is a copy of, was made
 * over; NULL for a handle from cachet_open().  Semantics: Cachet's `fd`.
 * Since 1.2. */
CACHET_API void *cachet_context(const cachet *c) CACHET_NONNULL(1);

/* Makes another handle on the same cache, with a connection, counters and pins
 * of its own, for another thread.  The call itself reads `c` and belongs to
 * the thread of `c`.  May wait for a daemon, as cachet_open() does; loads no
 * page.  Either handle may be closed first.
 *
 * The copy has the flags of `c`.  With CACHET_ONE_EPOCH it keeps to the same
 * epoch as `c`, so that several threads may copy one version of an image;
 * CACHET_E_CHANGED if the image has another one. */
CACHET_API enum cachet_status cachet_copy(cachet *c, cachet **out,
                                          struct cachet_error *err)
    CACHET_NONNULL(1);

/* Ends a handle: outstanding requests complete with CACHET_E_CANCELED, from
 * inside this call, and its slices end.  NULL is fine.  Not from a callback. */
CACHET_API void cachet_close(cachet *c);

/* ---- Loading ------------------------------------------------------------- */

/* A read-only view of a run of the image's bytes.  Byte 0 of `data` is byte
 * `offset` of the image.  The bytes stay readable, and the same, until
 * cachet_release(): through eviction, invalidation, a new epoch, the death of
 * the daemon.  Other threads may read `data`; only the handle's thread may
 * release it. */
struct cachet_slice {
  uint64_t offset;
  size_t length; /* the page size, less in the last page, or what map gave */
  const uint8_t *data;
  uint64_t pin;      /* private to the library */
  uint64_t reserved; /* private to the library */
};

/* Loads the page that holds byte `addr` and describes it in `*out`: `data` is
 * the page's first byte, `offset` its address.  Waits for the page if it is
 * not cached.  Loads at most one page.  Semantics: Cachet's `load`.
 *
 * Returns CACHET_OK, and the caller owes one cachet_release(); CACHET_END if
 * fewer than `min_len` bytes of that page lie at or after `addr`, or `addr` is
 * at or past the end; CACHET_E_INVAL if `min_len` is more than a page;
 * CACHET_E_BUSY if cachet_pin_limit() slices are held.  `min_len` 0 gives a
 * slice wherever there is a page. */
CACHET_API enum cachet_status
cachet_load(cachet *c, uint64_t addr, size_t min_len, struct cachet_slice *out)
    CACHET_NONNULL(1, 4) CACHET_CHECKED;

/* Loads the page at `slice->offset + slice->length`: CACHET_END when that is
 * the end.  Releases nothing; `out` may be `slice` once that one is released.
 * Loads at most one page.  Semantics: Cachet's `next`. */
CACHET_API enum cachet_status cachet_next(cachet *c,
                                          const struct cachet_slice *slice,
                                          struct cachet_slice *out)
    CACHET_NONNULL(1, 2, 3) CACHET_CHECKED;

/* Describes the `len` bytes from `addr` on as one contiguous slice, of any
 * number of pages, whose `offset` is `addr`.  Cut short at the image's end
 * (`length` says how much there is), CACHET_END when nothing is left.  `len`
 * 0 is CACHET_E_INVAL.  Never mixes two epochs: CACHET_E_CHANGED when the
 * image changed again and again meanwhile.  Loads at most
 * cachet_pages(c, addr, len) pages.  Semantics: Cachet's `map`. */
CACHET_API enum cachet_status cachet_map(cachet *c, uint64_t addr, uint64_t len,
                                         struct cachet_slice *out)
    CACHET_NONNULL(1, 4) CACHET_CHECKED;

/* Ends a slice.  A zeroed or an already released slice is left alone. */
CACHET_API void cachet_release(cachet *c, struct cachet_slice *slice)
    CACHET_NONNULL(1);

/* How many slices may be held on a handle at once: at least 64. */
CACHET_API size_t cachet_pin_limit(const cachet *c) CACHET_NONNULL(1);

/* Where byte `addr` of the image is in memory, or NULL if the slice does not
 * hold it. */
CACHET_INLINE CACHET_NONNULL(1) const uint8_t *cachet_slice_at(
    const struct cachet_slice *slice, uint64_t addr) {
  if (addr < slice->offset || addr - slice->offset >= slice->length)
    return NULL;
  return slice->data + (addr - slice->offset);
}

/* Each stores the integer at byte `addr` of the image in `*out`, if the slice
 * holds all of it; else it returns false and leaves `*out` alone.  For parsers
 * of a slice: no handle, no look-up, no page, no message, and from any thread
 * that may read the slice.  `addr` need not be aligned.  Types and byte orders
 * are those of the cachet_get_ calls:
 *
 *   bool cachet_slice_u8(const struct cachet_slice *slice, uint64_t addr,
 *                        uint8_t *out);
 *
 * and so on, to cachet_slice_i64ne() with an int64_t.  Since 1.2. */
#define CACHET_SLICE_GETTER_(name, type, bits, order)                          \
  CACHET_INLINE CACHET_NONNULL(1, 3) CACHET_CHECKED bool cachet_slice_##name(  \
      const struct cachet_slice *slice, uint64_t addr, type *out) {            \
    const uint8_t *at = cachet_slice_at(slice, addr);                          \
    uint##bits##_t raw;                                                        \
    if (!at || slice->length - (addr - slice->offset) < sizeof raw)            \
      return false;                                                            \
    memcpy(&raw, at, sizeof raw);                                              \
    *out = (type)CACHET_SWAP_##order##_(bits, raw);                            \
    return true;                                                               \
  }
#define CACHET_SWAP_ne_(bits, raw) (raw)
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
#define CACHET_SWAP_le_(bits, raw) __builtin_bswap##bits(raw)
#define CACHET_SWAP_be_(bits, raw) (raw)
#else
#define CACHET_SWAP_le_(bits, raw) (raw)
#define CACHET_SWAP_be_(bits, raw) __builtin_bswap##bits(raw)
#endif

CACHET_SLICE_GETTER_(u8, uint8_t, 8, ne)
CACHET_SLICE_GETTER_(i8, int8_t, 8, ne)
CACHET_SLICE_GETTER_(u16le, uint16_t, 16, le)
CACHET_SLICE_GETTER_(u16be, uint16_t, 16, be)
CACHET_SLICE_GETTER_(u16ne, uint16_t, 16, ne)
CACHET_SLICE_GETTER_(i16le, int16_t, 16, le)
CACHET_SLICE_GETTER_(i16be, int16_t, 16, be)
CACHET_SLICE_GETTER_(i16ne, int16_t, 16, ne)
CACHET_SLICE_GETTER_(u32le, uint32_t, 32, le)
CACHET_SLICE_GETTER_(u32be, uint32_t, 32, be)
CACHET_SLICE_GETTER_(u32ne, uint32_t, 32, ne)
CACHET_SLICE_GETTER_(i32le, int32_t, 32, le)
CACHET_SLICE_GETTER_(i32be, int32_t, 32, be)
CACHET_SLICE_GETTER_(i32ne, int32_t, 32, ne)
CACHET_SLICE_GETTER_(u64le, uint64_t, 64, le)
CACHET_SLICE_GETTER_(u64be, uint64_t, 64, be)
CACHET_SLICE_GETTER_(u64ne, uint64_t, 64, ne)
CACHET_SLICE_GETTER_(i64le, int64_t, 64, le)
CACHET_SLICE_GETTER_(i64be, int64_t, 64, be)
CACHET_SLICE_GETTER_(i64ne, int64_t, 64, ne)

#undef CACHET_SLICE_GETTER_
#undef CACHET_SWAP_ne_
#undef CACHET_SWAP_le_
#undef CACHET_SWAP_be_

/* ---- Getting ------------------------------------------------------------- */

/* Each stores the integer at `addr` in `*out`: u unsigned, i two's complement,
 * le little-endian, be big-endian, ne this machine's order.  `addr` need not
 * be aligned, and the value may cross pages.  CACHET_E_BOUNDS if it reaches
 * past the end.  Loads at most one page, or two where the value crosses.
 * Semantics: Cachet's `get_uint8`, `get_int32_le` and their like. */
#define CACHET_GETTER_ CACHET_API CACHET_NONNULL(1, 3) enum cachet_status
CACHET_GETTER_ cachet_get_u8(cachet *c, uint64_t addr, uint8_t *out);
CACHET_GETTER_ cachet_get_i8(cachet *c, uint64_t addr, int8_t *out);
CACHET_GETTER_ cachet_get_u16le(cachet *c, uint64_t addr, uint16_t *out);
CACHET_GETTER_ cachet_get_u16be(cachet *c, uint64_t addr, uint16_t *out);
CACHET_GETTER_ cachet_get_u16ne(cachet *c, uint64_t addr, uint16_t *out);
CACHET_GETTER_ cachet_get_i16le(cachet *c, uint64_t addr, int16_t *out);
CACHET_GETTER_ cachet_get_i16be(cachet *c, uint64_t addr, int16_t *out);
CACHET_GETTER_ cachet_get_i16ne(cachet *c, uint64_t addr, int16_t *out);
CACHET_GETTER_ cachet_get_u32le(cachet *c, uint64_t addr, uint32_t *out);
CACHET_GETTER_ cachet_get_u32be(cachet *c, uint64_t addr, uint32_t *out);
CACHET_GETTER_ cachet_get_u32ne(cachet *c, uint64_t addr, uint32_t *out);
CACHET_GETTER_ cachet_get_i32le(cachet *c, uint64_t addr, int32_t *out);
CACHET_GETTER_ cachet_get_i32be(cachet *c, uint64_t addr, int32_t *out);
CACHET_GETTER_ cachet_get_i32ne(cachet *c, uint64_t addr, int32_t *out);
CACHET_GETTER_ cachet_get_u64le(cachet *c, uint64_t addr, uint64_t *out);
CACHET_GETTER_ cachet_get_u64be(cachet *c, uint64_t addr, uint64_t *out);
CACHET_GETTER_ cachet_get_u64ne(cachet *c, uint64_t addr, uint64_t *out);
CACHET_GETTER_ cachet_get_i64le(cachet *c, uint64_t addr, int64_t *out);
CACHET_GETTER_ cachet_get_i64be(cachet *c, uint64_t addr, int64_t *out);
CACHET_GETTER_ cachet_get_i64ne(cachet *c, uint64_t addr, int64_t *out);
#undef CACHET_GETTER_

/* Copies `len` bytes from `addr` on into `buf`: all of them, of one epoch, or
 * an error; on an error the content of `buf` is undefined.  Bounds are checked
 * first: CACHET_E_BOUNDS.  `len` 0 is CACHET_OK anywhere.  CACHET_E_CHANGED
 * when the image changed, or the range was invalidated, again and again
 * meanwhile.  Loads at most cachet_pages(c, addr, len) pages, more only if the
 * image changes meanwhile.
 * Semantics: Cachet's `blit_to_bytes`. */
CACHET_API enum cachet_status cachet_read(cachet *c, uint64_t addr, void *buf,
                                          size_t len)
    CACHET_NONNULL(1) CACHET_CHECKED;

/* As cachet_read(), into memory from malloc(3) with a NUL after the `len`
 * bytes; the caller frees it.  Semantics: Cachet's `get_string`. */
CACHET_API enum cachet_status cachet_get_string(cachet *c, uint64_t addr,
                                                size_t len, char **out)
    CACHET_NONNULL(1, 4) CACHET_CHECKED;

/* Calls `fn` for each byte from `addr` on, `len` of them; a non-zero result
 * stops it, which is CACHET_OK.  `fn` may use the handle, but not close it.
 * CACHET_E_BOUNDS before the first byte if the range reaches past the end;
 * with CACHET_TO_END it never does while `addr` is at most the size.
 * CACHET_E_CHANGED, after the bytes of one epoch, if the image changes.  Loads
 * at most cachet_pages(c, addr, len) pages.  Semantics: Cachet's `iter`. */
CACHET_API enum cachet_status cachet_iter(cachet *c, uint64_t addr,
                                          uint64_t len,
                                          int (*fn)(void *arg, uint8_t byte),
                                          void *arg) CACHET_NONNULL(1, 4);

/* A walk over the image, page by page, in one epoch.  The fields are private;
 * the struct is yours to place. */
struct cachet_seq {
  cachet *c;
  uint64_t next;
  struct cachet_slice slice;
  uint64_t reserved[4];
};

/* Begins a walk from `addr` to the end.  Loads nothing.  `addr` past the end
 * is CACHET_E_BOUNDS; at the end, the walk is empty.  The caller owes one
 * cachet_seq_end().  Semantics: Cachet's `get_seq`. */
CACHET_API enum cachet_status cachet_seq_begin(cachet *c, uint64_t addr,
                                               struct cachet_seq *seq)
    CACHET_NONNULL(1, 3) CACHET_CHECKED;

/* The next piece of the walk: the first starts at the address the walk began
 * at, each later one at a page.  It belongs to the seq and stays until the
 * next call on it.  CACHET_END at the end; CACHET_E_CHANGED if the image
 * changed since the walk began.  Loads at most one page. */
CACHET_API enum cachet_status cachet_seq_next(struct cachet_seq *seq,
                                              struct cachet_slice *out)
    CACHET_NONNULL(1, 2) CACHET_CHECKED;

/* Ends a walk and its slice. */
CACHET_API void cachet_seq_end(struct cachet_seq *seq) CACHET_NONNULL(1);

/* ---- Asking and steering ------------------------------------------------- */

/* The image's size in bytes.  May change with the epoch. */
CACHET_API uint64_t cachet_size(const cachet *c) CACHET_NONNULL(1);

/* The size of a page in bytes.  Fixed while the handle lives. */
CACHET_API size_t cachet_page_size(const cachet *c) CACHET_NONNULL(1);

/* Which version of the image's content the handle sees.  Never repeats. */
CACHET_API uint64_t cachet_epoch(const cachet *c) CACHET_NONNULL(1);

/* A handle that was opened with CACHET_ONE_EPOCH keeps to the epoch that the
 * image had then.  Once it is known here that the image has another one, each
 * call that loads, gets or walks, asynchronous ones too, fails with
 * CACHET_E_CHANGED, also for pages that were cached; cachet_size() and
 * cachet_epoch() go on to describe the old one.  So a program that reads an
 * image by many calls never puts two versions together.  Slices that are held
 * keep their bytes, as always.
 *
 * This call takes the image's present epoch, and the handle keeps to that one
 * from then on.  Without the flag handles do so by themselves, and the call
 * does no harm.  May wait for a daemon; loads no page.  On a failure the
 * handle's calls go on to fail.  Since 1.1. */
CACHET_API enum cachet_status cachet_adopt_epoch(cachet *c) CACHET_NONNULL(1);

/* Whether hits are read from a daemon's memory directly.  May change with the
 * connection and with the epoch.  A handle that found no share of the cache
 * left asks again when it misses, more and more rarely, and at once when the
 * image has a new epoch; so it may become shared later.
 *
 * A handle that only hits there looks at its connection about twice a second
 * while it is used; one that was used very often, and then a few times a
 * second, at its 64th call at the latest.  Where the daemon has been killed,
 * and another one answers, that call moves on to the image there, and may wait
 * for up to 20 ms.  While none answers the handle reads on what was cached,
 * until a call needs a page that was not. */
CACHET_API bool cachet_is_shared(const cachet *c) CACHET_NONNULL(1);

/* How many page look-ups of this handle found their page, and how many had to
 * load it or wait for it. */
CACHET_API uint64_t cachet_hits(const cachet *c) CACHET_NONNULL(1);
CACHET_API uint64_t cachet_misses(const cachet *c) CACHET_NONNULL(1);

/* Whether the page that holds `addr` is cached: a load of it now would not
 * wait.  False past the end.  Sends nothing, loads nothing, touches nothing.
 * Semantics: Cachet's `is_cached`. */
CACHET_API bool cachet_is_cached(const cachet *c, uint64_t addr)
    CACHET_NONNULL(1);

/* The most pages that a read of `len` bytes at `addr` may have to load: how
 * many overlap it.  `len` is cut at the image's end.  Semantics: Cachet's
 * `syscalls`. */
CACHET_API uint64_t cachet_pages(const cachet *c, uint64_t addr, uint64_t len)
    CACHET_NONNULL(1);

/* A hint that the range will be read soon.  Returns at once, and may do
 * nothing.  `len` is cut at the image's end. */
CACHET_API enum cachet_status cachet_prefetch(cachet *c, uint64_t addr,
                                              uint64_t len) CACHET_NONNULL(1);

/* As cachet_prefetch(), but returns when all pages of the range were loaded, or
 * with the first error.  A daemon loads its image's pages into its own cache,
 * and no bytes are sent here; any other handle's are loaded into its cache in
 * this process.  Pages that are cached already cost nothing.  What does not fit
 * in the cache is loaded in vain.  `len` is cut at the image's end, and a range
 * that begins there or after it is CACHET_OK.
 *
 * CACHET_E_IO where a page cannot be read; CACHET_E_TIMEOUT where the daemon
 * needs longer than request_timeout_ms for what it is asked for at once, which
 * is 16 MiB, and up to 64 MiB of a daemon that is far and fast;
 * CACHET_E_CHANGED when the image changed again and again meanwhile, or with
 * CACHET_ONE_EPOCH has changed since it was opened.  What was loaded before an
 * error stays cached.  Waits; CACHET_E_INVAL in a callback.  Loads at most
 * cachet_pages(c, addr, len) pages, more only if the image changes meanwhile.
 * Since 1.2. */
CACHET_API enum cachet_status cachet_warm(cachet *c, uint64_t addr,
                                          uint64_t len) CACHET_NONNULL(1);

/* Drops exactly the pages that overlap the range, here and at the daemon: a
 * load that begins after this call returned sees bytes read after it.  Slices
 * that are held keep their bytes.  `len` is cut at the image's end.  At a
 * daemon this is for root and the daemon's own user on a Unix socket, and for
 * the peers that its rules for it name, or without rules those in the group of
 * the socket; to others it is CACHET_E_ACCESS.  Waits for a daemon; loads no
 * page.  Semantics: Cachet's `invalidate`. */
CACHET_API enum cachet_status cachet_invalidate(cachet *c, uint64_t addr,
                                                uint64_t len) CACHET_NONNULL(1);

/* ---- A daemon as such ---------------------------------------------------- */

/* A connection to a daemon that opens no image.  Opaque; since 1.2.
 *
 * As a handle, it belongs to one thread at a time and does not survive fork():
 * in the child each call is CACHET_E_FORKED, and only cachet_admin_close() is
 * of use.  Where the connection was lost, the next call makes a new one. */
typedef struct cachet_admin cachet_admin;

/* Connects to a daemon: `uri` is one of a daemon's image, with an empty IMAGE
 * (cachet+unix:///, cachet+unix:///?socket=PATH, cachet://HOST[:PORT]/).  Of
 * `options`, which may be NULL, as may `err`, the time-outs are used.
 *
 * CACHET_E_INVAL for the URI of a file, or of an image; else as cachet_open().
 * Waits for the daemon, at most connect_timeout_ms.  The caller owes one
 * cachet_admin_close().  Since 1.2. */
CACHET_API enum cachet_status
cachet_admin_open(const char *uri, const struct cachet_options *options,
                  cachet_admin **out, struct cachet_error *err);

/* Ends a connection.  NULL is fine.  Not from one of its callbacks.
 * Since 1.2. */
CACHET_API void cachet_admin_close(cachet_admin *a);

/* The message of the last failure on this connection.  Never NULL; "" before
 * the first failure.  Valid until the next call on the connection.
 * Since 1.2. */
CACHET_API const char *cachet_admin_errmsg(const cachet_admin *a)
    CACHET_NONNULL(1);

/* cachet_image_info.flags: the daemon cannot open the image now.  It has no
 * size, no page size and no epoch (0), and cachet_open() would fail. */
#define CACHET_IMAGE_MISSING (1u << 0)

/* cachet_image_info.flags: it lies in a directory of the daemon's, and nobody
 * has it open.  It has no epoch (0) before somebody opens it; its size is what
 * it was just now, 0 if the daemon cannot tell, and may be another then. */
#define CACHET_IMAGE_UNOPENED (1u << 1)

/* What a daemon says of an image.  The library makes it: `struct_size` says how
 * large it is there, and a field past that is not in it.  It may grow at its
 * end.  Since 1.2. */
struct cachet_image_info {
  size_t struct_size;
  const char *name;   /* never NULL; any bytes but NUL, as the daemon sent it */
  uint64_t size;      /* bytes */
  uint64_t epoch;     /* as cachet_epoch() */
  uint32_t page_size; /* bytes */
  uint32_t flags;     /* CACHET_IMAGE_..., and bits of later versions */
};

/* Calls `fn` for each image that the daemon lets this peer open.  A non-zero
 * result of `fn` ends the walk, which is CACHET_OK.  The struct and its name
 * live until `fn` returns.  `fn` runs on the calling thread, under no lock, and
 * only after the whole answer has arrived: on a failure it was never called.
 * In it each call on `a` is CACHET_E_INVAL; other handles may be used.
 *
 * Waits for the daemon, at most request_timeout_ms: CACHET_E_TIMEOUT.
 * CACHET_E_PROTO for an answer that cannot be.  Since 1.2. */
CACHET_API enum cachet_status
cachet_admin_list(cachet_admin *a,
                  int (*fn)(void *arg, const struct cachet_image_info *info),
                  void *arg) CACHET_NONNULL(1);

/* Calls `fn` for each counter: the daemon's own, with `image` NULL, then those
 * of each image, one image after the other.  Which there are is the daemon's
 * matter; see cachetd(8).  The strings are never NULL but for that, and live
 * until `fn` returns.  All else is as for cachet_admin_list().  Since 1.2. */
CACHET_API enum cachet_status cachet_admin_stats(
    cachet_admin *a,
    int (*fn)(void *arg, const char *image, const char *name, uint64_t value),
    void *arg) CACHET_NONNULL(1);

/* Has the daemon serve one more image, until it reads its configuration again:
 * `name` is 1 to 64 of A-Z a-z 0-9 . _ -, and `source` what stands behind the =
 * of cachetd's option --image, with a path from the root on, which is a path of
 * the daemon's.  It is served when this returns CACHET_OK.
 *
 * CACHET_E_INVAL: one of them is NULL, or not as it should be, or there is an
 * image of that name, or the call was made in a callback; CACHET_E_ACCESS for
 * callers that may not; CACHET_E_BUSY while the daemon reads its configuration;
 * CACHET_E_NOIMAGE or CACHET_E_IO: it cannot be opened; CACHET_E_UNSUPPORTED
 * where the daemon takes no changes; and the errors of connections, as for
 * cachet_admin_list().  Since 1.2. */
CACHET_API enum cachet_status
cachet_admin_add(cachet_admin *a, const char *name, const char *source)
    CACHET_NONNULL(1);

/* Has the daemon serve an image no more, until it reads its configuration
 * again.  Handles that have it open get CACHET_E_NOIMAGE from then on; slices
 * that they hold stay.
 *
 * CACHET_E_NOIMAGE: there is none of that name; else as cachet_admin_add().
 * Since 1.2. */
CACHET_API enum cachet_status cachet_admin_remove(cachet_admin *a,
                                                  const char *name)
    CACHET_NONNULL(1);

/* Asks the daemon to end when the clients that have images open have left, or
 * after `timeout_ms`, if that is not negative.  From then on nobody else opens
 * an image: that fails with CACHET_E_BUSY.  Returns when the daemon has taken
 * the request in, which is long before it ends.
 *
 * CACHET_E_ACCESS for callers that may not; CACHET_E_UNSUPPORTED where the
 * daemon is too old; and the errors of connections, as for cachet_admin_list().
 * Since 1.2. */
CACHET_API enum cachet_status cachet_admin_drain(cachet_admin *a,
                                                 int timeout_ms)
    CACHET_NONNULL(1);

/* ---- In an event loop ---------------------------------------------------- */

/* Asynchronous calls make progress in cachet_dispatch(), which the caller's
 * event loop runs when cachet_fd() is ready for cachet_events(), or when
 * cachet_timeout_ms() has passed.  <cachet/libevent.h> does it for libevent.
 *
 * A callback runs exactly once for each accepted call (one that returned
 * CACHET_OK), from cachet_dispatch() only, on its thread and under no lock;
 * also when the request completes at once or is cancelled.  The exception is
 * cachet_close(), which runs what is outstanding with CACHET_E_CANCELED.  In a
 * callback every call is allowed that does not wait; one that would wait
 * returns CACHET_E_INVAL, and cachet_close() is forbidden.  Blocking calls run
 * no callbacks.
 *
 * In process the source is read on the calling thread, in cachet_dispatch(). */

/* The descriptor to watch, or -1 while there is none.  It may change when the
 * handle reconnects: ask again after each cachet_dispatch(). */
CACHET_API int cachet_fd(const cachet *c) CACHET_NONNULL(1);

/* The events to watch it for: POLLIN, POLLOUT, or both. */
CACHET_API short cachet_events(const cachet *c) CACHET_NONNULL(1);

/* Call cachet_dispatch() after this many milliseconds at the latest: 0 when
 * callbacks are due, -1 when nothing is. */
CACHET_API int cachet_timeout_ms(const cachet *c) CACHET_NONNULL(1);

/* Moves outstanding requests forward and runs the callbacks that are due.
 * Never waits for a daemon.  Returns CACHET_OK; requests report their own
 * failures.  Not from a callback. */
CACHET_API enum cachet_status cachet_dispatch(cachet *c) CACHET_NONNULL(1);

/* For code that connects a handle to an event loop (one at a time): `fn` runs
 * on the handle's thread whenever what the three calls above return may have
 * changed.  From it, call only those three.  NULL ends it.
 * cachet_watch_arg() returns the `arg` given last, NULL if none. */
typedef void (*cachet_watch_cb)(void *arg);
CACHET_API void cachet_set_watch(cachet *c, cachet_watch_cb fn, void *arg)
    CACHET_NONNULL(1);
CACHET_API void *cachet_watch_arg(const cachet *c) CACHET_NONNULL(1);

/* The end of a cachet_load_async().  On CACHET_OK the callback owns `*slice`'s
 * pin: it copies the struct and owes one cachet_release().  Otherwise `slice`
 * is NULL. */
typedef void (*cachet_load_cb)(void *arg, enum cachet_status status,
                               struct cachet_slice *slice);
typedef void (*cachet_read_cb)(void *arg, enum cachet_status status);

/* cachet_load() and cachet_read() without the wait.  An argument that is wrong
 * from the start is reported by the call, and then no callback runs.  `out`
 * may be NULL; the request lives until its callback has returned, and `buf`
 * must live as long.  Loads as many pages as the blocking call. */
CACHET_API enum cachet_status
cachet_load_async(cachet *c, uint64_t addr, size_t min_len, cachet_load_cb cb,
                  void *arg, struct cachet_request **out) CACHET_NONNULL(1);
CACHET_API enum cachet_status
cachet_read_async(cachet *c, uint64_t addr, void *buf, size_t len,
                  cachet_read_cb cb, void *arg, struct cachet_request **out)
    CACHET_NONNULL(1);

/* Cancels a request whose callback has not run: it will run with
 * CACHET_E_CANCELED, from the next cachet_dispatch().  A request that is
 * complete already completes as it was: CACHET_OK, and no change. */
CACHET_API enum cachet_status cachet_cancel(cachet *c,
                                            struct cachet_request *request)
    CACHET_NONNULL(1);

#ifdef __cplusplus
}
#endif

#endif /* CACHET_CACHET_H */
