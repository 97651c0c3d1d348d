#!/usr/bin/env python3
"""Whether the exchange in docs/protocol.md is what the daemon sends.

    exchange.py CACHETD DOCUMENT

Sends the client's frames to a daemon, and compares its answers with those of the
document, field by field.  Only the epoch differs: it must be the same in all
answers.

Prints `ok - NAME` and `not ok - NAME`, as tests/run counts them.
"""
import os
import re
import socket
import struct
import subprocess
import sys
import tempfile

SIZE = 84 << 20
AT_512 = b"EFI PART"
TIMEOUT_S = 60

# Paths of fields: those that hold a message, and those that hold an epoch.
MESSAGES = {(16,), (17,), (17, 1), (18,)}
EPOCHS = {(17, 1, 5), (18, 1)}


def read_exchange(path):
    """(mark, bytes) of each frame: `>` is the client's, `<` the daemon's."""
    with open(path, encoding="utf-8") as f:
        text = f.read().split("\n## An exchange\n")[1].split("\n## ")[0]
    frames = []
    for line in text.splitlines():
        m = re.match(r"    ([<>])? *((?:[0-9a-f]{2} )*[0-9a-f]{2})(?:  |$)", line)
        if m and m[1]:
            frames.append((m[1], bytearray()))
        if m:
            frames[-1][1].extend(bytes.fromhex(m[2]))
    return [(mark, bytes(frame)) for mark, frame in frames]


def varint(data, at):
    value, shift = 0, 0
    while True:
        value |= (data[at] & 0x7f) << shift
        shift += 7
        at += 1
        if data[at - 1] < 0x80:
            return value, at


def fields(data, epochs, path=()):
    """A message as (field, value); its epochs go to a set."""
    found, at = [], 0
    while at < len(data):
        key, at = varint(data, at)
        here = path + (key >> 3,)
        value, at = varint(data, at)
        if key & 7 == 2:
            value, at = data[at:at + value], at + value
        if here in MESSAGES:
            value = fields(value, epochs, here)
        elif here in EPOCHS:
            epochs.add(value)
            value = "epoch"
        found.append((key >> 3, value))
    return found


def parse(frame, epochs):
    """(fields of the message, payload); the lengths must fit."""
    message_len, payload_len = struct.unpack_from("<II", frame)
    if len(frame) != 8 + message_len + payload_len:
        raise ValueError("%d bytes, not 8 + %d + %d" %
                         (len(frame), message_len, payload_len))
    return (fields(frame[8:8 + message_len], epochs),
            frame[8 + message_len:])


def receive(peer, n):
    data = b""
    while len(data) < n:
        more = peer.recv(n - len(data))
        if not more:
            raise ValueError("the daemon closes after %r" % data)
        data += more
    return data


def receive_frame(peer):
    header = receive(peer, 8)
    return header + receive(peer, sum(struct.unpack("<II", header)))


def start_daemon(program, image):
    """The process, and the port that its log names."""
    daemon = subprocess.Popen(
        [program, "--config", "/dev/null", "--image", "vm7=" + image,
         "--cache-size", "16M", "--listen", "tcp:127.0.0.1:0"],
        stdin=subprocess.DEVNULL, stderr=subprocess.PIPE,
        universal_newlines=True)
    for line in daemon.stderr:
        m = re.search(r"event=ready .*listen=tcp:127\.0\.0\.1:(\d+)", line)
        if m:
            return daemon, int(m[1])
    raise ValueError("the daemon did not start")


def compare(exchange, peer):
    """Yields what is wrong."""
    expected_epochs, epochs = set(), set()
    for mark, frame in exchange:
        if mark == ">":
            peer.sendall(frame)
            continue
        expected = parse(frame, expected_epochs)
        answer = parse(receive_frame(peer), epochs)
        if answer != expected:
            yield "the daemon sends %r, the document has %r" % (answer,
                                                                expected)
    if len(expected_epochs) != 1 or len(epochs) != 1:
        yield "the epochs are not one: %r, %r" % (expected_epochs, epochs)


def main():
    program, document = sys.argv[1:]
    exchange = read_exchange(document)
    with tempfile.TemporaryDirectory() as folder:
        image = os.path.join(folder, "vm7")
        with open(image, "wb") as f:
            f.truncate(SIZE)
            f.seek(512)
            f.write(AT_512)
        daemon, port = start_daemon(program, image)
        try:
            with socket.create_connection(("127.0.0.1", port),
                                          TIMEOUT_S) as peer:
                wrong = list(compare(exchange, peer))
        except (OSError, ValueError) as e:
            wrong = [str(e)]
        finally:
            daemon.kill()
            daemon.wait()
            daemon.stderr.close()
    wrong += [] if len(exchange) == 6 else ["%d frames" % len(exchange)]
    print("%sok - the exchange in %s is what the daemon sends" %
          ("not " if wrong else "", os.path.basename(document)))
    for line in wrong:
        print("  " + line)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
