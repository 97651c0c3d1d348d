#include "source/curl_once.h"

#include <pthread.h>

#include <curl/curl.h>

static void init_curl(void) { curl_global_init(CURL_GLOBAL_DEFAULT); }

void curl_once(void) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, init_curl);
}
