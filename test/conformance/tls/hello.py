"""A ClientHello taken apart (RFC 8446 section 4.1.2), so that every part of it can be made wrong on its own."""

from struct import pack, unpack_from

HANDSHAKE_CLIENT_HELLO = 1


def vector(length_bytes, content):
    """Content behind its length."""
    return len(content).to_bytes(length_bytes, 'big') + bytes(content)


def handshake_message(kind, body):
    return bytes([kind]) + vector(3, body)


class Hello:
    """The parts of a ClientHello as bytes; `message` puts them together again, whatever they are by then."""

    def __init__(self, message):
        body = bytes(message)[4:]
        self.kind = HANDSHAKE_CLIENT_HELLO
        self.version = body[:2]
        self.random = body[2:34]
        at = 34
        self.session_id, at = _read(body, at, 1)
        self.suites, at = _read(body, at, 2)
        self.compressions, at = _read(body, at, 1)
        extensions, at = _read(body, at, 2)
        # In their order, as [type, body].
        self.extensions = []
        at = 0
        while at < len(extensions):
            kind, = unpack_from('>H', extensions, at)
            content, at = _read(extensions, at + 2, 2)
            self.extensions.append([kind, content])
        # Set to leave out the block with its length.
        self.has_extensions = True
        # Behind the extensions, within the message.
        self.trailing = b''

    def get(self, kind):
        return next(content for found, content in self.extensions if found == kind)

    def set(self, kind, content):
        """Replaces the body of an extension in its place, or appends the extension."""
        for extension in self.extensions:
            if extension[0] == kind:
                extension[1] = bytes(content)
                return
        self.extensions.append([kind, bytes(content)])

    def remove(self, kind):
        self.extensions = [extension for extension in self.extensions if extension[0] != kind]

    def message(self):
        body = self.version + self.random + vector(1, self.session_id) + vector(2, self.suites)
        body += vector(1, self.compressions)
        if self.has_extensions:
            body += vector(2, b''.join(pack('>H', kind) + vector(2, content) for kind, content in self.extensions))
        return handshake_message(self.kind, body + self.trailing)


def _read(data, at, length_bytes):
    start = at + length_bytes
    end = start + int.from_bytes(data[at:start], 'big')
    return data[start:end], end
