"""A host with one network card, in Python: the least of ARP, IPv4, ICMP, UDP and TCP to question a guest with."""

from __future__ import annotations

import socket
import struct

MAC = bytes.fromhex("525400aabbcc")
IP = socket.inet_aton("192.0.2.1")
BROADCAST = b"\xff" * 6
ARP, IPV4 = 0x0806, 0x0800
ICMP, TCP, UDP = 1, 6, 17


def checksum(data: bytes) -> int:
    total = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + b"\0" * (len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ethernet(to: bytes, kind: int, payload: bytes) -> bytes:
    return (to + MAC + struct.pack("!H", kind) + payload).ljust(60, b"\0")


def arp_request(target: bytes) -> bytes:
    header = struct.pack("!HHBBH", 1, IPV4, 6, 4, 1)
    return ethernet(BROADCAST, ARP, header + MAC + IP + b"\0" * 6 + target)


def ipv4(mac: bytes, target: bytes, protocol: int, payload: bytes) -> bytes:
    header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(payload), 1, 0, 64, protocol, 0, IP, target)
    header = header[:10] + struct.pack("!H", checksum(header)) + header[12:]
    return ethernet(mac, IPV4, header + payload)


def ping(payload: bytes) -> bytes:
    message = struct.pack("!BBHHH", 8, 0, 0, 7, 1) + payload
    return message[:2] + struct.pack("!H", checksum(message)) + message[4:]


def udp(port: int, payload: bytes) -> bytes:
    return struct.pack("!HHHH", 4000, port, 8 + len(payload), 0) + payload


def tcp(target: bytes, port: int, sequence: int, acknowledged: int, flags: int, payload: bytes = b"") -> bytes:
    segment = struct.pack("!HHIIBBHHH", 4000, port, sequence, acknowledged, 0x50, flags, 8192, 0, 0) + payload
    total = checksum(IP + target + struct.pack("!HH", TCP, len(segment)) + segment)
    return segment[:16] + struct.pack("!H", total) + segment[18:]


def payload_of(frame: bytes) -> bytes:
    """Check an IPv4 frame's lengths and checksum; return what it carries."""
    assert checksum(frame[14:34]) == 0
    return frame[34 : 14 + struct.unpack_from("!H", frame, 16)[0]]
