"""Key shares: RFC 8446 sections 4.2.8 and 7.4, draft-ietf-tls-ecdhe-mlkem for the hybrid group."""

from struct import pack

from tlslite.constants import ExtensionType

from hello import vector
from registry import case

P256 = 23
X25519 = 29
X25519_MLKEM768 = 0x11EC
MLKEM768_KEY_BYTES = 1184

# A point of P-256: its generator.
GX = bytes.fromhex('6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296')
GY = bytes.fromhex('4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5')


def share(group, key):
    return pack('>H', group) + vector(2, key)


def shares(*entries):
    return lambda hello: hello.set(ExtensionType.key_share, vector(2, b''.join(entries)))


@case('4.2.8', 'no key_share', 'missing_extension')
def _(attempt):
    attempt.hello = lambda hello: hello.remove(ExtensionType.key_share)


@case('4.2.8', 'a list of shares that is longer than its extension', 'decode_error')
def _(attempt):
    attempt.hello = lambda hello: hello.set(ExtensionType.key_share, b'\x00\xff' + share(X25519, bytes(32)))


@case('4.2.8', 'bytes behind the list of shares', 'decode_error')
def _(attempt):
    attempt.hello = lambda hello: hello.set(ExtensionType.key_share, hello.get(ExtensionType.key_share) + b'\x00')


@case('4.2.8', 'a share that ends early', 'decode_error')
def _(attempt):
    attempt.hello = shares(pack('>HH', X25519, 33) + bytes(32))


@case('4.2.8', 'an empty share', 'decode_error', 'illegal_parameter')
def _(attempt):
    attempt.hello = shares(share(X25519, b''))


@case('4.2.8', 'a share of a group that is not among the supported', 'illegal_parameter')
def _(attempt):
    def change(hello):
        hello.set(ExtensionType.supported_groups, vector(2, pack('>H', P256)))

    attempt.hello = change


@case('4.2.8.2', 'an X25519 share of 31 bytes', 'illegal_parameter')
def _(attempt):
    attempt.hello = shares(share(X25519, bytes([9]) + bytes(30)))


@case('4.2.8.2', 'an X25519 share of 33 bytes', 'illegal_parameter')
def _(attempt):
    attempt.hello = shares(share(X25519, bytes([9]) + bytes(32)))


@case('7.4.2', 'an X25519 share of zeros', 'illegal_parameter')
def _(attempt):
    attempt.hello = shares(share(X25519, bytes(32)))


@case('7.4.2', 'an X25519 share of order 8', 'illegal_parameter')
def _(attempt):
    low = bytes.fromhex('e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800')
    attempt.hello = shares(share(X25519, low))


@case('4.2.8.2', 'a compressed point', 'illegal_parameter')
def _(attempt):
    attempt.hello = shares(share(P256, b'\x03' + GX))


@case('4.2.8.2', 'a point in hybrid form', 'illegal_parameter')
def _(attempt):
    attempt.hello = shares(share(P256, b'\x07' + GX + GY))


@case('4.2.8.2', 'a point beside the curve', 'illegal_parameter')
def _(attempt):
    attempt.hello = shares(share(P256, b'\x04' + GX + GY[:-1] + b'\xf4'))


@case('4.2.8.2', 'a coordinate above the prime', 'illegal_parameter')
def _(attempt):
    attempt.hello = shares(share(P256, b'\x04' + b'\xff' * 32 + GY))


@case('4.2.8.2', 'the point at infinity', 'illegal_parameter')
def _(attempt):
    attempt.hello = shares(share(P256, b'\x00'))


@case('4.2.8.2', 'a point of 64 bytes', 'illegal_parameter')
def _(attempt):
    attempt.hello = shares(share(P256, b'\x04' + GX + GY[:-1]))


def hybrid(key):
    def change(hello):
        hello.set(ExtensionType.supported_groups, vector(2, pack('>H', X25519_MLKEM768)))
        hello.set(ExtensionType.key_share, vector(2, share(X25519_MLKEM768, key)))

    return change


@case('4.2.8, ecdhe-mlkem section 4.1', 'a hybrid share that ends early', 'illegal_parameter')
def _(attempt):
    attempt.hello = hybrid(bytes(MLKEM768_KEY_BYTES + 31))


@case('4.2.8, ecdhe-mlkem section 4.1', 'a hybrid share with coefficients above the modulus', 'illegal_parameter')
def _(attempt):
    attempt.hello = hybrid(b'\xff' * MLKEM768_KEY_BYTES + bytes([9]) + bytes(31))


@case('4.2.8, ecdhe-mlkem section 4.1', 'a hybrid share with an X25519 half of zeros', 'illegal_parameter')
def _(attempt):
    attempt.hello = hybrid(bytes(MLKEM768_KEY_BYTES) + bytes(32))
