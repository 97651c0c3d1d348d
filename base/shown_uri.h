/* What messages show of a URI.  Logs and error messages have more readers than
 * the secrets of a URI may have, so code that prints a URI prints what
 * shown_uri_of() leaves of it. */
#ifndef BASE_SHOWN_URI_H
#define BASE_SHOWN_URI_H

#ifdef __cplusplus
extern "C" {
#endif

/* The part of a text that people may see, in memory from malloc(3).  Of a URI
 * it is the part without the user (between the scheme and an @), and without
 * query and fragment, which may contain a signature.  It hides them also in a
 * URI that is wrong: messages that refuse a text show it by this.  A path is
 * shown whole.  NULL: no memory. */
char *shown_uri_of(const char *text);

#ifdef __cplusplus
}
#endif

#endif
