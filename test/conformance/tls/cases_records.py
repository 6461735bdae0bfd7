"""The record protocol: RFC 8446 section 5."""

from tlslite.constants import ContentType

from hello import handshake_message, vector
from registry import case

RECORD_BYTES_MAX = 1 << 14
HEARTBEAT = 24


def plain(kind, payload, version=b'\x03\x03'):
    return bytes([kind]) + version + vector(2, payload)


def behind_hello(attempt, change):
    """Runs when the server's flight has come, in place of the client's."""
    attempt.certificate = lambda client, sent: [lambda: change(client), sent]


@case('5.1', 'a record of an unknown type before the handshake', 'unexpected_message', 'protocol_version', 'decode_error')
def _(attempt):
    attempt.target = 'direct'
    attempt.raw = plain(99, b'what is this')


@case('5.1', 'application data before the handshake', 'unexpected_message')
def _(attempt):
    attempt.target = 'direct'
    attempt.raw = plain(ContentType.application_data, b'early')


@case('5.1', 'an empty handshake record', 'unexpected_message', 'decode_error')
def _(attempt):
    attempt.target = 'direct'
    attempt.raw = plain(ContentType.handshake, b'') * 40


@case('5.1', 'a plaintext record above its limit', 'record_overflow')
def _(attempt):
    attempt.target = 'direct'
    payload = handshake_message(1, bytes(20_000))
    attempt.raw = plain(ContentType.handshake, payload[:RECORD_BYTES_MAX + 1], b'\x03\x01')


@case('5.1', 'a ClientHello of 16 MiB to come', 'illegal_parameter', 'decode_error')
def _(attempt):
    attempt.target = 'direct'
    attempt.raw = plain(ContentType.handshake, b'\x01\xff\xff\xff' + bytes(4_000), b'\x03\x01')


@case('5.1', 'a message of the server as the first one', 'unexpected_message')
def _(attempt):
    attempt.target = 'direct'
    attempt.raw = plain(ContentType.handshake, handshake_message(2, bytes(70)), b'\x03\x01')


@case('5.1', 'an alert between the parts of a message', 'unexpected_message', 'decode_error')
def _(attempt):
    attempt.target = 'direct'
    hello = handshake_message(1, b'\x03\x03' + bytes(100))
    attempt.raw = plain(22, hello[:50]) + plain(21, b'\x01\x5a') + plain(22, hello[50:])


@case('5.1', 'application data between the parts of a message', 'unexpected_message')
def _(attempt):
    def change(client, sent):
        data = bytes(sent.write())
        return [
            lambda: client.record(ContentType.handshake, data[:20]),
            lambda: client.record(ContentType.application_data, b'between'),
            lambda: client.record(ContentType.handshake, data[20:]),
        ]

    attempt.finished = change


@case('5.2', 'a protected record with one bit changed', 'bad_record_mac')
def _(attempt):
    def change(client):
        sealed = bytearray(client.sealed(ContentType.application_data, b'GET / HTTP/1.1\r\n'))
        sealed[-1] ^= 1
        client.plain(sealed)

    attempt.after = change


@case('5.2', 'the protected Finished with one bit changed', 'bad_record_mac')
def _(attempt):
    def send(client, sent):
        sealed = bytearray(client.sealed(ContentType.handshake, sent.write()))
        sealed[7] ^= 0x10
        client.plain(sealed)

    attempt.finished = lambda client, sent: [lambda: send(client, sent)]


@case('5.2', 'a protected record whose header was changed', 'bad_record_mac', 'decode_error', 'protocol_version')
def _(attempt):
    def change(client):
        sealed = bytearray(client.sealed(ContentType.application_data, b'GET / HTTP/1.1\r\n'))
        # One byte less: the length is authenticated (section 5.2).
        client.plain(sealed[:3] + vector(2, sealed[5:-1]))

    attempt.after = change


@case('5.2', 'a protected record shorter than its tag', 'bad_record_mac', 'decode_error')
def _(attempt):
    attempt.after = lambda client: client.plain(plain(ContentType.application_data, bytes(15)))


@case('5.2', 'an empty protected record', 'bad_record_mac', 'decode_error', 'unexpected_message')
def _(attempt):
    attempt.after = lambda client: client.plain(plain(ContentType.application_data, b''))


@case('5.2', 'a protected record above its limit', 'record_overflow')
def _(attempt):
    attempt.after = lambda client: client.plain(plain(ContentType.application_data, bytes(RECORD_BYTES_MAX + 257)))


@case('5.2', 'content above its limit in a protected record', 'record_overflow')
def _(attempt):
    attempt.after = lambda client: client.record(ContentType.application_data, bytes(RECORD_BYTES_MAX + 1))


@case('5.4', 'a protected record of zeros', 'unexpected_message')
def _(attempt):
    attempt.after = lambda client: client.record(0, bytes(100))


@case('5.2', 'an unknown type in a protected record', 'unexpected_message')
def _(attempt):
    attempt.after = lambda client: client.record(99, b'what is this')


@case('5.2', 'a heartbeat that nobody agreed on', 'unexpected_message')
def _(attempt):
    attempt.after = lambda client: client.record(HEARTBEAT, b'\x01\x00\x10' + bytes(32))


@case('5.2', 'application data in clear after the handshake', 'bad_record_mac', 'unexpected_message', 'decode_error')
def _(attempt):
    attempt.after = lambda client: client.plain(plain(ContentType.application_data, b'GET / HTTP/1.1\r\n\r\n'))


@case('5.2', 'a handshake message in clear after the handshake', 'unexpected_message', 'bad_record_mac')
def _(attempt):
    attempt.after = lambda client: client.plain(plain(ContentType.handshake, handshake_message(24, b'\x00')))


@case('5.2', 'the client\'s flight in clear', 'unexpected_message', 'bad_record_mac')
def _(attempt):
    attempt.certificate = lambda client, sent: [lambda: client.plain(plain(ContentType.handshake, sent.write()))]


@case('5.3', 'a record again', 'bad_record_mac')
def _(attempt):
    def again(client):
        sealed = client.sealed(ContentType.application_data, b'G')
        client.plain(sealed + sealed)

    attempt.after = again


@case('5.3', 'a record left out', 'bad_record_mac')
def _(attempt):
    def leave_out(client):
        client.sealed(ContentType.application_data, b'this one is lost')
        client.record(ContentType.application_data, b'GET')

    attempt.after = leave_out


@case('5.3', 'two records in the other order', 'bad_record_mac')
def _(attempt):
    def swap(client):
        first = client.sealed(ContentType.application_data, b'GET ')
        client.plain(client.sealed(ContentType.application_data, b'/ HTTP/1.1\r\n') + first)

    attempt.after = swap


@case('5.1', 'an empty protected handshake record', 'unexpected_message')
def _(attempt):
    behind_hello(attempt, lambda client: [client.record(ContentType.handshake, b'') for _ in range(40)])


@case('5', 'change_cipher_spec with another value', 'unexpected_message', 'illegal_parameter')
def _(attempt):
    behind_hello(attempt, lambda client: client.plain(plain(ContentType.change_cipher_spec, b'\x02')))


@case('5', 'change_cipher_spec of two bytes', 'unexpected_message', 'illegal_parameter')
def _(attempt):
    behind_hello(attempt, lambda client: client.plain(plain(ContentType.change_cipher_spec, b'\x01\x01')))


@case('5', 'an empty change_cipher_spec', 'unexpected_message', 'illegal_parameter', 'decode_error')
def _(attempt):
    behind_hello(attempt, lambda client: client.plain(plain(ContentType.change_cipher_spec, b'')))


@case('5', 'a protected change_cipher_spec', 'unexpected_message')
def _(attempt):
    # tlslite leaves change_cipher_spec in clear, so its type comes with the content, and padding behind it.
    behind_hello(attempt, lambda client: client.record(0, b'\x01\x14'))


@case('5', 'change_cipher_spec after the handshake', 'unexpected_message')
def _(attempt):
    attempt.after = lambda client: client.plain(plain(ContentType.change_cipher_spec, b'\x01'))


@case('5', 'change_cipher_spec before the ClientHello', 'unexpected_message')
def _(attempt):
    attempt.target = 'direct'
    attempt.raw = plain(ContentType.change_cipher_spec, b'\x01', b'\x03\x01')


@case('5', 'change_cipher_spec over and over', 'unexpected_message')
def _(attempt):
    behind_hello(attempt, lambda client: client.plain(40 * plain(ContentType.change_cipher_spec, b'\x01')))
