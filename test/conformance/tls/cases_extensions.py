"""Extensions of the ClientHello but for key shares: RFC 8446 section 4.2, and those that it takes over."""

from struct import pack

from tlslite.constants import ExtensionType

from hello import vector
from registry import case

STATUS_REQUEST = 5


def extension(kind, content):
    return lambda hello: hello.set(kind, content)


def without(kind):
    return lambda hello: hello.remove(kind)


@case('4.2.3', 'no signature_algorithms', 'missing_extension')
def _(attempt):
    attempt.hello = without(ExtensionType.signature_algorithms)


@case('4.2.3', 'no signature algorithm in the list', 'decode_error')
def _(attempt):
    attempt.hello = extension(ExtensionType.signature_algorithms, vector(2, b''))


@case('4.2.3', 'half a signature algorithm', 'decode_error')
def _(attempt):
    attempt.hello = extension(ExtensionType.signature_algorithms, vector(2, b'\x04\x03\x08'))


@case('4.2.3', 'only signature algorithms of other keys', 'handshake_failure')
def _(attempt):
    attempt.hello = extension(ExtensionType.signature_algorithms, vector(2, b'\x08\x04\x08\x05\x08\x07'))


@case('4.2.3', 'only signature algorithms of TLS 1.2', 'handshake_failure')
def _(attempt):
    attempt.hello = extension(ExtensionType.signature_algorithms, vector(2, b'\x02\x03\x02\x01\x04\x01'))


@case('4.2.3', 'only unknown signature algorithms', 'handshake_failure')
def _(attempt):
    attempt.hello = extension(ExtensionType.signature_algorithms, vector(2, b'\xfe\x01'))


@case('4.2.3', 'no algorithm in signature_algorithms_cert', 'decode_error')
def _(attempt):
    attempt.hello = extension(ExtensionType.signature_algorithms_cert, vector(2, b''))


@case('4.2.6', 'post_handshake_auth with a body', 'decode_error')
def _(attempt):
    attempt.hello = extension(ExtensionType.post_handshake_auth, b'\x00')


@case('4.2.7', 'no supported_groups', 'missing_extension')
def _(attempt):
    attempt.hello = without(ExtensionType.supported_groups)


@case('4.2.7', 'no group in the list', 'decode_error', 'illegal_parameter')
def _(attempt):
    attempt.hello = extension(ExtensionType.supported_groups, vector(2, b''))


@case('4.2.7', 'half a group', 'decode_error')
def _(attempt):
    attempt.hello = extension(ExtensionType.supported_groups, vector(2, b'\x00\x1d\x00'))


@case('4.2.7', 'only groups that the server has not', 'handshake_failure')
def _(attempt):
    def change(hello):
        hello.set(ExtensionType.supported_groups, vector(2, b'\x01\x00\x00\x1e'))
        hello.set(ExtensionType.key_share, vector(2, b''))

    attempt.hello = change


@case('4.2.9', 'pre_shared_key without psk_key_exchange_modes', 'missing_extension')
def _(attempt):
    def change(hello):
        hello.remove(ExtensionType.psk_key_exchange_modes)
        hello.set(ExtensionType.pre_shared_key, offered())

    attempt.hello = change


@case('4.2.9', 'no mode in psk_key_exchange_modes', 'decode_error')
def _(attempt):
    attempt.hello = extension(ExtensionType.psk_key_exchange_modes, vector(1, b''))


@case('4.2.10', 'early_data with a body', 'decode_error')
def _(attempt):
    attempt.hello = extension(ExtensionType.early_data, b'\x00')


def offered(identities=((b'ticket', 0),), binders=(bytes(32),)):
    """The body of pre_shared_key (RFC 8446 section 4.2.11)."""
    listed = b''.join(vector(2, name) + pack('>I', age) for name, age in identities)
    return vector(2, listed) + vector(2, b''.join(vector(1, binder) for binder in binders))


@case('4.2.11', 'pre_shared_key that is not the last extension', 'illegal_parameter')
def _(attempt):
    attempt.hello = lambda hello: hello.extensions.insert(0, [ExtensionType.pre_shared_key, offered()])


@case('4.2.11', 'an identity without age', 'decode_error')
def _(attempt):
    attempt.hello = extension(
        ExtensionType.pre_shared_key, vector(2, vector(2, b'ticket')) + vector(2, vector(1, bytes(32)))
    )


@case('4.2', 'supported_groups with bytes behind the list', 'decode_error')
def _(attempt):
    attempt.hello = lambda hello: hello.set(
        ExtensionType.supported_groups, hello.get(ExtensionType.supported_groups) + b'\x00'
    )


@case('4.2, RFC 6066 section 3', 'no name in server_name', 'decode_error')
def _(attempt):
    attempt.target = 'direct'
    attempt.hello = extension(ExtensionType.server_name, vector(2, b''))


@case('4.2, RFC 6066 section 3', 'an empty name in server_name', 'decode_error', 'illegal_parameter', 'closed')
def _(attempt):
    attempt.target = 'direct'
    attempt.hello = extension(ExtensionType.server_name, vector(2, b'\x00' + vector(2, b'')))


@case('4.2, RFC 6066 section 3', 'a name with NUL in it', 'unrecognized_name', 'illegal_parameter', 'decode_error')
def _(attempt):
    attempt.target = 'direct'
    attempt.hello = lambda hello: hello.set(
        ExtensionType.server_name, vector(2, b'\x00' + vector(2, b'web\x00.example'))
    )


@case('4.2, RFC 6066 section 3', 'a name of 256 bytes', 'unrecognized_name', 'illegal_parameter', 'decode_error')
def _(attempt):
    attempt.target = 'direct'
    attempt.hello = extension(ExtensionType.server_name, vector(2, b'\x00' + vector(2, b'a' * 256)))


@case('4.2, RFC 7301 section 3.1', 'no protocol in ALPN', 'decode_error')
def _(attempt):
    attempt.hello = extension(ExtensionType.alpn, vector(2, b''))


@case('4.2, RFC 7301 section 3.1', 'an empty protocol in ALPN', 'decode_error')
def _(attempt):
    attempt.hello = extension(ExtensionType.alpn, vector(2, vector(1, b'h2') + vector(1, b'')))


@case('4.2, RFC 6066 section 4', 'an unknown max_fragment_length', 'illegal_parameter')
def _(attempt):
    attempt.hello = extension(ExtensionType.max_fragment_length, b'\x09')


@case('4.2, RFC 6066 section 8', 'status_request that ends early', 'decode_error')
def _(attempt):
    attempt.hello = extension(STATUS_REQUEST, b'\x01\x00')


@case('4.2', 'the proxy\'s own port with another server name', 'closed')
def _(attempt):
    attempt.target = 'direct'
    attempt.hello = lambda hello: hello.set(
        ExtensionType.server_name, vector(2, b'\x00' + vector(2, b'other.shop.serviceaccount.identity.heddle.cluster.local'))
    )


@case('4.2', 'the proxy\'s own port without server name', 'closed')
def _(attempt):
    attempt.target = 'direct'
    attempt.hello = without(ExtensionType.server_name)


@case('4.2, RFC 7301 section 3.2', 'the proxy\'s own port without ALPN', 'closed')
def _(attempt):
    attempt.target = 'direct'
    attempt.hello = without(ExtensionType.alpn)
