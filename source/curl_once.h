/* What all users of libcurl do: what it wants done once in a process, before
 * anything else, and the sockets that it gets. */
#ifndef SOURCE_CURL_ONCE_H
#define SOURCE_CURL_ONCE_H

#include <curl/curl.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Any thread. */
void curl_once(void);

/* For CURLOPT_OPENSOCKETFUNCTION: in a program that has closed its standard
 * files, or executes another one. */
curl_socket_t curl_open_socket(void *arg, curlsocktype purpose,
                               struct curl_sockaddr *a);

#ifdef __cplusplus
}
#endif

#endif
