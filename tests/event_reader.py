"""Event files of TensorBoard, read back by their form alone: a record is its length, a checksum of
that, a message of Protocol Buffers, and a checksum of this (CRC-32C, rotated)."""

from __future__ import annotations

import struct
from pathlib import Path

POLYNOMIAL = 0x82F63B78


def checksum(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (POLYNOMIAL if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def messages_in(path: Path) -> list[bytes]:
    data, messages = path.read_bytes(), []
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        message = data[12 : 12 + length]
        assert struct.unpack("<I", data[8:12]) == (checksum(data[:8]),)
        assert struct.unpack("<I", data[12 + length : 16 + length]) == (checksum(message),)
        messages.append(message)
        data = data[16 + length :]
    return messages


def varint_at(data: bytes, place: int) -> tuple[int, int]:
    """A number, and the place behind it."""
    number = shift = 0
    while True:
        byte = data[place]
        number |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if not byte & 0x80:
            return number, place


def fields_of(message: bytes) -> list[tuple[int, object]]:
    """The numbers of the fields, and their values."""
    fields, place = [], 0
    while place < len(message):
        key, place = varint_at(message, place)
        kind = key & 7
        value: object
        if kind == 0:
            value, place = varint_at(message, place)
        elif kind == 2:
            length, place = varint_at(message, place)
            value, place = message[place : place + length], place + length
        else:
            form, size = {1: ("<d", 8), 5: ("<f", 4)}[kind]
            (value,) = struct.unpack(form, message[place : place + size])
            place += size
        fields.append((key >> 3, value))
    return fields


def scalars_in(folder: Path) -> list[tuple[int, float, dict[str, float]]]:
    """Step, time and named numbers of all events with numbers in the only file of a folder."""
    (path,) = folder.glob("events.out.tfevents.*")
    events = []
    for message in messages_in(path):
        fields = dict(fields_of(message))  # time 1, step 2, summary 5
        if 5 in fields:
            values = [dict(fields_of(value)) for _, value in fields_of(fields[5])]  # tag 1, 2
            numbers = {value[1].decode(): value.get(2, 0.0) for value in values}
            events.append((fields.get(2, 0), fields.get(1, 0.0), numbers))
    return events
