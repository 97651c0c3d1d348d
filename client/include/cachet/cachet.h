/* libcachet-client: read access to images, page by page, through a cache.
 *
 * An image is a named, read-only array of bytes.  A handle (`cachet *`) reads
 * one image through a cache of its pages.  The cache is in this process, or in
 * the daemon cachetd(8).  A cache in this process holds pages of a file, a
 * block device, an image on a server, or an image that a function of the
 * program provides.  A handle on a daemon's Unix socket reads the daemon's
 * cache directly in shared memory if the daemon allows it.
 *
 * The calls have the semantics of Cachet, a library for OCaml.  "Semantics:
 * Cachet's `load`" names the function there.
 *
 * The following program opens an image, reads a number in the first page, adds
 * up all bytes page by page, and closes the image:
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
 *     // page.data is in the cache; it stays valid until the release.
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
 * Threads.  One thread at a time may use a handle: two calls with the same
 * handle must not run at the same time.  A second thread uses a handle of its
 * own, from cachet_copy().  Handles may share a cache; the library synchronises
 * access to it.  A comment below mentions threads only if a call has another
 * rule.
 *
 * The library installs no signal handler.  Its only global state is a number
 * for debugging and a table of the memory that daemons share with this process;
 * a lock protects the table.  The library starts no thread until the program
 * opens an image over HTTP, S3, NBD or RBD.  Then it starts one thread, with
 * all signals blocked, which stays.  The libraries that it loads for this may
 * start others.
 *
 * Fork.  After fork() the child must not use the parent's handles: each call
 * that can fail returns CACHET_E_FORKED there, and the child may only call
 * cachet_close().  The parent's handles are not affected.  The child may open
 * handles of its own.  It may close all descriptors or reuse their numbers:
 * cachet_close() closes no descriptor there except the handle's own connection.
 *
 * Errors.  Each call that can fail returns a status.  It sets out-parameters
 * only if it returns CACHET_OK.  cachet_errmsg() gives the message of the last
 * failure on a handle.  If a page cannot be read, the calls that need this page
 * fail with CACHET_E_IO, and the message says which bytes could not be read;
 * calls that need other pages succeed.
 *
 * A call that reads pages of a daemon's image may also fail with CACHET_E_CONN,
 * CACHET_E_TIMEOUT or CACHET_E_PROTO, and with CACHET_E_NOIMAGE or
 * CACHET_E_ACCESS if the daemon no longer serves the image to this process.  It
 * may fail with CACHET_E_NOMEM.  The manual page of each call lists all its
 * errors.
 *
 * Pages.  "Loads at most n pages" says how many pages a call may have to read
 * from the source of the image.  Pages in the cache do not count.
 * cachet_pages() gives this number for a range.  A call for which no number is
 * given loads no page.  A call that loads no page does not wait, unless its
 * comment says so.
 *
 * Debugging.  If CACHET_DEBUG=1 is in the environment when a handle is opened,
 * the library writes a line to standard error for each of these events: it
 * connects to a daemon, attaches its memory, misses a page, waits, or gives up.
 * It writes no line for a hit.  The lines contain names and numbers, but no
 * bytes of an image.  Their text may change.  Since 1.2.
 *
 * Other languages.  Each function in this header, inline functions included, is
 * a symbol of libcachet-client.so.1 with the same name, so that a binding can
 * find it with dlsym(3).  The values of macros and enums do not change and can
 * be copied.  A struct gets new fields, at its end, only if it begins with
 * `struct_size`.
 *
 * Offsets, addresses and lengths are in bytes.  The library needs 64-bit Linux;
 * the header compiles as C11 and as C++17.  Everything exists since version 1.0
 * unless a comment names another version. */
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

/* CACHET_NONNULL lists the pointers that must not be NULL.  Other pointers may
 * be NULL if the comment of the call says so.  CACHET_CHECKED marks the calls
 * whose result must be checked, because the caller would otherwise use a slice
 * or a buffer that was not filled. */
#if defined(__GNUC__)
#define CACHET_API __attribute__((visibility("default")))
#define CACHET_NONNULL(...) __attribute__((nonnull(__VA_ARGS__)))
#define CACHET_CHECKED __attribute__((warn_unused_result))
#else
#define CACHET_API
#define CACHET_NONNULL(...)
#define CACHET_CHECKED
#endif

/* Marks functions that are compiled into the caller.  (The library itself
 * defines this macro differently, so that these functions are also symbols.) */
#ifndef CACHET_INLINE
#define CACHET_INLINE static inline
#endif

/* The version of this header, as in semantic versioning: a program that was
 * compiled with it runs with every library of the same CACHET_VERSION_MAJOR
 * that is not older.  Since 1.2. */
#define CACHET_VERSION_MAJOR 1
#define CACHET_VERSION_MINOR 2
#define CACHET_VERSION_PATCH 0
#define CACHET_VERSION_STRING                                                  \
  CACHET_DOTTED_(CACHET_VERSION_MAJOR, CACHET_VERSION_MINOR,                   \
                 CACHET_VERSION_PATCH)
#define CACHET_DOTTED_(major, minor, patch) CACHET_QUOTED_(major.minor.patch)
#define CACHET_QUOTED_(text) #text

/* Returns the version of the library that the program runs with, for example
 * "1.2.0": the CACHET_VERSION_STRING that the library was built with.  The
 * string is in static storage.  Any thread may call it.  Since 1.2. */
CACHET_API const char *cachet_version(void);

/* As a length of type uint64_t: up to the end of the image. */
#define CACHET_TO_END UINT64_MAX

/* The result of a call.  The numbers do not change; later versions may add
 * others. */
enum cachet_status {
  CACHET_OK = 0,
  CACHET_END = 1,             /* the address is at or past the end, or the page
                                 has fewer bytes than requested */
  CACHET_E_INVAL = -1,        /* an argument is never valid, or a callback made
                                 a call that would wait */
  CACHET_E_BOUNDS = -2,       /* the requested bytes reach past the end */
  CACHET_E_NOMEM = -3,        /* no memory, or no address space */
  CACHET_E_IO = -4,           /* the image could not be read */
  CACHET_E_NOIMAGE = -5,      /* there is no image of that name */
  CACHET_E_ACCESS = -6,       /* not permitted */
  CACHET_E_CONN = -7,         /* no connection to the daemon */
  CACHET_E_PROTO = -8,        /* the other side violated the protocol */
  CACHET_E_TIMEOUT = -9,      /* no answer in time */
  CACHET_E_BUSY = -10,        /* too many slices are held; or the daemon
                                 accepts no more requests of this kind */
  CACHET_E_FORKED = -11,      /* the parent process made the handle */
  CACHET_E_CANCELED = -12,    /* the request was cancelled, the handle was
                                 closed, or the daemon is stopping */
  CACHET_E_CHANGED = -13,     /* the image changed during a seq or an iter, or
                                 repeatedly during a read; or since a handle
                                 with CACHET_ONE_EPOCH was opened */
  CACHET_E_UNSUPPORTED = -14, /* not possible here */
};

/* A handle: the access of one thread to one image.  Opaque. */
typedef struct cachet cachet;

/* An asynchronous call that has not completed.  Opaque.  It lives until its
 * callback has returned. */
struct cachet_request;

/* A failure.  Calls that return no handle report failures in such a struct. */
struct cachet_error {
  enum cachet_status code;
  int sys_errno; /* errno of the system call that failed, or 0 */
  char message[256];
};

/* Returns a short English description of a status.  Never NULL; the string is
 * in static storage.  Any thread may call it. */
CACHET_API const char *cachet_strerror(enum cachet_status status);

/* Returns the message of the last failure on this handle.  The message names
 * the object and the operation.  Inside a callback it is the message of the
 * callback's request.  Never NULL; "" before the first failure.  The string is
 * valid until the next call with the handle.  Also works in a forked child. */
CACHET_API const char *cachet_errmsg(const cachet *c) CACHET_NONNULL(1);

/* Copies the status, the errno and the message of the last failure on this
 * handle to `*out`; CACHET_OK, 0 and "" before the first failure.  CACHET_END
 * is not a failure.  Also works in a forked child.  Since 1.2. */
CACHET_API void cachet_last_error(const cachet *c, struct cachet_error *out)
    CACHET_NONNULL(1, 2);

/* ---- Opening and closing ------------------------------------------------- */

/* ---- cachet_options.flags ---- */

/* Do not map the daemon's memory: read through the socket. */
#define CACHET_NO_SHARED_MEMORY (1u << 0)

/* Load only the pages that are requested.  Without this flag the library
 * requests further pages for a sequential reader and does not wait for them: at
 * most 1024 pages, or, over a socket, at most 64 MiB (see `cache_size`). */
#define CACHET_NO_READAHEAD (1u << 1)

/* Read only one version of the image; see cachet_adopt_epoch().  Since 1.1. */
#define CACHET_ONE_EPOCH (1u << 2)

/* Options for opening an image.  Initialise the struct with
 * CACHET_OPTIONS_INIT, or set it to zeros and set `struct_size` to its size.
 * Then set the fields that matter. 0 is the default for each.  Later versions
 * may add fields at the end. */
struct cachet_options {
  size_t struct_size;
  uint32_t flags;
  uint32_t page_size;         /* bytes; default 4096.  A power of two from 1
                                 to 2 MiB.  It is the size of slices, and the
                                 unit of cachet_pages() and the counters.  The
                                 library caches and reads pages of at least
                                 4096 bytes; hits are cheapest with those.
                                 (Less than 4096 since 1.2.)  An image of a
                                 daemon has the daemon's page size instead */
  uint64_t cache_size;        /* bytes; default 4 MiB.  The size of a cache in
                                 this process.  A handle that reads through a
                                 socket holds, in addition, the pages that it
                                 requested ahead of need: at most twice what
                                 the connection transfers in a round trip, and
                                 at most 64 MiB.  It frees them when the
                                 reader has read them or reads elsewhere, and
                                 after two seconds without use.  This happens
                                 inside calls: a handle that is not used keeps
                                 them until cachet_close() */
  int32_t connect_timeout_ms; /* default 5000; -1: none */
  int32_t request_timeout_ms; /* default 30000; -1: none.  It limits each wait
                                 for an answer; a long read may wait for
                                 several */
};

/* The defaults: struct cachet_options o = CACHET_OPTIONS_INIT; Since 1.2. */
#define CACHET_OPTIONS_INIT                                                    \
  { sizeof(struct cachet_options), 0, 0, 0, 0, 0 }

/* Opens an image and stores a handle in `*out`.  `uri` is one of
 *
 *   disk.img, file:disk.img           a file or block device, cached in this
 *                                     process
 *   cachet+unix:///IMAGE?socket=PATH  an image of a daemon, over a Unix socket
 *   cachet+unix:///IMAGE              the same, over the default socket:
 *                                     $CACHET_SOCKET if it is set, otherwise
 *                                     $XDG_RUNTIME_DIR/cachetd.sock if it
 *                                     exists, otherwise
 *                                     /run/cachetd/cachetd.sock
 *   cachet://HOST[:PORT]/IMAGE        an image of a daemon, over TCP; the
 *                                     default port is 10819
 *   cachets://HOST[:PORT]/IMAGE?ca=FILE&cert=FILE&key=FILE
 *                                     an image of a daemon, over TCP with TLS
 *                                     1.3; the default port is 10820
 *   https://HOST/PATH, http:, s3://BUCKET/KEY, nbd://HOST/EXPORT, nbds:,
 *   nbd+unix:, nbds+unix:, rbd:POOL/IMAGE
 *                                     an image on a server, cached in this
 *                                     process
 *
 * A `uri` without `scheme:` is a path.  The library decodes percent-encoding in
 * URIs, not in paths.  In a file: URI write ? as %3F, # as %23 and a comma as
 * %2C.  The path of a socket may begin with `unix:`, as an address of the
 * daemon does.  Relative paths are those of the working directory of this call,
 * whatever it is later, except that of a socket whose absolute path would be
 * longer than 107 bytes.  An empty IMAGE means the only image of the daemon.
 * If the daemon does not serve IMAGE, the error message names up to five images
 * that it serves.
 *
 * `options` and `err` may be NULL.  On failure the call fills `*err`.  On
 * CACHET_OK the caller owns the handle and must call cachet_close().  Any
 * thread may call it.  Loads no page.  It waits for the daemon for at most
 * connect_timeout_ms, for all addresses of a host together: each gets an even
 * share of what is left.  The lookup of a host name takes as long as
 * getaddrinfo(3) takes.  If a handle cannot connect again, a call that waits
 * looks the host up once more, and then at most once a second.
 * cachet_dispatch() never does: a program that makes only asynchronous calls
 * opens another handle to find a daemon that has moved.
 *
 * Part of an image, since 1.2.  Any URI may open a part of the image with
 * `?offset=N&length=N` (with & in place of ? if the URI has a query already).
 * In the URI of a server other than a daemon these options may follow a #
 * instead; then the whole query belongs to the server.  Address 0 of the handle
 * is byte `offset` of the image.  The size is `length`, or up to the end of the
 * image.  If the part reaches past the end, the call fails with
 * CACHET_E_BOUNDS.  N is decimal or begins with 0x, and may end in K, M, G or
 * T.  The pages are those of the whole image, so that no page is cached twice:
 * if the part begins inside a page, its first page is short.  If the image
 * becomes shorter, so does the part.
 *
 * TLS, since 1.2.  The daemon must present a certificate for HOST that is
 * signed by a certificate in `ca`; without `ca`, by one that the system trusts.
 * `cert` is the certificate that the library presents if the daemon requires
 * one.  Its key is in `key` or in the same file.  All files are in PEM format,
 * and the key has no password.  The call loads libcachet-client-tls.so.1, which
 * stays loaded; it fails with CACHET_E_UNSUPPORTED if that library is missing.
 * A program that opens no such URI does not load OpenSSL.  CACHET_E_ACCESS
 * means that the daemon requires a certificate or does not accept this one.
 * When a handle connects again later, the calls that wait for the connection
 * fail in the same way.
 *
 * HTTP, S3, NBD and RBD, since 1.2.  Options follow a # as KEY=VALUE, joined by
 * & and percent-encoded.  They are the options of such an image in cachetd(8),
 * and `fetch-size`, the least number of bytes that a miss reads.  Everything
 * before the # belongs to the server.  A miss reads an aligned block (512 KiB
 * over HTTP and S3, 128 KiB over NBD and RBD) if the cache has room for
 * several.  The library repeats a read that failed for a temporary reason, for
 * at most 30 seconds, and no longer than request_timeout_ms: after that the
 * call fails with CACHET_E_TIMEOUT.  Only a check whether the object changed
 * may take longer.  It does so on the calling thread, also in
 * cachet_dispatch().  The call loads
 * libcachet-client-sources.so.1 and a module of the package cachetd or
 * cachetd-rbd, which stay loaded; it fails with CACHET_E_UNSUPPORTED if one is
 * missing.  A program that opens no such URI does not load libcurl, libnbd,
 * librbd or libevent.  Messages contain neither the user name of a URI nor its
 * query.
 *
 * Changes of a file.  The library notices that a file has changed when it reads
 * a page of it, or when a call asks for bytes past its end; in the latter case
 * it checks at most once a second.  The image then has a new epoch.  The
 * library reads cached pages without checking the file; call
 * cachet_invalidate() after a change.
 *
 * To detect a change of a file, the library compares its size, inode number and
 * time stamps.  For a block device it compares the medium, the time stamp of
 * the device node, and the number of writes that this kernel has counted.  Time
 * stamps have a resolution of up to two seconds, and a write within it may be
 * hidden.  Therefore, if a page was read so soon after the last change, the
 * first load after that time reads it again.  The library does not detect
 * stores through a shared mapping that change no time stamp, or writes to a
 * device by another machine.  "Never mixes two epochs" applies to the changes
 * that it detects.  A daemon detects the same changes, and can be configured to
 * read old pages again; see "Changes of an image" in cachetd(8). */
CACHET_API enum cachet_status cachet_open(const char *uri,
                                          const struct cachet_options *options,
                                          cachet **out,
                                          struct cachet_error *err);

/* A source that the program implements: it provides the bytes of an image. */
struct cachet_source {
  size_t struct_size; /* sizeof(struct cachet_source) */
  uint64_t size;      /* of the image, in bytes */
  void *ctx;          /* passed to each function */

  /* Sets `*bytes` to the address of the image's bytes from `pos` on.  Returns
   * how many bytes are there, at most `len`; 0 past the end; a negative errno
   * on failure.  `pos` is a multiple of the page size and of 4096.  All
   * returned bytes must be of one moment.  The library copies them and then
   * calls unmap.  It calls map on any thread that uses a handle on this source,
   * but never on two threads at the same time. */
  ssize_t (*map)(void *ctx, uint64_t pos, size_t len, const void **bytes);

  /* Releases what map returned.  May be NULL. */
  void (*unmap)(void *ctx, const void *bytes, size_t len);

  /* Called once, when the last handle on this source is closed, on the thread
   * that closes it.  May be NULL.  Not called if cachet_make() fails. */
  void (*close)(void *ctx);
};

/* Makes a handle on an image that the program provides.  The pages are cached
 * in this process.  Copies `*source`.  `options` and `err` may be NULL.  On
 * CACHET_OK the caller owns the handle and must call cachet_close().  Any
 * thread may call it.  Loads no page.  Semantics: Cachet's `make`. */
CACHET_API enum cachet_status cachet_make(const struct cachet_source *source,
                                          const struct cachet_options *options,
                                          cachet **out,
                                          struct cachet_error *err);

/* Returns the `ctx` of the source of a handle from cachet_make(), or of a copy
 * of such a handle.  Returns NULL for other handles.  Semantics: Cachet's `fd`.
 * Since 1.2. */
CACHET_API void *cachet_context(const cachet *c) CACHET_NONNULL(1);

/* Makes another handle on the same cache, for another thread.  It has its own
 * connection, counters and pins, and the options of `c`.  Only the thread of
 * `c` may make the call; any thread may then use the new handle.  Either handle
 * may be closed first.  On CACHET_OK the caller owns the new handle and must
 * call cachet_close().  `err` may be NULL.  May wait for a daemon, as
 * cachet_open() does.  Loads no page.
 *
 * With CACHET_ONE_EPOCH the copy reads the same epoch as `c`, so that several
 * threads can copy one version of an image.  If the image has another epoch by
 * then, the call fails with CACHET_E_CHANGED. */
CACHET_API enum cachet_status cachet_copy(cachet *c, cachet **out,
                                          struct cachet_error *err)
    CACHET_NONNULL(1);

/* Closes a handle and releases its slices.  Requests that have not completed
 * are cancelled: this call runs their callbacks with CACHET_E_CANCELED.  NULL
 * is allowed.  Must not be called from a callback.  May wait until another
 * thread has read a page that a request of this handle waits for. */
CACHET_API void cachet_close(cachet *c);

/* ---- Loading ------------------------------------------------------------- */

/* A read-only view of contiguous bytes of an image.  Byte 0 of `data` is byte
 * `offset` of the image.  The bytes stay readable and do not change until
 * cachet_release(), even if the page is evicted or invalidated, the image gets
 * a new epoch, or the daemon dies.  Other threads may read `data`.  Only the
 * thread of the handle may release the slice. */
struct cachet_slice {
  uint64_t offset;
  size_t length; /* a page, less in a short page; or what cachet_map() gave */
  const uint8_t *data;
  uint64_t pin;      /* private to the library */
  uint64_t reserved; /* private to the library */
};

/* Loads the page that contains byte `addr` and describes it in `*out`: `data`
 * is the address of the page's first byte, and `offset` is the address in the
 * image of that byte.  `min_len` is the number of bytes at and after `addr`
 * that the caller needs in this page; with 0 the call succeeds for every page.
 * Waits if the page is not cached.  Loads at most one page.  Semantics:
 * Cachet's `load`.
 *
 * On CACHET_OK the caller must call cachet_release().  CACHET_END: `addr` is at
 * or past the end, or the page has fewer than `min_len` bytes at and after
 * `addr`.  CACHET_E_INVAL: `min_len` is more than a page.  CACHET_E_BUSY:
 * cachet_pin_limit() slices are held. */
CACHET_API enum cachet_status
cachet_load(cachet *c, uint64_t addr, size_t min_len, struct cachet_slice *out)
    CACHET_NONNULL(1, 4) CACHET_CHECKED;

/* Loads the page at `slice->offset + slice->length`, as cachet_load() with a
 * `min_len` of 0.  CACHET_END: that address is at or past the end.  It does not
 * release `slice`, which may have been released before.  `out` may be the same
 * as `slice` if `slice` was released.  Loads at most one page.  Semantics:
 * Cachet's `next`. */
CACHET_API enum cachet_status cachet_next(cachet *c,
                                          const struct cachet_slice *slice,
                                          struct cachet_slice *out)
    CACHET_NONNULL(1, 2, 3) CACHET_CHECKED;

/* Loads the pages of the `len` bytes from `addr` on and describes these bytes
 * as one contiguous slice with `offset` == `addr`.  If they reach past the end
 * of the image, the slice is shorter.  The bytes are of one epoch.  On
 * CACHET_OK the caller must call cachet_release().  Loads at most
 * cachet_pages(c, addr, len) pages, more only if the image changes during the
 * call.  Semantics: Cachet's `map`.
 *
 * CACHET_END: `addr` is at or past the end.  CACHET_E_INVAL: `len` is 0.
 * CACHET_E_CHANGED: the image changed repeatedly during the call.
 * CACHET_E_BUSY: cachet_pin_limit() slices are held. */
CACHET_API enum cachet_status cachet_map(cachet *c, uint64_t addr, uint64_t len,
                                         struct cachet_slice *out)
    CACHET_NONNULL(1, 4) CACHET_CHECKED;

/* Releases a slice.  Its bytes must not be read afterwards.  A slice of zeros,
 * a slice that was released before, and NULL are ignored.  Does nothing in a
 * forked child. */
CACHET_API void cachet_release(cachet *c, struct cachet_slice *slice)
    CACHET_NONNULL(1);

/* Returns how many slices may be held on a handle at the same time: at least
 * 64. */
CACHET_API size_t cachet_pin_limit(const cachet *c) CACHET_NONNULL(1);

/* Returns the address in memory of byte `addr` of the image, or NULL if the
 * slice does not contain that byte.  Any thread that may read the slice may
 * call it. */
CACHET_INLINE CACHET_NONNULL(1) const uint8_t *cachet_slice_at(
    const struct cachet_slice *slice, uint64_t addr) {
  if (addr < slice->offset || addr - slice->offset >= slice->length)
    return NULL;
  return slice->data + (addr - slice->offset);
}

/* Each of these functions stores the integer at byte `addr` of the image in
 * `*out` and returns true, if the slice contains all bytes of the integer.
 * Otherwise it returns false and does not change `*out`.  They are for parsers
 * of a slice: they use no handle and load no page.  Any thread that may read
 * the slice may call them.  `addr` need not be aligned.  Types and byte orders
 * are those of the cachet_get_ calls:
 *
 *   bool cachet_slice_u8(const struct cachet_slice *slice, uint64_t addr,
 *                        uint8_t *out);
 *
 * and so on, up to cachet_slice_i64ne() with an int64_t.  Since 1.2. */
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

/* Each of these calls stores the integer at `addr` in `*out`.  The name gives
 * the type (u: unsigned, i: two's complement, and the number of bits) and the
 * byte order (le: little-endian, be: big-endian, ne: that of this machine).
 * `addr` need not be aligned, and the integer may cross from one page into the
 * next.  CACHET_E_BOUNDS: the integer reaches past the end.  Loads at most one
 * page, or two if the integer crosses.  Semantics: Cachet's `get_uint8`,
 * `get_int32_le` and so on. */
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

/* Copies the `len` bytes from `addr` on into `buf`.  Either it copies all of
 * them, from one epoch, or it fails; then the content of `buf` is undefined.
 * With a `len` of 0 it returns CACHET_OK for any `addr`.  Loads at most
 * cachet_pages(c, addr, len) pages, more only if the image changes during the
 * call.  Semantics: Cachet's `blit_to_bytes`.
 *
 * CACHET_E_BOUNDS: the range reaches past the end; nothing was copied.
 * CACHET_E_CHANGED: the image changed, or the range was invalidated, repeatedly
 * during the call. */
CACHET_API enum cachet_status cachet_read(cachet *c, uint64_t addr, void *buf,
                                          size_t len)
    CACHET_NONNULL(1) CACHET_CHECKED;

/* Copies bytes as cachet_read() does, into memory from malloc(3), and adds a
 * NUL after the `len` bytes.  The caller must free(3) `*out`.  Semantics:
 * Cachet's `get_string`. */
CACHET_API enum cachet_status cachet_get_string(cachet *c, uint64_t addr,
                                                size_t len, char **out)
    CACHET_NONNULL(1, 4) CACHET_CHECKED;

/* Calls `fn` for each of the `len` bytes from `addr` on.  If `fn` returns a
 * non-zero value, the iteration ends and the call returns CACHET_OK.  `fn` may
 * use the handle but must not close it.  `fn` runs on the calling thread and
 * under no lock.  Loads at most cachet_pages(c, addr, len) pages.  Semantics:
 * Cachet's `iter`.
 *
 * CACHET_E_BOUNDS: the range reaches past the end; `fn` was not called.  With
 * CACHET_TO_END this happens only if `addr` is greater than the size.
 * CACHET_E_CHANGED: the image changed; `fn` was called for bytes of the old
 * epoch only. */
CACHET_API enum cachet_status cachet_iter(cachet *c, uint64_t addr,
                                          uint64_t len,
                                          int (*fn)(void *arg, uint8_t byte),
                                          void *arg) CACHET_NONNULL(1, 4);

/* An iteration over the pages of an image, in one epoch.  The fields are
 * private.  The caller provides the memory of the struct. */
struct cachet_seq {
  cachet *c;
  uint64_t next;
  struct cachet_slice slice;
  uint64_t reserved[4];
};

/* Begins an iteration from `addr` to the end of the image.  If `addr` is the
 * end, the iteration is empty.  On CACHET_OK the caller must call
 * cachet_seq_end().  Loads no page.  CACHET_E_BOUNDS: `addr` is past the end.
 * Semantics: Cachet's `get_seq`. */
CACHET_API enum cachet_status cachet_seq_begin(cachet *c, uint64_t addr,
                                               struct cachet_seq *seq)
    CACHET_NONNULL(1, 3) CACHET_CHECKED;

/* Describes the next part of the image in `*out`.  The first part begins at the
 * address that cachet_seq_begin() was given, each later one at a page.  The
 * iteration owns this slice: it is valid until the next call for `seq`, and
 * need not be released.  Loads at most one page.
 *
 * CACHET_END: the iteration is at the end.  CACHET_E_CHANGED: the image has
 * changed since the iteration began. */
CACHET_API enum cachet_status cachet_seq_next(struct cachet_seq *seq,
                                              struct cachet_slice *out)
    CACHET_NONNULL(1, 2) CACHET_CHECKED;

/* Ends an iteration and releases its slice. */
CACHET_API void cachet_seq_end(struct cachet_seq *seq) CACHET_NONNULL(1);

/* ---- Asking and steering ------------------------------------------------- */

/* Returns the size of the image in bytes.  It may change with the epoch. */
CACHET_API uint64_t cachet_size(const cachet *c) CACHET_NONNULL(1);

/* Returns the size of a page in bytes.  It does not change while the handle
 * lives. */
CACHET_API size_t cachet_page_size(const cachet *c) CACHET_NONNULL(1);

/* Returns the epoch: the number of the version of the image's content that the
 * handle reads.  Two versions of an image never have the same epoch.  Epochs
 * have no order. */
CACHET_API uint64_t cachet_epoch(const cachet *c) CACHET_NONNULL(1);

/* Makes a handle that was opened with CACHET_ONE_EPOCH read the current epoch
 * of the image, and only that one from then on.
 *
 * A handle with CACHET_ONE_EPOCH reads only the epoch that the image had when
 * it was opened.  When the library learns that the image has another epoch,
 * each call that loads, gets or iterates, blocking or asynchronous, fails with
 * CACHET_E_CHANGED, even for cached pages.  cachet_size() and cachet_epoch()
 * still describe the old epoch.  So a program that reads an image with many
 * calls never combines two versions.  Slices that are held keep their bytes.
 *
 * A handle without the flag adopts a new epoch by itself, and this call is
 * harmless.  May wait for a daemon; loads no page.  If the call fails, the
 * other calls continue to fail.  Since 1.1. */
CACHET_API enum cachet_status cachet_adopt_epoch(cachet *c) CACHET_NONNULL(1);

/* Returns whether the handle reads cached pages directly in a daemon's memory.
 * This may change with the connection and with the epoch.  If the daemon had no
 * share of its cache left, the library asks again at later misses, with a
 * growing interval, and immediately when the image has a new epoch.
 *
 * A handle that only reads hits in that memory checks its connection about
 * twice a second while it is used.  (If it was used very often and is then used
 * a few times a second, it checks at the 64th call at the latest.)  If the
 * daemon was killed and another one answers, the call that checks continues
 * with the image there, and may wait for up to 20 ms.  Until a daemon answers,
 * the handle continues to read cached pages; a call fails only if it needs a
 * page that was not cached. */
CACHET_API bool cachet_is_shared(const cachet *c) CACHET_NONNULL(1);

/* Return how many page lookups of this handle found the page in the cache, and
 * how many had to load the page or to wait for it. */
CACHET_API uint64_t cachet_hits(const cachet *c) CACHET_NONNULL(1);
CACHET_API uint64_t cachet_misses(const cachet *c) CACHET_NONNULL(1);

/* Returns whether the page that contains `addr` is cached, so that loading it
 * now would not wait.  Returns false past the end.  Sends nothing, and does not
 * count as a use of the page.  Semantics: Cachet's `is_cached`. */
CACHET_API bool cachet_is_cached(const cachet *c, uint64_t addr)
    CACHET_NONNULL(1);

/* Returns the number of pages that overlap the range: the most that reading it
 * may have to load.  `len` is cut at the image's end.  Semantics: Cachet's
 * `syscalls`. */
CACHET_API uint64_t cachet_pages(const cachet *c, uint64_t addr, uint64_t len)
    CACHET_NONNULL(1);

/* A hint that the program will read this range soon.  The library may begin to
 * load any of its pages, or none.  Returns without waiting.  `len` is cut at
 * the image's end. */
CACHET_API enum cachet_status cachet_prefetch(cachet *c, uint64_t addr,
                                              uint64_t len) CACHET_NONNULL(1);

/* Loads all pages of a range, and returns when they have been loaded or when
 * one could not be loaded.  If the image is a daemon's, the daemon loads the
 * pages into its own cache, and sends no bytes.  Otherwise the pages are loaded
 * into the cache in this process.  Pages that are cached already are not loaded
 * again.  If the range is larger than the cache, only a part of it is cached
 * afterwards.  `len` is cut at the image's end; a range that begins at or past
 * the end is CACHET_OK.  Loads at most cachet_pages(c, addr, len) pages, more
 * only if the image changes during the call.  Since 1.2.
 *
 * CACHET_E_IO: a page cannot be read.  CACHET_E_TIMEOUT: the daemon needs
 * longer than request_timeout_ms for the part that it was asked for at once,
 * which is 16 MiB, and up to 64 MiB if the connection is long and fast.
 * CACHET_E_CHANGED: the image changed repeatedly during the call, or, with
 * CACHET_ONE_EPOCH, since it was opened.  CACHET_E_INVAL: the call was made in
 * a callback.  Pages that were loaded before an error stay cached. */
CACHET_API enum cachet_status cachet_warm(cachet *c, uint64_t addr,
                                          uint64_t len) CACHET_NONNULL(1);

/* Drops exactly the pages that overlap the range, from the cache in this
 * process and from the daemon's cache.  A load that begins after this call has
 * returned reads bytes that were read from the source after it.  Slices that
 * are held keep their bytes.  `len` is cut at the image's end.  The epoch does
 * not change.  Waits for a daemon; loads no page.  Semantics: Cachet's
 * `invalidate`.
 *
 * A daemon permits this to root and to its own user on a Unix socket, and to
 * the peers that `allow` of [admin] in cachetd.conf(5) names; if there is no
 * such rule, to peers in the group of the socket.  Others get CACHET_E_ACCESS.
 */
CACHET_API enum cachet_status cachet_invalidate(cachet *c, uint64_t addr,
                                                uint64_t len) CACHET_NONNULL(1);

/* ---- A daemon as such ---------------------------------------------------- */

/* A connection to a daemon that opens no image.  Opaque.  Since 1.2.
 *
 * As with a handle, one thread at a time may use it, and a forked child must
 * not: each call returns CACHET_E_FORKED there, and the child may only call
 * cachet_admin_close().  If the connection was lost, the next call connects
 * again. */
typedef struct cachet_admin cachet_admin;

/* Connects to a daemon.  `uri` is the URI of a daemon's image with an empty
 * IMAGE: cachet+unix:///, cachet+unix:///?socket=PATH, cachet://HOST[:PORT]/,
 * or cachets://HOST[:PORT]/.  Only the time-outs in `options` are used.
 * `options` and `err` may be NULL.  On CACHET_OK the caller owns the connection
 * and must call cachet_admin_close().  Any thread may call it.  Waits for the
 * daemon for at most connect_timeout_ms.  Since 1.2.
 *
 * CACHET_E_INVAL: the URI is that of a file or of an image.  Other errors are
 * those of cachet_open(). */
CACHET_API enum cachet_status
cachet_admin_open(const char *uri, const struct cachet_options *options,
                  cachet_admin **out, struct cachet_error *err);

/* Closes a connection.  NULL is allowed.  Must not be called from a callback of
 * the connection.  Since 1.2. */
CACHET_API void cachet_admin_close(cachet_admin *a);

/* Returns the message of the last failure on this connection.  Never NULL; ""
 * before the first failure.  The string is valid until the next call with the
 * connection.  Since 1.2. */
CACHET_API const char *cachet_admin_errmsg(const cachet_admin *a)
    CACHET_NONNULL(1);

/* cachet_image_info.flags: the daemon cannot open the image now, so
 * cachet_open() would fail.  Its size, page size and epoch are 0. */
#define CACHET_IMAGE_MISSING (1u << 0)

/* cachet_image_info.flags: the image is in a directory that the daemon serves,
 * and nobody has it open.  Its epoch is 0.  Its size is the current one, or 0
 * if the daemon does not know it; it may differ when the image is opened. */
#define CACHET_IMAGE_UNOPENED (1u << 1)

/* The description of an image by a daemon.  The library fills it in.
 * `struct_size` is the size that the library knows; do not use fields beyond
 * it.  Later versions may add fields at the end.  Since 1.2. */
struct cachet_image_info {
  size_t struct_size;
  const char *name;   /* never NULL; any bytes but NUL, as the daemon sent it */
  uint64_t size;      /* bytes */
  uint64_t epoch;     /* as cachet_epoch() */
  uint32_t page_size; /* bytes */
  uint32_t flags;     /* CACHET_IMAGE_..., and bits of later versions */
};

/* Calls `fn` for each image that the daemon permits this process to open.  If
 * `fn` returns a non-zero value, the iteration ends and the call returns
 * CACHET_OK.  The struct and the name in it are valid until `fn` returns.  `fn`
 * runs on the calling thread and under no lock, after the whole answer has
 * arrived: if the call fails, `fn` was not called.  Inside `fn` each call with
 * `a` returns CACHET_E_INVAL; other connections and handles may be used.  Waits
 * for the daemon.  Since 1.2.
 *
 * CACHET_E_TIMEOUT: the daemon did not answer within request_timeout_ms.
 * CACHET_E_PROTO: the answer is invalid. */
CACHET_API enum cachet_status
cachet_admin_list(cachet_admin *a,
                  int (*fn)(void *arg, const struct cachet_image_info *info),
                  void *arg) CACHET_NONNULL(1);

/* Calls `fn` for each counter: first those of the daemon, with `image` == NULL,
 * then those of each image. cachetd(8) lists the counters; they depend on the
 * version of the daemon.  The strings are valid until `fn` returns.  Everything
 * else is as for cachet_admin_list().  Since 1.2. */
CACHET_API enum cachet_status cachet_admin_stats(
    cachet_admin *a,
    int (*fn)(void *arg, const char *image, const char *name, uint64_t value),
    void *arg) CACHET_NONNULL(1);

/* Makes the daemon serve another image, until it reads its configuration again.
 * `name` is 1 to 64 of the characters A-Z a-z 0-9 . _ -.  `source` is what
 * follows the = in the option --image of cachetd(8); a path must be absolute,
 * and is a path on the daemon's machine.  When the call returns CACHET_OK, the
 * image is served.  Waits for the daemon.  Since 1.2.
 *
 * CACHET_E_INVAL: an argument is NULL or invalid, an image of that name exists,
 * or the call was made in a callback.  CACHET_E_ACCESS: the daemon does not
 * permit it to this process.  CACHET_E_BUSY: the daemon is reading its
 * configuration.  CACHET_E_NOIMAGE or CACHET_E_IO: the source cannot be opened.
 * CACHET_E_UNSUPPORTED: the daemon does not support changes.  Other errors are
 * those of cachet_admin_list(). */
CACHET_API enum cachet_status
cachet_admin_add(cachet_admin *a, const char *name, const char *source)
    CACHET_NONNULL(1);

/* Makes the daemon stop serving an image, until it reads its configuration
 * again.  When the call returns CACHET_OK, nobody can open the image.  Handles
 * that have it open get CACHET_E_NOIMAGE soon afterwards, when the daemon has
 * ended the image; until then they may read it.  Slices that they hold keep
 * their bytes.  Waits for the daemon.  Since 1.2.
 *
 * CACHET_E_NOIMAGE: there is no image of that name.  Other errors are those of
 * cachet_admin_add(). */
CACHET_API enum cachet_status cachet_admin_remove(cachet_admin *a,
                                                  const char *name)
    CACHET_NONNULL(1);

/* Makes the daemon end when the clients that have images open have left, or
 * after `timeout_ms` if that is not negative.  Until then no other client can
 * open an image: cachet_open() fails with CACHET_E_BUSY.  Returns when the
 * daemon has received the request, not when it ends.  Since 1.2.
 *
 * CACHET_E_ACCESS: the daemon does not permit it to this process.
 * CACHET_E_UNSUPPORTED: the daemon's version does not support it.  Other errors
 * are those of cachet_admin_list(). */
CACHET_API enum cachet_status cachet_admin_drain(cachet_admin *a,
                                                 int timeout_ms)
    CACHET_NONNULL(1);

/* ---- In an event loop ---------------------------------------------------- */

/* An asynchronous call returns without waiting.  Its request makes progress in
 * cachet_dispatch(), which the event loop of the program calls when cachet_fd()
 * is ready for cachet_events(), or when cachet_timeout_ms() has passed.
 * <cachet/libevent.h> does this for libevent.
 *
 * Each asynchronous call that returns CACHET_OK runs its callback exactly once,
 * even if the request completes at once or is cancelled.  The callback runs
 * inside cachet_dispatch(), on its thread and under no lock.  There is one
 * exception: cachet_close() runs the callbacks of all requests that have not
 * completed, with CACHET_E_CANCELED.  A callback may make every call that does
 * not wait.  A call that would wait returns CACHET_E_INVAL there.  A callback
 * must not call cachet_close().  Blocking calls run no callbacks.
 *
 * If the cache is in this process, cachet_dispatch() reads the source, on the
 * calling thread. */

/* Returns the descriptor to watch, or -1 if there is none now.  It belongs to
 * the library: only watch it.  It may change when the handle connects again, so
 * call this again after each cachet_dispatch(). */
CACHET_API int cachet_fd(const cachet *c) CACHET_NONNULL(1);

/* Returns the events to watch it for: POLLIN, POLLOUT, or both. */
CACHET_API short cachet_events(const cachet *c) CACHET_NONNULL(1);

/* Returns the time in milliseconds after which cachet_dispatch() must be
 * called: 0 if callbacks are due, -1 if there is no such time. */
CACHET_API int cachet_timeout_ms(const cachet *c) CACHET_NONNULL(1);

/* Continues the requests that have not completed, and runs the callbacks that
 * are due.  Never waits for a daemon.  Loads the pages that the requests need.
 * Returns CACHET_OK even if a request fails: its callback gets the failure.
 * CACHET_E_INVAL in a callback. */
CACHET_API enum cachet_status cachet_dispatch(cachet *c) CACHET_NONNULL(1);

/* For code that connects a handle to an event loop.  The library calls `fn`
 * with `arg`, on the handle's thread, whenever the results of cachet_fd(),
 * cachet_events() or cachet_timeout_ms() may have changed.  `fn` may make only
 * these three calls.  A handle has one such function; NULL removes it.
 * cachet_watch_arg() returns the last `arg`, or NULL if there is no function.
 */
typedef void (*cachet_watch_cb)(void *arg);
CACHET_API void cachet_set_watch(cachet *c, cachet_watch_cb fn, void *arg)
    CACHET_NONNULL(1);
CACHET_API void *cachet_watch_arg(const cachet *c) CACHET_NONNULL(1);

/* The callback of cachet_load_async().  If `status` is CACHET_OK, the callback
 * owns the slice: it copies the struct, and the program must call
 * cachet_release().  Otherwise `slice` is NULL. */
typedef void (*cachet_load_cb)(void *arg, enum cachet_status status,
                               struct cachet_slice *slice);
typedef void (*cachet_read_cb)(void *arg, enum cachet_status status);

/* These calls do what cachet_load() and cachet_read() do, without waiting.  If
 * an argument is invalid, the call itself fails and no callback runs.  `out`
 * may be NULL.  The request in `*out` lives until its callback has returned,
 * and so must `buf`.  Each request loads at most as many pages as the blocking
 * call. */
CACHET_API enum cachet_status
cachet_load_async(cachet *c, uint64_t addr, size_t min_len, cachet_load_cb cb,
                  void *arg, struct cachet_request **out) CACHET_NONNULL(1);
CACHET_API enum cachet_status
cachet_read_async(cachet *c, uint64_t addr, void *buf, size_t len,
                  cachet_read_cb cb, void *arg, struct cachet_request **out)
    CACHET_NONNULL(1);

/* Cancels a request whose callback has not run.  The next cachet_dispatch()
 * runs the callback with CACHET_E_CANCELED.  If the request has already
 * completed, its callback gets its own status, and this call changes nothing
 * and returns CACHET_OK. */
CACHET_API enum cachet_status cachet_cancel(cachet *c,
                                            struct cachet_request *request)
    CACHET_NONNULL(1);

#ifdef __cplusplus
}
#endif

#endif /* CACHET_CACHET_H */
