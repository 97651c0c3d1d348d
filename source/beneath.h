/* Files of a directory, and of no other: paths that lead out of it, by `..` or
 * by a symbolic link, are refused.  A link that stays in it is followed; it is
 * relative.  Needs openat2(2), Linux 5.6. */
#ifndef SOURCE_BENEATH_H
#define SOURCE_BENEATH_H

#ifdef __cplusplus
extern "C" {
#endif

/* Opens a directory to open files beneath it.  A descriptor, or a negative
 * errno. */
int beneath_open_directory(const char *path);

/* As openat(2) with O_CLOEXEC.  A descriptor, or a negative errno: -EXDEV if
 * the name leads out of the directory, -ENOSYS where the kernel cannot tell. */
int beneath_open(int directory, const char *name, int flags);

#ifdef __cplusplus
}
#endif

#endif
