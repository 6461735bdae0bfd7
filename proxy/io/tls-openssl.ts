// Mesh TLS by the OpenSSL inside Node: handshakes with a deadline, and who the peer must be.

import type { Duplex } from '#lib/duplex.ts';
import { HeddleError } from '#lib/errors.ts';
import * as ssl from './openssl.ts';
import type { TlsAcceptOptions, TlsConnectOptions, TlsContext, TlsDuplex, TlsMaterial } from './tls.ts';
import { OpenSslContext, selectingAlpn } from './tls-context.ts';
import { hasIdentity } from './tls-identity.ts';
import { sharedBios } from './tls-memory.ts';
import { TlsSession } from './tls-session.ts';

export class OpenSslTls implements TlsContext {
  #context: OpenSslContext;
  readonly #keyUpdateRecords: number | undefined;

  constructor(material: TlsMaterial, options: { keyUpdateRecords?: number } = {}) {
    this.#context = new OpenSslContext(material);
    this.#keyUpdateRecords = options.keyUpdateRecords;
  }

  update(material: TlsMaterial): void {
    const context = new OpenSslContext(material);
    this.#context.free();
    this.#context = context;
  }

  accept(duplex: Duplex, options: TlsAcceptOptions, signal?: AbortSignal): Promise<TlsDuplex> {
    const { promise, resolve, reject } = Promise.withResolvers<TlsDuplex>();
    const handshake = new Handshake(duplex, 'downstream', options.timeoutMs, signal, { resolve, reject });
    if (!this.#context.canAccept) handshake.fail('tls-not-ready', 'expected a certificate of our own');
    else handshake.accept((role) => this.#session(duplex, role), options);
    return promise;
  }

  connect(duplex: Duplex, options: TlsConnectOptions, signal?: AbortSignal): Promise<TlsDuplex> {
    const { promise, resolve, reject } = Promise.withResolvers<TlsDuplex>();
    const handshake = new Handshake(duplex, 'upstream', options.timeoutMs, signal, { resolve, reject });
    handshake.connect((role) => this.#session(duplex, role), options);
    return promise;
  }

  #session(duplex: Duplex, role: 'client' | 'server'): TlsSession {
    return new TlsSession(duplex, this.#context.pointer, role, this.#keyUpdateRecords);
  }
}

type MakeSession = (role: 'client' | 'server') => TlsSession;

interface Settlers {
  resolve(duplex: TlsDuplex): void;
  reject(error: HeddleError): void;
}

/** One handshake, from its first byte to a session or an error. */
class Handshake {
  readonly #duplex: Duplex;
  readonly #source: 'downstream' | 'upstream';
  readonly #signal: AbortSignal | undefined;
  readonly #settlers: Settlers;
  readonly #timer: NodeJS.Timeout;
  #lastLook: NodeJS.Immediate | undefined;
  readonly #onAbort = (): void => this.fail('tls-aborted', 'not wanted any more', this.#signal?.reason);
  #session: TlsSession | null = null;
  #alpn: readonly string[] = [];
  /** Who the server must be; null: this is the server. */
  #identity: string | null = null;
  #isSettled = false;

  constructor(
    duplex: Duplex,
    source: 'downstream' | 'upstream',
    timeoutMs: number,
    signal: AbortSignal | undefined,
    settlers: Settlers,
  ) {
    this.#duplex = duplex;
    this.#source = source;
    this.#signal = signal;
    this.#settlers = settlers;
    // As in connect.ts: what the peer has sent in time is read before it is called late.
    this.#timer = setTimeout(() => {
      this.#lastLook = setImmediate(() => this.fail('tls-timeout', `expected its end within ${timeoutMs} ms`));
    }, timeoutMs);
    if (signal?.aborted) this.#onAbort();
    signal?.addEventListener('abort', this.#onAbort, { once: true });
  }

  accept(makeSession: MakeSession, options: TlsAcceptOptions): void {
    if (this.#isSettled) return;
    this.#alpn = options.alpn ?? [];
    this.#session = makeSession('server');
    this.#session.handshake((fed) => this.#step(fed), options.received);
  }

  connect(makeSession: MakeSession, options: TlsConnectOptions): void {
    if (this.#isSettled) return;
    this.#identity = options.identity ?? options.serverName;
    this.#session = makeSession('client');
    const { SSL_ctrl, SSL_set_alpn_protos } = ssl.openssl();
    const name = ssl.cString(options.serverName);
    const isNamed = SSL_ctrl(this.#session.pointer, ssl.SSL_CTRL_SET_TLSEXT_HOSTNAME, 0n, name.address) === 1n;
    const protocols = encodeProtocols(options.alpn ?? []);
    // This one returns 0 for success.
    const isOffered =
      protocols.bytes.length === 0 ||
      SSL_set_alpn_protos(this.#session.pointer, protocols.address, protocols.bytes.length) === 0;
    if (!isNamed || !isOffered || name.bytes.length === 0) {
      this.fail('tls-handshake-failed', `set the server name "${options.serverName}" or ALPN: ${ssl.takeErrors()}`);
      return;
    }
    this.#session.handshake((fed) => this.#step(fed), undefined);
  }

  /** Ends the attempt and the stream. */
  fail(code: string, reason: string, cause?: unknown): void {
    if (this.#isSettled) return;
    const error = this.#reject(code, reason, cause);
    if (this.#session === null) this.#duplex.reset(error);
    else this.#session.reset(error);
  }

  #reject(code: string, reason: string, cause?: unknown): HeddleError {
    this.#settle();
    const retry = this.#source === 'upstream' && code !== 'tls-aborted' ? 'yes' : 'no';
    const error = new HeddleError(code, `TLS handshake: ${reason}`, { source: this.#source, retry, cause });
    this.#settlers.reject(error);
    return error;
  }

  #step(fed: boolean): void {
    const session = this.#session!;
    if (this.#isSettled) {
      sharedBios().discardIncoming();
      return;
    }
    if (!fed) {
      this.fail('tls-handshake-failed', 'the peer closed');
      return;
    }
    const { SSL_do_handshake, SSL_get_error } = ssl.openssl();
    const result = selectingAlpn(this.#alpn, () => SSL_do_handshake(session.pointer));
    const error = result === 1 ? 0 : SSL_get_error(session.pointer, result);
    if (error === 0) this.#complete(session);
    else if (error === ssl.SSL_ERROR_WANT_READ) session.flush();
    else this.#refused(session);
  }

  #complete(session: TlsSession): void {
    session.flush();
    session.establish();
    const identity = this.#identity;
    if (identity !== null && !hasIdentity(session.peerIdentities, identity)) {
      const found = session.peerIdentities.join(', ');
      this.fail('tls-identity-mismatch', `expected the server to be "${identity}", got "${found}"`);
      return;
    }
    this.#settle();
    this.#settlers.resolve(session);
  }

  /** OpenSSL gave up, and has an alert for the peer: a reset could overtake it. */
  #refused(session: TlsSession): void {
    const { SSL_get_verify_result, X509_verify_cert_error_string } = ssl.openssl();
    const verified = SSL_get_verify_result(session.pointer);
    const reason = ssl.takeErrors();
    sharedBios().discardIncoming();
    const error =
      verified === ssl.X509_V_OK
        ? this.#reject('tls-handshake-failed', reason)
        : this.#reject(
            'tls-peer-unverified',
            `verify the peer: ${ssl.textAt(X509_verify_cert_error_string(verified))}`,
          );
    session.fail(error);
  }

  #settle(): void {
    this.#isSettled = true;
    clearTimeout(this.#timer);
    clearImmediate(this.#lastLook);
    this.#signal?.removeEventListener('abort', this.#onAbort);
  }
}

/** ProtocolNameList of RFC 7301 section 3.1, without its outer length. */
function encodeProtocols(protocols: readonly string[]): ssl.StableMemory {
  const list = Buffer.concat(protocols.map((name) => Buffer.concat([Buffer.from([name.length]), Buffer.from(name)])));
  const memory = ssl.stableMemory(list.length);
  memory.bytes.set(list);
  return memory;
}
