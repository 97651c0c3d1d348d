/* Files in a directory only: a path that leads out of it, through `..` or a
 * symbolic link, is refused.  A relative link that stays inside is followed.
 * Needs openat2(2), Linux 5.6. */
#ifndef SOURCE_BENEATH_H
#define SOURCE_BENEATH_H

#ifdef __cplusplus
extern "C" {
#endif

/* Opens a directory to open files beneath it.  A descriptor, or a negative
 * errno. */
int beneath_open_directory(const char *path);

/* Does openat(2) with O_CLOEXEC.  Returns a descriptor or a negative errno:
 * -EXDEV if the name leads out of the directory, -ENOSYS if the kernel does not
 * support it. */
int beneath_open(int directory, const char *name, int flags);

#ifdef __cplusplus
}
#endif

#endif
