"""The client's Certificate, CertificateVerify and Finished: RFC 8446 sections 4.4.2 to 4.4.4, RFC 5280 for what is in the
certificates. NAME of an identity: see the certificates that the test makes."""

import zlib

from tlslite.constants import ContentType
from tlslite.messages import Message

from hello import handshake_message, vector
from registry import case

CERTIFICATE = 11
CERTIFICATE_VERIFY = 15
FINISHED = 20
COMPRESSED_CERTIFICATE = 25

ECDSA_SHA1 = b'\x02\x03'
RSA_PKCS1_SHA256 = b'\x04\x01'
ECDSA_SECP256R1_SHA256 = b'\x04\x03'
ECDSA_SECP384R1_SHA384 = b'\x05\x03'
RSA_PSS_SHA256 = b'\x08\x04'
ED448 = b'\x08\x08'


def message(kind, body):
    return Message(ContentType.handshake, bytearray(handshake_message(kind, body)))


def entries(certificate_message):
    """The certificate_list of a Certificate, without its length."""
    return bytes(certificate_message.write())[4 + 1 + 3:]


def certificate_list(listed, context=b''):
    return message(CERTIFICATE, vector(1, context) + vector(3, listed))


@case('4.4.2', 'a request context that nobody gave', 'illegal_parameter', 'decode_error')
def _(attempt):
    attempt.certificate = lambda client, sent: [certificate_list(entries(sent), b'context')]


@case('4.4.2', 'an empty certificate in the list', 'decode_error', 'bad_certificate')
def _(attempt):
    attempt.certificate = lambda client, sent: [certificate_list(vector(3, b'') + vector(2, b''))]


@case('4.4.2', 'a certificate that is none', 'bad_certificate', 'decode_error')
def _(attempt):
    attempt.certificate = lambda client, sent: [certificate_list(vector(3, b'no certificate') + vector(2, b''))]


@case('4.4.2', 'a certificate that ends early', 'bad_certificate', 'decode_error')
def _(attempt):
    def cut(client, sent):
        listed = entries(sent)
        first = listed[3:3 + int.from_bytes(listed[:3], 'big')]
        return [certificate_list(vector(3, first[:-1]) + vector(2, b''))]

    attempt.certificate = cut


@case('4.4.2', 'bytes behind a certificate', 'bad_certificate', 'decode_error')
def _(attempt):
    def lengthen(client, sent):
        listed = entries(sent)
        first = listed[3:3 + int.from_bytes(listed[:3], 'big')]
        return [certificate_list(vector(3, first + b'\x00') + vector(2, b''))]

    attempt.certificate = lengthen


@case('4.4.2', 'bytes behind the list', 'decode_error')
def _(attempt):
    attempt.certificate = lambda client, sent: [
        message(CERTIFICATE, vector(1, b'') + vector(3, entries(sent)) + b'\x00')
    ]


@case('4.4.2', 'an entry without extensions block', 'decode_error')
def _(attempt):
    attempt.certificate = lambda client, sent: [certificate_list(entries(sent)[:-2])]


@case('4.4.2', 'an extension that was not asked for', 'illegal_parameter', 'unsupported_extension')
def _(attempt):
    def extend(client, sent):
        listed = entries(sent)
        first = listed[3:3 + int.from_bytes(listed[:3], 'big')]
        # server_name belongs into no Certificate.
        return [certificate_list(vector(3, first) + vector(2, b'\x00\x00' + vector(2, b'')))]

    attempt.certificate = extend


@case('4.4.2, RFC 8879 section 4', 'a compressed Certificate that was not asked for', 'unexpected_message')
def _(attempt):
    def compress(client, sent):
        body = bytes(sent.write())[4:]
        packed = zlib.compress(body)
        return [message(COMPRESSED_CERTIFICATE, b'\x00\x01' + len(body).to_bytes(3, 'big') + vector(3, packed))]

    attempt.certificate = compress


@case('4.4.2', 'no Certificate at all', 'unexpected_message')
def _(attempt):
    attempt.certificate = lambda client, sent: []


@case('4.4.2', 'Certificate twice', 'unexpected_message')
def _(attempt):
    attempt.certificate = lambda client, sent: [sent, sent]


@case('4.4.2', 'the server\'s messages sent by the client', 'unexpected_message')
def _(attempt):
    attempt.certificate = lambda client, sent: [message(8, vector(2, b''))]


@case('4.4.2.4', 'a certificate of another authority', 'unknown_ca')
def _(attempt):
    attempt.identity = 'other-authority'


@case('4.4.2.4', 'a certificate signed by itself', 'unknown_ca')
def _(attempt):
    attempt.identity = 'self-signed'


@case('4.4.2.4', 'a chain without its intermediate', 'unknown_ca')
def _(attempt):
    attempt.identity = 'without-intermediate'


@case('4.4.2.4', 'a certificate that has expired', 'certificate_expired')
def _(attempt):
    attempt.identity = 'expired'


@case('4.4.2.4', 'a certificate of tomorrow', 'bad_certificate', 'certificate_expired')
def _(attempt):
    attempt.identity = 'not-yet-valid'


@case('4.4.2.4', 'a certificate whose signature is wrong', 'decrypt_error', 'bad_certificate')
def _(attempt):
    attempt.identity = 'wrong-signature'


@case('4.4.2.3, RFC 5280 section 4.2.1.12', 'a certificate for servers only', 'unsupported_certificate')
def _(attempt):
    attempt.identity = 'server-only'


@case('4.4.2.3, RFC 5280 section 4.2.1.3', 'a certificate that may not sign', 'unsupported_certificate')
def _(attempt):
    attempt.identity = 'no-signing'


@case('4.4.2.4, RFC 5280 section 4.2.1.9', 'a certificate issued by a leaf', 'unknown_ca')
def _(attempt):
    attempt.identity = 'issued-by-leaf'


@case('4.4.2.4, RFC 5280 section 4.2.1.9', 'a chain longer than its authority allows', 'unknown_ca')
def _(attempt):
    attempt.identity = 'path-too-long'


@case('4.4.2.4, RFC 5280 section 4.2.1.10', 'a name that its authority may not give', 'bad_certificate', 'certificate_unknown')
def _(attempt):
    attempt.identity = 'name-not-permitted'


@case('4.4.2.4, RFC 5280 section 4.2', 'an unknown critical extension', 'unsupported_certificate', 'certificate_unknown')
def _(attempt):
    attempt.identity = 'critical-extension'


@case('4.4.2.4', 'an RSA key of 1,024 bits', 'bad_certificate', 'handshake_failure', 'certificate_unknown')
def _(attempt):
    attempt.identity = 'weak-rsa'


@case('4.4.2.4', 'a certificate signed with SHA-1', 'bad_certificate', 'unsupported_certificate')
def _(attempt):
    attempt.identity = 'sha1'


@case('4.4.2', 'the proxy\'s own port without a certificate', 'closed')
def _(attempt):
    attempt.target = 'direct'
    attempt.identity = None


@case('4.4.3', 'no CertificateVerify', 'unexpected_message')
def _(attempt):
    attempt.certificate_verify = lambda client, sent: []


@case('4.4.3', 'CertificateVerify without a certificate', 'unexpected_message')
def _(attempt):
    attempt.certificate = lambda client, sent: [certificate_list(b'')]


@case('4.4.3', 'CertificateVerify twice', 'unexpected_message')
def _(attempt):
    attempt.certificate_verify = lambda client, sent: [sent, sent]


@case('4.4.3', 'a signature by another key', 'decrypt_error')
def _(attempt):
    attempt.key = 'other-authority'


def signature_of(sent):
    body = bytes(sent.write())[4:]
    return body[4:]


def verify(algorithm, signature):
    return message(CERTIFICATE_VERIFY, algorithm + vector(2, signature))


@case('4.4.3', 'a signature with one bit changed', 'decrypt_error')
def _(attempt):
    def change(client, sent):
        signature = bytearray(signature_of(sent))
        signature[-1] ^= 1
        return [verify(ECDSA_SECP256R1_SHA256, signature)]

    attempt.certificate_verify = change


@case('4.4.3', 'a signature over another transcript', 'decrypt_error')
def _(attempt):
    # The server counts this message in, the client does not.
    def change(client, sent):
        kept = client._handshake_hash.copy()
        return [sent, lambda: setattr(client, '_handshake_hash', kept)]

    def extra(client, sent):
        client._handshake_hash.update(bytearray(b'more'))
        return None

    attempt.certificate = extra
    attempt.certificate_verify = change


@case('4.4.3', 'an empty signature', 'decrypt_error', 'decode_error')
def _(attempt):
    attempt.certificate_verify = lambda client, sent: [verify(ECDSA_SECP256R1_SHA256, b'')]


@case('4.4.3', 'a signature that is no DER', 'decrypt_error', 'decode_error')
def _(attempt):
    attempt.certificate_verify = lambda client, sent: [verify(ECDSA_SECP256R1_SHA256, bytes(70))]


@case('4.4.3', 'bytes behind the signature', 'decode_error')
def _(attempt):
    attempt.certificate_verify = lambda client, sent: [
        message(CERTIFICATE_VERIFY, ECDSA_SECP256R1_SHA256 + vector(2, signature_of(sent)) + b'\x00')
    ]


@case('4.4.3', 'a CertificateVerify of one byte', 'decode_error')
def _(attempt):
    attempt.certificate_verify = lambda client, sent: [message(CERTIFICATE_VERIFY, b'\x04')]


@case('4.4.3', 'the algorithm of an RSA key', 'illegal_parameter')
def _(attempt):
    attempt.certificate_verify = lambda client, sent: [verify(RSA_PSS_SHA256, signature_of(sent))]


@case('4.4.3', 'the algorithm of another curve', 'illegal_parameter')
def _(attempt):
    attempt.certificate_verify = lambda client, sent: [verify(ECDSA_SECP384R1_SHA384, signature_of(sent))]


@case('4.4.3', 'an algorithm for certificates only', 'illegal_parameter')
def _(attempt):
    attempt.certificate_verify = lambda client, sent: [verify(RSA_PKCS1_SHA256, signature_of(sent))]


@case('4.4.3', 'SHA-1', 'illegal_parameter')
def _(attempt):
    attempt.certificate_verify = lambda client, sent: [verify(ECDSA_SHA1, signature_of(sent))]


@case('4.4.3', 'an unknown algorithm', 'illegal_parameter')
def _(attempt):
    attempt.certificate_verify = lambda client, sent: [verify(b'\xfe\x00', signature_of(sent))]


def verify_data(sent):
    return bytes(sent.write())[4:]


@case('4.4.4', 'a Finished with one bit changed', 'decrypt_error')
def _(attempt):
    def change(client, sent):
        data = bytearray(verify_data(sent))
        data[0] ^= 0x80
        return [message(FINISHED, data)]

    attempt.finished = change


@case('4.4.4', 'a Finished of zeros', 'decrypt_error')
def _(attempt):
    attempt.finished = lambda client, sent: [message(FINISHED, bytes(len(verify_data(sent))))]


@case('4.4.4', 'a Finished that is too short', 'decode_error', 'decrypt_error')
def _(attempt):
    attempt.finished = lambda client, sent: [message(FINISHED, verify_data(sent)[:-1])]


@case('4.4.4', 'a Finished that is too long', 'decode_error', 'decrypt_error')
def _(attempt):
    attempt.finished = lambda client, sent: [message(FINISHED, verify_data(sent) + b'\x00')]


@case('4.4.4', 'an empty Finished', 'decode_error', 'decrypt_error')
def _(attempt):
    attempt.finished = lambda client, sent: [message(FINISHED, b'')]


@case('4.4.4', 'Finished twice', 'unexpected_message', 'bad_record_mac')
def _(attempt):
    attempt.finished = lambda client, sent: [sent, sent]


@case('4.4.4', 'application data before Finished', 'unexpected_message')
def _(attempt):
    attempt.finished = lambda client, sent: [lambda: client.record(ContentType.application_data, b'early'), sent]


@case('4.4.4', 'application data instead of a Certificate', 'unexpected_message')
def _(attempt):
    attempt.certificate = lambda client, sent: [lambda: client.record(ContentType.application_data, b'early')]
