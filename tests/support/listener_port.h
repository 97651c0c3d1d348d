// The port that a TCP listener was given, where a test asked for port 0.
#ifndef TESTS_SUPPORT_LISTENER_PORT_H
#define TESTS_SUPPORT_LISTENER_PORT_H

#include <string>

#include "daemon/net/listener.h"

inline int ListenerPort(const listener *l) {
  const std::string text = listener_text(l);
  return std::stoi(text.substr(text.rfind(':') + 1));
}

#endif
