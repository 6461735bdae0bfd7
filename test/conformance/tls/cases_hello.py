"""ClientHello, its versions and the second one behind a HelloRetryRequest: RFC 8446 sections 4.1 and 4.2.1."""

from struct import pack

from tlslite.constants import ExtensionType

from hello import handshake_message, vector
from registry import case

TLS_1_2_SUITES = b'\xc0\x2b\xc0\x2c\xc0\x23\xcc\xa9'


def record(kind, payload, version=b'\x03\x03'):
    return bytes([kind]) + version + vector(2, payload)


@case('4.1.2', 'session id of 33 bytes', 'decode_error', 'illegal_parameter')
def _(attempt):
    def change(hello):
        hello.session_id = bytes(33)

    attempt.hello = change


@case('4.1.2', 'no compression method', 'decode_error', 'illegal_parameter')
def _(attempt):
    def change(hello):
        hello.compressions = b''

    attempt.hello = change


@case('4.1.2', 'compression methods without null', 'illegal_parameter', 'decode_error')
def _(attempt):
    def change(hello):
        hello.compressions = b'\x01'

    attempt.hello = change


@case('4.1.2', 'a compression method beside null', 'illegal_parameter')
def _(attempt):
    def change(hello):
        hello.compressions = b'\x01\x00'

    attempt.hello = change


@case('4.1.2', 'no cipher suites', 'decode_error', 'illegal_parameter')
def _(attempt):
    def change(hello):
        hello.suites = b''

    attempt.hello = change


@case('4.1.2', 'half a cipher suite', 'decode_error')
def _(attempt):
    def change(hello):
        hello.suites += b'\x13'

    attempt.hello = change


@case('4.1.1', 'only cipher suites of TLS 1.2', 'handshake_failure')
def _(attempt):
    def change(hello):
        hello.suites = TLS_1_2_SUITES

    attempt.hello = change


@case('4.1.1', 'only unknown cipher suites', 'handshake_failure')
def _(attempt):
    def change(hello):
        hello.suites = b'\x13\x99\x7a\x7a'

    attempt.hello = change


@case('4.1.2', 'bytes behind the extensions', 'decode_error')
def _(attempt):
    attempt.target = 'direct'

    def change(hello):
        hello.trailing = b'\x00'

    attempt.hello = change


@case('4.1.2', 'extensions that end early', 'decode_error')
def _(attempt):
    attempt.target = 'direct'

    def change(hello):
        whole = hello.message()
        return handshake_message(1, whole[4:-3])

    attempt.hello = change


@case('4.1.2', 'a ClientHello of three bytes', 'decode_error')
def _(attempt):
    attempt.target = 'direct'
    attempt.hello = lambda hello: handshake_message(1, b'\x03\x03\x00')


@case('4.1.2', 'an empty ClientHello', 'decode_error')
def _(attempt):
    attempt.target = 'direct'
    attempt.hello = lambda hello: handshake_message(1, b'')


@case('4.1.2', 'half an extension header', 'decode_error')
def _(attempt):
    attempt.target = 'direct'

    def change(hello):
        body = hello.message()[4:]
        at = body.rindex(pack('>H', hello.extensions[-1][0]) + vector(2, hello.extensions[-1][1]))
        start = 2 + 32 + 1 + len(hello.session_id) + 2 + len(hello.suites) + 1 + len(hello.compressions)
        extensions = body[start + 2:at] + b'\x00\x2b\x00'
        return handshake_message(1, body[:start] + vector(2, extensions))

    attempt.hello = change


@case('4.2', 'an extension twice', 'illegal_parameter', 'decode_error')
def _(attempt):
    def change(hello):
        hello.extensions.append([ExtensionType.supported_groups, hello.get(ExtensionType.supported_groups)])

    attempt.hello = change


@case('4.1.2', 'a second ClientHello after the handshake', 'unexpected_message')
def _(attempt):
    sent = []
    attempt.hello = lambda hello: sent.append(hello.message())
    attempt.after = lambda client: client.record(22, sent[0])


@case('4.1.2', 'a second ClientHello that nobody asked for', 'unexpected_message')
def _(attempt):
    sent = []
    attempt.hello = lambda hello: sent.append(hello.message())
    attempt.certificate = lambda client, message: [lambda: client.record(22, sent[0])]


def _retried(attempt):
    """Offers no key share, so that a HelloRetryRequest comes."""
    attempt.key_shares = []


@case('4.1.2', 'the second ClientHello without the key share that was asked for', 'illegal_parameter')
def _(attempt):
    _retried(attempt)
    attempt.second_hello = lambda hello: hello.set(ExtensionType.key_share, vector(2, b''))


@case('4.1.2', 'the second ClientHello with a key share of another group', 'illegal_parameter')
def _(attempt):
    _retried(attempt)
    attempt.second_hello = lambda hello: hello.set(
        ExtensionType.key_share, vector(2, pack('>H', 23) + vector(2, b'\x04' + bytes(64)))
    )


@case('4.1.2', 'the second ClientHello without key_share', 'missing_extension', 'illegal_parameter')
def _(attempt):
    _retried(attempt)
    attempt.second_hello = lambda hello: hello.remove(ExtensionType.key_share)


@case('4.1.4', 'the second ClientHello with other cipher suites', 'illegal_parameter', 'handshake_failure')
def _(attempt):
    _retried(attempt)

    def change(hello):
        hello.suites = b'\x13\x99'

    attempt.second_hello = change


@case('4.1.4', 'the second ClientHello without supported_versions', 'protocol_version', 'missing_extension')
def _(attempt):
    _retried(attempt)
    attempt.second_hello = lambda hello: hello.remove(ExtensionType.supported_versions)




@case('4.2.1', 'TLS 1.2 alone', 'protocol_version')
def _(attempt):
    attempt.hello = lambda hello: hello.set(ExtensionType.supported_versions, vector(1, b'\x03\x03'))


@case('4.2.1', 'TLS 1.1 alone', 'protocol_version')
def _(attempt):
    attempt.hello = lambda hello: hello.set(ExtensionType.supported_versions, vector(1, b'\x03\x02'))


@case('4.2.1', 'SSL 3 alone', 'protocol_version')
def _(attempt):
    attempt.hello = lambda hello: hello.set(ExtensionType.supported_versions, vector(1, b'\x03\x00'))


@case('4.2.1', 'a draft of TLS 1.3 alone', 'protocol_version')
def _(attempt):
    attempt.hello = lambda hello: hello.set(ExtensionType.supported_versions, vector(1, b'\x7f\x1c'))


@case('4.2.1', 'a version of the future alone', 'protocol_version')
def _(attempt):
    attempt.hello = lambda hello: hello.set(ExtensionType.supported_versions, vector(1, b'\x03\x05'))


@case('4.2.1', 'no version in the list', 'decode_error', 'protocol_version')
def _(attempt):
    attempt.hello = lambda hello: hello.set(ExtensionType.supported_versions, vector(1, b''))


@case('4.2.1', 'half a version in the list', 'decode_error', 'protocol_version')
def _(attempt):
    attempt.hello = lambda hello: hello.set(ExtensionType.supported_versions, vector(1, b'\x03\x04\x03'))


@case('4.2.1', 'bytes behind the list of versions', 'decode_error', 'protocol_version')
def _(attempt):
    attempt.hello = lambda hello: hello.set(ExtensionType.supported_versions, vector(1, b'\x03\x04') + b'\x00')


@case('4.2.1', 'a ClientHello of TLS 1.2', 'protocol_version')
def _(attempt):
    def change(hello):
        hello.remove(ExtensionType.supported_versions)
        hello.suites = TLS_1_2_SUITES

    attempt.hello = change


@case('4.2.1', 'TLS 1.3 said in the legacy version only', 'protocol_version')
def _(attempt):
    def change(hello):
        hello.remove(ExtensionType.supported_versions)
        hello.version = b'\x03\x04'

    attempt.hello = change


@case('4.2.1', 'a ClientHello of TLS 1.0', 'protocol_version')
def _(attempt):
    def change(hello):
        hello.remove(ExtensionType.supported_versions)
        hello.version = b'\x03\x01'
        hello.suites = TLS_1_2_SUITES

    attempt.hello = change


@case('4.2.1', 'a ClientHello without extensions', 'protocol_version')
def _(attempt):
    attempt.target = 'direct'

    def change(hello):
        hello.has_extensions = False

    attempt.hello = change


@case('D.5', 'a ClientHello of SSL 2', 'protocol_version', 'unexpected_message', 'decode_error', 'closed')
def _(attempt):
    attempt.target = 'direct'
    hello = b'\x01\x03\x04' + pack('>HHH', 3, 0, 16) + b'\x00\x13\x01' + bytes(16)
    attempt.raw = pack('>H', 0x8000 | len(hello)) + hello


@case('D.5', 'a request in clear where TLS is due', 'unexpected_message', 'decode_error', 'protocol_version', 'closed')
def _(attempt):
    attempt.target = 'direct'
    attempt.raw = b'GET / HTTP/1.1\r\nHost: a\r\n\r\n'
