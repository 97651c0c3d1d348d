#include "source/curl_once.h"

#include <pthread.h>
#include <sys/socket.h>

#include <curl/curl.h>

#include "base/fd.h"

static void init_curl(void) { curl_global_init(CURL_GLOBAL_DEFAULT); }

void curl_once(void) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, init_curl);
}

curl_socket_t curl_open_socket(void *arg, curlsocktype purpose,
                               struct curl_sockaddr *a) {
  (void)arg;
  (void)purpose;
  return fd_above_std(
      socket(a->family, a->socktype | SOCK_CLOEXEC, a->protocol));
}
