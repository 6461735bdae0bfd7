"""One connection that breaks a rule, by tlslite-ng's client with single steps replaced, and how the server ends it."""

import socket

from tlslite.api import HandshakeSettings, TLSConnection, X509CertChain, parsePEMKey
from tlslite.constants import AlertDescription, ContentType
from tlslite.errors import TLSAbruptCloseError, TLSLocalAlert, TLSRemoteAlert
from tlslite.messages import Message

from hello import Hello

TIMEOUT_SECONDS = 5
REQUEST = b'GET /negative HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n'

STEPS = {
    'ClientHello': 'hello',
    'Certificate': 'certificate',
    'CertificateVerify': 'certificate_verify',
    'Finished': 'finished',
}


class Attempt:
    """What a case changes. Steps take the message as tlslite made it and return what is sent in its place, a list of
    messages and of callables that send by themselves; None stands for the message as it is."""

    def __init__(self):
        # 'port': TLS for a port of the pod, told by its server name. 'direct': the proxy's own port.
        self.target = 'port'
        # Sent in place of a handshake.
        self.raw = None
        # Called with the Hello, which it changes; may return the bytes of the message instead.
        self.hello = None
        # The same for the one behind a HelloRetryRequest.
        self.second_hello = None
        self.certificate = None
        self.certificate_verify = None
        self.finished = None
        # Called with the client when its handshake is done.
        self.after = None
        # Name of the client's certificate; None: an empty Certificate.
        self.identity = 'good'
        # Signs in place of the certificate's own key.
        self.key = None
        self.key_shares = ['x25519']
        self.groups = ['x25519', 'secp256r1']


class Client(TLSConnection):
    """tlslite's client with an attempt's steps in it."""

    def __init__(self, sock, attempt):
        super().__init__(sock)
        self.attempt = attempt
        self.hellos = 0

    def _sendMsg(self, msg, randomizeFirstBlock=True, update_hashes=True):
        step = STEPS.get(type(msg).__name__)
        if step == 'certificate':
            # The client's flight leaves at once: the server may close at its first message.
            self.sock.buffer_writes = True
        for message in self._instead(step, msg):
            if callable(message):
                message()
                continue
            yield from super()._sendMsg(message, randomizeFirstBlock, update_hashes)

    def _instead(self, step, msg):
        if step == 'hello':
            self.hellos += 1
            change = self.attempt.hello if self.hellos == 1 else self.attempt.second_hello
            return [msg] if change is None else [_changed(msg, change)]
        replace = getattr(self.attempt, step) if step else None
        replaced = replace(self, msg) if replace else None
        return [msg] if replaced is None else replaced

    def record(self, kind, payload):
        """Sends one record of this content type, protected if records are by now."""
        self.sock.sendall(self.sealed(kind, payload))

    def sealed(self, kind, payload):
        """The bytes of such a record, counted as sent. Nothing limits its size."""
        record_socket = self._recordLayer._recordSocket
        kept, record_socket.sock = record_socket.sock, Capture()
        try:
            for _ in self._recordLayer.sendRecord(Message(kind, bytearray(payload))):
                pass
            return bytes(record_socket.sock.data)
        finally:
            record_socket.sock = kept

    def handshake(self, kind, body):
        """Sends one handshake message in a record of its own, past the transcript."""
        self.record(ContentType.handshake, bytes([kind]) + len(body).to_bytes(3, 'big') + bytes(body))

    def plain(self, data):
        """Sends bytes as they are."""
        self.sock.sendall(bytes(data))


class Capture:
    """Takes what the record layer would send."""

    def __init__(self):
        self.data = b''

    def send(self, data):
        self.data += bytes(data)
        return len(data)


def _changed(msg, change):
    hello = Hello(msg.write())
    instead = change(hello)
    return Message(ContentType.handshake, bytearray(hello.message() if instead is None else instead))


def perform(attempt, addresses, server_name, certificates):
    """Makes the attempt and says how it ended: `alert <name>`, `closed`, `reset`, `accepted`, `timeout`, or why the
    client gave up by itself."""
    sock = socket.create_connection(addresses[attempt.target], TIMEOUT_SECONDS)
    try:
        if attempt.raw is not None:
            sock.sendall(attempt.raw)
            return _read_plain(sock)
        return _handshake(sock, attempt, server_name, certificates)
    except TLSRemoteAlert as error:
        return 'alert ' + AlertDescription.toRepr(error.description)
    except TLSLocalAlert as error:
        return 'client gave up: ' + str(error)
    except TLSAbruptCloseError:
        return 'closed'
    except socket.timeout:
        return 'timeout'
    except ConnectionError:
        return 'reset'
    finally:
        sock.close()


def _handshake(sock, attempt, server_name, certificates):
    settings = HandshakeSettings()
    settings.minVersion = settings.maxVersion = (3, 4)
    settings.keyShares = attempt.key_shares
    settings.eccCurves = attempt.groups
    settings.use_heartbeat_extension = False
    settings.record_size_limit = None
    # tlslite would compress its certificate though the server never said that it may (RFC 8879 section 3).
    settings.certificate_compression_send = settings.certificate_compression_receive = []
    chain, key = certificates.load(attempt.identity, attempt.key)
    client = Client(sock, attempt)
    alpn = [bytearray(b'transport.l5d.io/v1')] if attempt.target == 'direct' else None
    client.handshakeClientCert(chain, key, settings=settings, serverName=server_name, alpn=alpn)
    try:
        if attempt.after:
            attempt.after(client)
        # Not by `write`, which closes for good where the server has closed: its last words still wait to be read.
        client.record(ContentType.application_data, REQUEST)
    except ConnectionError:
        pass
    return 'accepted' if client.read(min=1) else 'closed'


def _read_plain(sock):
    """Reads an alert that is not protected."""
    data = b''
    while len(data) < 7:
        more = sock.recv(4096)
        if not more:
            return 'closed' if not data else 'closed after %d bytes' % len(data)
        data += more
    if data[0] == ContentType.alert:
        return 'alert ' + AlertDescription.toRepr(data[6])
    return 'answered with a record of type %d' % data[0]


class Certificates:
    """Chains and keys in a directory, as NAME.pem and NAME.key."""

    def __init__(self, directory):
        self.directory = directory

    def load(self, name, key_name=None):
        if name is None:
            return None, None
        chain = X509CertChain()
        chain.parsePemList(self._read(name + '.pem'))
        return chain, parsePEMKey(self._read((key_name or name) + '.key'), private=True)

    def _read(self, file):
        with open(self.directory + '/' + file, encoding='utf8') as opened:
            return opened.read()
