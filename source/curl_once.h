/* What libcurl wants done once in a process, before anything else. */
#ifndef SOURCE_CURL_ONCE_H
#define SOURCE_CURL_ONCE_H

#ifdef __cplusplus
extern "C" {
#endif

/* Any thread. */
void curl_once(void);

#ifdef __cplusplus
}
#endif

#endif
