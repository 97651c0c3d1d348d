/* The numbers in Error.status.  They are those of enum cachet_status in the
 * public header that a daemon sends, with names of the wire, so that the daemon
 * does not include the client's header.  tests/daemon/server_test.cc compares
 * the two. */
#ifndef PROTO_STATUS_H
#define PROTO_STATUS_H

enum wire_status {
  WIRE_OK = 0,
  WIRE_E_INVAL = -1,
  WIRE_E_BOUNDS = -2,
  WIRE_E_NOMEM = -3,
  WIRE_E_IO = -4,
  WIRE_E_NOIMAGE = -5,
  WIRE_E_ACCESS = -6,
  WIRE_E_PROTO = -8,
  WIRE_E_TIMEOUT = -9,
  WIRE_E_BUSY = -10,
  WIRE_E_CANCELED = -12,
  WIRE_E_CHANGED = -13,
  WIRE_E_UNSUPPORTED = -14,
};

#endif
