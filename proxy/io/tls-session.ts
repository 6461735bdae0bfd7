// TLS over any Duplex: ciphertext below, cleartext above. OpenSSL reads and writes memory that all sessions share; every
// call here moves its bytes in and out again before anything else runs, so nothing of one session is left for another.

import { X509Certificate } from 'node:crypto';
import type { Duplex, DuplexListener } from '#lib/duplex.ts';
import { assert, HeddleError } from '#lib/errors.ts';
import * as ssl from './openssl.ts';
import { OUTGOING_BYTES, outgoingRoom } from './outgoing.ts';
import { resetError } from './socket-error.ts';
import { NO_LISTENER } from './socket-parts.ts';
import type { TlsDuplex } from './tls.ts';
import { identitiesOf } from './tls-identity.ts';
import { type SharedBios, sharedBios } from './tls-memory.ts';

/** Cleartext of one record, RFC 8446 section 5.1. */
const RECORD_BYTES_MAX = 16_384;
/** Ciphertext that is fed at once; sockets read no more. */
const FEED_BYTES_MAX = 65_536;
/** Room for what is encrypted at once. */
const FLUSH_BYTES = 131_072;

/**
 * Records under one key before our sending key is renewed. AES-GCM is good for 2^24.5 of the largest size (RFC 8446
 * section 5.5), and OpenSSL does not count.
 */
export const KEY_UPDATE_RECORDS = 2 ** 23;

/** What the handshake made of a session. */
export interface TlsFacts {
  peerIdentities: readonly string[];
  alpn: string | null;
  serverName: string | null;
}

export class TlsSession implements TlsDuplex, DuplexListener {
  listener: DuplexListener = NO_LISTENER;
  peerIdentities: readonly string[] = [];
  alpn: string | null = null;
  serverName: string | null = null;
  bytesRead = 0;
  bytesWritten = 0;
  /** How often our sending key was renewed. */
  keyUpdates = 0;
  readonly #inner: Duplex;
  readonly #bios: SharedBios;
  #session: ssl.Pointer;
  /** Null once the handshake is over. */
  #handshake: ((fed: boolean) => void) | null = null;
  #isReading = false;
  #hasPeerEnded = false;
  #isEndDue = false;
  #hasEnded = false;
  #isClosed = false;
  #isAbandoned = false;
  #closeError: HeddleError | null = null;
  /** Cleartext that came while paused: a read's worth at most. */
  readonly #early: Buffer[] = [];
  readonly #keyUpdateRecords: number;
  /** Records sent under the present key. */
  #records = 0;

  /** `context` is an SSL_CTX. The stream's listener is taken; it stays paused. */
  constructor(inner: Duplex, context: ssl.Pointer, role: 'client' | 'server', keyUpdateRecords = KEY_UPDATE_RECORDS) {
    const { SSL_new, SSL_set_bio, BIO_up_ref, SSL_set_accept_state, SSL_set_connect_state } = ssl.openssl();
    this.#inner = inner;
    this.#keyUpdateRecords = keyUpdateRecords;
    this.#bios = sharedBios();
    this.#session = SSL_new(context);
    assert(this.#session !== ssl.NULL, 'SSL_new has memory');
    BIO_up_ref(this.#bios.incoming);
    BIO_up_ref(this.#bios.outgoing);
    SSL_set_bio(this.#session, this.#bios.incoming, this.#bios.outgoing);
    if (role === 'server') SSL_set_accept_state(this.#session);
    else SSL_set_connect_state(this.#session);
    inner.listener = this;
  }

  /** The SSL, for the handshake's settings and questions. */
  get pointer(): ssl.Pointer {
    return this.#session;
  }

  get remoteAddress(): string {
    return this.#inner.remoteAddress;
  }

  get remotePort(): number {
    return this.#inner.remotePort;
  }

  get localAddress(): string {
    return this.#inner.localAddress;
  }

  get localPort(): number {
    return this.#inner.localPort;
  }

  get bytesQueued(): number {
    return this.#inner.bytesQueued;
  }

  /** `step` runs whenever bytes have come (true) or the stream has gone (false), until `establish`. */
  handshake(step: (fed: boolean) => void, received: Uint8Array | undefined): void {
    this.#handshake = step;
    if (received === undefined || received.length === 0) step(true);
    else this.onData(Buffer.from(received), 0, received.length);
    if (this.#handshake !== null && !this.#isClosed) this.#inner.resume();
  }

  /** The handshake is done: from now on cleartext passes. */
  establish(): void {
    this.#handshake = null;
    this.#inner.pause();
    this.#readFacts();
    this.#receive();
  }

  /** Sends what OpenSSL has to say. Returns as `Duplex.write`. */
  flush(): boolean {
    const { BIO_read, BIO_ctrl_pending } = ssl.openssl();
    let goesOn = true;
    while (BIO_ctrl_pending(this.#bios.outgoing) > 0) goesOn = this.#send(BIO_read);
    return goesOn;
  }

  write(bytes: Uint8Array): boolean {
    assert(!this.#hasEnded || this.#isClosed, 'write after end');
    let goesOn = true;
    for (let at = 0; at < bytes.length && !this.#isClosed; at += OUTGOING_BYTES) {
      const piece = bytes.length <= OUTGOING_BYTES ? bytes : bytes.subarray(at, at + OUTGOING_BYTES);
      goesOn = this.#encrypt(piece);
    }
    return goesOn || this.#isClosed;
  }

  end(): void {
    if (this.#hasEnded || this.#isClosed) return;
    this.#hasEnded = true;
    // It fails where the peer has begun a handshake message and not ended it.
    ssl.openssl().SSL_shutdown(this.#session);
    this.flush();
    this.#inner.end();
    this.#closeWhenEnded();
  }

  abandon(): void {
    this.end();
    this.#isAbandoned = true;
    this.#early.length = 0;
    this.#inner.abandon();
  }

  reset(error: HeddleError = resetError()): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#closeError = error;
    this.#inner.reset(error);
  }

  pause(): void {
    this.#isReading = false;
    this.#inner.pause();
  }

  resume(): void {
    if (this.#isReading || this.#isClosed || this.#isAbandoned) return;
    this.#isReading = true;
    if (this.#early.length > 0 || this.#isEndDue) process.nextTick(() => this.#deliverEarly());
    else this.#inner.resume();
  }

  // The stream's calls.

  onData(buffer: Buffer, start: number, end: number): void {
    for (let at = start; at < end && !this.#isClosed && !this.#hasPeerEnded; at += FEED_BYTES_MAX) {
      this.#bios.feed(buffer, at, Math.min(at + FEED_BYTES_MAX, end));
      if (this.#handshake !== null) this.#handshake(true);
      else this.#receive();
    }
  }

  onEnd(): void {
    if (this.#handshake !== null) this.#handshake(false);
    else if (!this.#hasPeerEnded) this.fail(tlsError('tls-truncated', 'expected close_notify before the end'));
  }

  onDrain(): void {
    if (this.#handshake === null && !this.#isClosed) this.listener.onDrain();
  }

  onClose(error: HeddleError | null): void {
    this.#isClosed = true;
    this.#early.length = 0;
    if (this.#session !== ssl.NULL) ssl.openssl().SSL_free(this.#session);
    this.#session = ssl.NULL;
    this.#closeError ??= error;
    if (this.#handshake !== null) this.#handshake(false);
    else this.listener.onClose(this.#closeError);
  }

  #encrypt(bytes: Uint8Array): boolean {
    const { SSL_write, BIO_read } = ssl.openssl();
    // Before anything is encrypted: making room may write another session's bytes.
    outgoingRoom(FLUSH_BYTES);
    this.#records += Math.ceil(bytes.length / RECORD_BYTES_MAX);
    if (this.#records > this.#keyUpdateRecords) this.#updateKey();
    const written = SSL_write(this.#session, this.#bios.addressOf(bytes), bytes.length);
    if (written !== bytes.length) {
      const error = tlsError('tls-failed', `encrypt: ${ssl.takeErrors()}`);
      process.nextTick(() => this.fail(error));
      return true;
    }
    this.bytesWritten += bytes.length;
    // One read takes everything but what is larger than its room.
    const goesOn = this.#send(BIO_read);
    return bytes.length < FLUSH_BYTES / 2 ? goesOn : this.flush() && goesOn;
  }

  /** The update leaves with the next record, under the old key (RFC 8446 section 4.6.3). */
  #updateKey(): void {
    this.#records = 0;
    this.keyUpdates += ssl.openssl().SSL_key_update(this.#session, ssl.SSL_KEY_UPDATE_NOT_REQUESTED);
  }

  #send(read: (bio: bigint, to: bigint, length: number) => number): boolean {
    const { memory, start } = outgoingRoom(FLUSH_BYTES);
    const length = read(this.#bios.outgoing, ssl.addressOf(start === 0 ? memory : memory.subarray(start)), FLUSH_BYTES);
    return length <= 0 || this.#inner.write(memory.subarray(start, start + length));
  }

  /** Decrypts what was fed, all of it, and then tells the user. */
  #receive(): void {
    let fault: HeddleError | null = null;
    let filled = 0;
    const { SSL_read, BIO_ctrl_pending, SSL_get_error, ERR_clear_error } = ssl.openssl();
    const { incoming, clear } = this.#bios;
    // OpenSSL has one queue of errors for all sessions: what another one left would be taken for a fault of this one.
    ERR_clear_error();
    for (;;) {
      const at = filled === 0 ? clear.address : clear.address + BigInt(filled);
      const count = SSL_read(this.#session, at, RECORD_BYTES_MAX);
      if (count > 0) {
        filled += count;
        if (BIO_ctrl_pending(incoming) === 0) break;
        continue;
      }
      const error = SSL_get_error(this.#session, count);
      if (error === ssl.SSL_ERROR_ZERO_RETURN) this.#hasPeerEnded = true;
      else if (error !== ssl.SSL_ERROR_WANT_READ) fault = tlsError('tls-failed', `decrypt: ${ssl.takeErrors()}`);
      if (error !== ssl.SSL_ERROR_WANT_READ) this.#bios.discardIncoming();
      break;
    }
    this.bytesRead += filled;
    if (filled > 0) this.#deliver(clear.bytes, filled);
    if (fault !== null) this.fail(fault);
    else if (this.#hasPeerEnded) this.#peerEnded();
  }

  #deliver(bytes: Buffer, length: number): void {
    if (this.#isAbandoned || this.#isClosed) return;
    if (this.#isReading && this.#early.length === 0) this.listener.onData(bytes, 0, length);
    else this.#early.push(Buffer.from(bytes.subarray(0, length)));
  }

  #deliverEarly(): void {
    while (this.#isReading && !this.#isClosed && this.#early.length > 0) {
      const bytes = this.#early.shift()!;
      this.listener.onData(bytes, 0, bytes.length);
    }
    if (!this.#isReading || this.#isClosed || this.#isAbandoned) return;
    if (this.#isEndDue) this.#peerEnded();
    else this.#inner.resume();
  }

  #peerEnded(): void {
    this.#isEndDue = !this.#isReading || this.#early.length > 0;
    if (this.#isEndDue || this.#isClosed || this.#isAbandoned) return;
    this.#isReading = false;
    this.listener.onEnd();
    this.#closeWhenEnded();
  }

  /** Both directions are over, whatever the peer's socket does about it. */
  #closeWhenEnded(): void {
    if (this.#hasPeerEnded && !this.#isEndDue && this.#hasEnded && !this.#isClosed) this.#inner.abandon();
  }

  /** The session is broken: what OpenSSL says to it leaves, then the stream closes (RFC 8446 section 6.2). */
  fail(error: HeddleError): void {
    if (this.#isClosed) return;
    this.flush();
    this.#isClosed = true;
    this.#closeError = error;
    this.#inner.abandon();
  }

  #readFacts(): void {
    const { SSL_get0_peer_certificate, SSL_get_servername } = ssl.openssl();
    this.peerIdentities = readIdentities(SSL_get0_peer_certificate(this.#session));
    this.alpn = readAlpn(this.#session);
    this.serverName = ssl.textAt(SSL_get_servername(this.#session, 0)) || null;
  }
}

function readIdentities(certificate: ssl.Pointer): string[] {
  if (certificate === ssl.NULL) return [];
  const { i2d_X509 } = ssl.openssl();
  const der = ssl.stableMemory(i2d_X509(certificate, ssl.NULL));
  const cursor = ssl.stableMemory(8);
  cursor.bytes.writeBigUInt64LE(der.address);
  i2d_X509(certificate, cursor.address);
  return identitiesOf(new X509Certificate(der.bytes).subjectAltName);
}

function readAlpn(session: ssl.Pointer): string | null {
  const out = ssl.stableMemory(16);
  ssl.openssl().SSL_get0_alpn_selected(session, out.address, out.address + 8n);
  const length = out.bytes.readUInt32LE(8);
  return length === 0 ? null : ssl.bytesAt(out.bytes.readBigUInt64LE(0), length).toString('latin1');
}

export function tlsError(code: string, reason: string): HeddleError {
  return new HeddleError(code, `TLS session: ${reason}`);
}
