// SNI and ALPN of a TLS ClientHello (RFC 8446 section 4.1.2, RFC 6066 section 3, RFC 7301), read without terminating.

export type ClientHello =
  /** The bytes so far could begin a ClientHello; more are needed. */
  { kind: 'incomplete' } | { kind: 'not-tls' } | { kind: 'hello'; serverName: string | null; alpn: string[] };

/** A ClientHello that is incomplete within this is not waited for any longer. */
export const CLIENT_HELLO_BYTES_MAX = 8192;

const INCOMPLETE: ClientHello = { kind: 'incomplete' };
const NOT_TLS: ClientHello = { kind: 'not-tls' };
const CONTENT_TYPE_HANDSHAKE = 22;
const HANDSHAKE_TYPE_CLIENT_HELLO = 1;
const RECORD_HEADER_BYTES = 5;
const RECORD_BYTES_MAX = 16_384;
const RANDOM_BYTES = 32;
const EXTENSION_SERVER_NAME = 0;
const EXTENSION_ALPN = 16;
const NAME_TYPE_HOST = 0;

/** Judges the first bytes of a connection. Records may split the message anywhere. */
export function parseClientHello(bytes: Uint8Array): ClientHello {
  const message = new Uint8Array(bytes.length);
  let filled = 0;
  for (let at = 0; at < bytes.length; ) {
    // What is there of the record header must fit already, so that other protocols are told after one byte.
    if (bytes[at] !== CONTENT_TYPE_HANDSHAKE) return NOT_TLS;
    if (at + 1 < bytes.length && bytes[at + 1] !== 3) return NOT_TLS;
    if (bytes.length - at < RECORD_HEADER_BYTES) break;
    const length = (bytes[at + 3]! << 8) | bytes[at + 4]!;
    if (length === 0 || length > RECORD_BYTES_MAX) return NOT_TLS;
    const start = at + RECORD_HEADER_BYTES;
    const part = bytes.subarray(start, start + length);
    message.set(part, filled);
    filled += part.length;
    if (message[0] !== HANDSHAKE_TYPE_CLIENT_HELLO && filled > 0) return NOT_TLS;
    if (filled >= 4) {
      const needed = 4 + ((message[1]! << 16) | (message[2]! << 8) | message[3]!);
      if (filled >= needed) return readHello(new Reader(message, 4, needed));
    }
    at = start + length;
  }
  return INCOMPLETE;
}

function readHello(reader: Reader): ClientHello {
  const hello: ClientHello = { kind: 'hello', serverName: null, alpn: [] };
  reader.skip(2 + RANDOM_BYTES);
  reader.skip(reader.number(1));
  reader.skip(reader.number(2));
  reader.skip(reader.number(1));
  if (reader.isAtEnd) return reader.isBroken ? NOT_TLS : hello;
  const extensions = reader.part(reader.number(2));
  while (!extensions.isAtEnd) {
    const type = extensions.number(2);
    const body = extensions.part(extensions.number(2));
    if (type === EXTENSION_SERVER_NAME) hello.serverName = readServerName(body);
    else if (type === EXTENSION_ALPN) hello.alpn = readAlpn(body);
    if (body.isBroken) return NOT_TLS;
  }
  return reader.isBroken || extensions.isBroken ? NOT_TLS : hello;
}

function readServerName(body: Reader): string | null {
  const list = body.part(body.number(2));
  while (!list.isAtEnd) {
    const type = list.number(1);
    const name = list.text(list.number(2));
    if (list.isBroken) body.isBroken = true;
    if (type === NAME_TYPE_HOST && name !== '') return name.toLowerCase();
  }
  return null;
}

function readAlpn(body: Reader): string[] {
  const list = body.part(body.number(2));
  const protocols: string[] = [];
  while (!list.isAtEnd) protocols.push(list.text(list.number(1)));
  if (list.isBroken) body.isBroken = true;
  return protocols;
}

/** Reads big-endian numbers and vectors; past the end it notes the fault and goes on with nothing. */
class Reader {
  isBroken = false;
  readonly #bytes: Uint8Array;
  #at: number;
  readonly #end: number;

  constructor(bytes: Uint8Array, at: number, end: number) {
    this.#bytes = bytes;
    this.#at = at;
    this.#end = end;
  }

  get isAtEnd(): boolean {
    return this.isBroken || this.#at === this.#end;
  }

  number(bytes: number): number {
    const start = this.#take(bytes);
    if (start === null) return 0;
    let value = 0;
    for (let index = 0; index < bytes; index++) value = value * 256 + this.#bytes[start + index]!;
    return value;
  }

  skip(bytes: number): void {
    this.#take(bytes);
  }

  part(bytes: number): Reader {
    const start = this.#take(bytes);
    return start === null ? new Reader(this.#bytes, 0, 0) : new Reader(this.#bytes, start, start + bytes);
  }

  text(bytes: number): string {
    const start = this.#take(bytes);
    if (start === null) return '';
    return String.fromCharCode(...this.#bytes.subarray(start, start + bytes));
  }

  #take(bytes: number): number | null {
    if (this.isBroken || this.#at + bytes > this.#end) {
      this.isBroken = true;
      return null;
    }
    const start = this.#at;
    this.#at += bytes;
    return start;
  }
}
