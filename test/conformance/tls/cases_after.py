"""What comes after the handshake, and alerts: RFC 8446 sections 4.6 and 6."""

from tlslite.constants import AlertDescription, ContentType

from hello import handshake_message, vector
from registry import case

HELLO_REQUEST = 0
SERVER_HELLO = 2
NEW_SESSION_TICKET = 4
END_OF_EARLY_DATA = 5
ENCRYPTED_EXTENSIONS = 8
CERTIFICATE = 11
CERTIFICATE_REQUEST = 13
CERTIFICATE_VERIFY = 15
FINISHED = 20
KEY_UPDATE = 24
MESSAGE_HASH = 254


def sent_after(kind, body):
    def change(attempt):
        attempt.after = lambda client: client.handshake(kind, body)

    return change


case('4.6.1', 'a NewSessionTicket from the client', 'unexpected_message')(
    sent_after(NEW_SESSION_TICKET, bytes(8) + vector(1, b'n') + vector(2, b'ticket') + vector(2, b''))
)
case('4.6.2', 'a Certificate that nobody asked for', 'unexpected_message')(
    sent_after(CERTIFICATE, vector(1, b'') + vector(3, b''))
)
case('4.6.2', 'a CertificateRequest from the client', 'unexpected_message')(
    sent_after(CERTIFICATE_REQUEST, vector(1, b'c') + vector(2, b'\x00\x0d' + vector(2, vector(2, b'\x04\x03'))))
)
case('4.4.3', 'a CertificateVerify after the handshake', 'unexpected_message')(
    sent_after(CERTIFICATE_VERIFY, b'\x04\x03' + vector(2, bytes(70)))
)
case('4.4.4', 'a Finished after the handshake', 'unexpected_message')(sent_after(FINISHED, bytes(32)))
case('4', 'a HelloRequest', 'unexpected_message')(sent_after(HELLO_REQUEST, b''))
case('4', 'a ServerHello from the client', 'unexpected_message')(sent_after(SERVER_HELLO, bytes(70)))
case('4', 'EncryptedExtensions from the client', 'unexpected_message')(
    sent_after(ENCRYPTED_EXTENSIONS, vector(2, b''))
)
case('4', 'an unknown handshake message', 'unexpected_message')(sent_after(99, b'what is this'))
case('4.4.1', 'a message_hash on the wire', 'unexpected_message')(sent_after(MESSAGE_HASH, bytes(32)))
case('4.5', 'EndOfEarlyData after the handshake', 'unexpected_message')(sent_after(END_OF_EARLY_DATA, b''))

case('4.6.3', 'a KeyUpdate with an unknown request', 'illegal_parameter')(sent_after(KEY_UPDATE, b'\x02'))
case('4.6.3', 'an empty KeyUpdate', 'decode_error')(sent_after(KEY_UPDATE, b''))
case('4.6.3', 'a KeyUpdate of two bytes', 'decode_error', 'illegal_parameter')(sent_after(KEY_UPDATE, b'\x00\x00'))


@case('4.6.3', 'a KeyUpdate before Finished', 'unexpected_message')
def _(attempt):
    attempt.certificate = lambda client, sent: [lambda: client.handshake(KEY_UPDATE, b'\x00'), sent]


@case('4.6.3', 'the old keys after a KeyUpdate', 'bad_record_mac')
def _(attempt):
    attempt.after = lambda client: client.handshake(KEY_UPDATE, b'\x00')


@case('5.1', 'a message in the same record behind a KeyUpdate', 'unexpected_message')
def _(attempt):
    attempt.after = lambda client: client.record(
        ContentType.handshake, 2 * handshake_message(KEY_UPDATE, b'\x00')
    )


@case('5.1', 'application data between the parts of a KeyUpdate', 'unexpected_message')
def _(attempt):
    def change(client):
        update = handshake_message(KEY_UPDATE, b'\x00')
        client.record(ContentType.handshake, update[:3])
        client.record(ContentType.application_data, b'between')

    attempt.after = change


@case('4.5', 'EndOfEarlyData without early data', 'unexpected_message')
def _(attempt):
    attempt.certificate = lambda client, sent: [lambda: client.handshake(END_OF_EARLY_DATA, b''), sent]


@case('6.2', 'a fatal alert after the handshake', 'closed')
def _(attempt):
    attempt.after = lambda client: client.record(ContentType.alert, bytes([2, AlertDescription.internal_error]))


@case('6.2', 'a fatal alert in the handshake', 'closed')
def _(attempt):
    attempt.certificate = lambda client, sent: [
        lambda: client.record(ContentType.alert, bytes([2, AlertDescription.bad_certificate]))
    ]


@case('6', 'an unknown alert', 'closed', 'illegal_parameter', 'unexpected_message')
def _(attempt):
    attempt.after = lambda client: client.record(ContentType.alert, b'\x01\xc8')


@case('6', 'a fatal alert that says it is a warning', 'closed')
def _(attempt):
    attempt.after = lambda client: client.record(ContentType.alert, bytes([1, AlertDescription.internal_error]))


@case('6', 'an alert of one byte', 'decode_error', 'unexpected_message')
def _(attempt):
    attempt.after = lambda client: client.record(ContentType.alert, b'\x01')


@case('6', 'two alerts in one record', 'decode_error', 'unexpected_message')
def _(attempt):
    attempt.after = lambda client: client.record(ContentType.alert, b'\x01\x5a\x01\x5a')


@case('6.1', 'warnings over and over', 'unexpected_message')
def _(attempt):
    attempt.after = lambda client: [
        client.record(ContentType.alert, bytes([1, AlertDescription.user_canceled])) for _ in range(20)
    ]


@case('6.1', 'data behind close_notify', 'closed')
def _(attempt):
    attempt.after = lambda client: client.record(ContentType.alert, bytes([1, AlertDescription.close_notify]))


@case('6.1', 'close_notify before the handshake', 'closed', 'unexpected_message')
def _(attempt):
    attempt.target = 'direct'
    attempt.raw = b'\x15\x03\x01\x00\x02\x01\x00'
