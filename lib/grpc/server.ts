// A gRPC server behind TLS that takes clients without ALPN. linkerd2-proxy offers none, and Node's http2 refuses such
// connections; so TLS ends here, the socket is declared to speak h2, and grpc-js gets it afterwards. Clients may come
// without a certificate: proxies connect before they have one. Certificates can be replaced while connections live.

import net from 'node:net';
import tls from 'node:tls';
import { type ConnectionInjector, Server, ServerCredentials } from '@grpc/grpc-js';
import { HeddleError } from '../errors.ts';
import type { Log } from '../log.ts';
import type { ServiceDefinition } from './definition.ts';
import { type CallObserver, type Handlers, implement, type OpenStreams, type ServeOptions } from './service.ts';
import { GrpcError, Status } from './status.ts';
import { type KeyMaterial, TLS_SETTINGS } from './tls.ts';

const CONNECTIONS_MAX = 10_000;
const STREAMS_PER_CONNECTION_MAX = 65_536;
const STREAMS_MAX = 100_000;
const MESSAGE_BYTES_MAX = 1024 * 1024;
const HANDSHAKE_TIMEOUT_MS = 10_000;
const KEEPALIVE_MS = 30_000;
const KEEPALIVE_TIMEOUT_MS = 10_000;

export interface GrpcServerOptions {
  log: Log;
  /** Null serves plain text: for tests and for loopback. */
  tls: KeyMaterial | null;
  observer?: CallObserver;
  queueCapacity?: number;
  /** Streams of all connections together. */
  streamsMax?: number;
}

export interface ListenAddress {
  host: string;
  port: number;
}

export class GrpcServer {
  readonly #log: Log;
  readonly #options: ServeOptions;
  readonly #streams: OpenStreams;
  readonly #grpc: Server;
  readonly #injector: ConnectionInjector;
  readonly #listener: net.Server;
  readonly #secure: tls.Server | null;
  readonly #sockets = new Set<net.Socket>();

  constructor(options: GrpcServerOptions) {
    this.#log = options.log;
    this.#streams = { all: new Set(), max: options.streamsMax ?? STREAMS_MAX };
    this.#options = { ...options, streams: this.#streams };
    this.#grpc = new Server({
      'grpc.max_receive_message_length': MESSAGE_BYTES_MAX,
      'grpc.max_concurrent_streams': STREAMS_PER_CONNECTION_MAX,
      'grpc.keepalive_time_ms': KEEPALIVE_MS,
      'grpc.keepalive_timeout_ms': KEEPALIVE_TIMEOUT_MS,
      'grpc.enable_channelz': 0,
    });
    this.#injector = this.#grpc.createConnectionInjector(ServerCredentials.createInsecure());
    this.#secure = options.tls ? this.#createSecure(options.tls) : null;
    this.#listener = this.#secure ?? net.createServer({ noDelay: true }, (socket) => this.#accept(socket));
    this.#listener.maxConnections = CONNECTIONS_MAX;
    this.#listener.on('drop', () => this.#log.warn('connection refused: too many', { maximum: CONNECTIONS_MAX }));
  }

  /** Serves a generated service. Call before `listen`. */
  add<Service extends ServiceDefinition>(service: Service, handlers: Handlers<Service>): void {
    const { definition, functions } = implement(service, handlers, this.#options);
    this.#grpc.addService(definition, functions);
  }

  /** New handshakes get this certificate; connections that are open stay. Throws when key and chain do not match. */
  setTls(material: KeyMaterial): void {
    if (!this.#secure) throw new HeddleError('plain-text', 'set a certificate: expected a server made with TLS');
    this.#secure.setSecureContext(contextOf(material));
  }

  /** Starts to accept. Resolves with the address, whose port differs from the one asked for when that was 0. */
  async listen(address: ListenAddress): Promise<ListenAddress> {
    await new Promise<void>((resolve, reject) => {
      const fail = (cause: Error) =>
        reject(new HeddleError('listen', `listen on "${address.host}:${address.port}": ${cause.message}`, { cause }));
      this.#listener.once('error', fail);
      this.#listener.listen(address.port, address.host, () => {
        this.#listener.off('error', fail);
        this.#listener.on('error', (error) => this.#log.error('listener failed', { error }));
        resolve();
      });
    });
    const bound = this.#listener.address() as net.AddressInfo;
    return { host: bound.address, port: bound.port };
  }

  /**
   * Stops accepting, says goodbye (GOAWAY) on every connection, ends the streams, lets unary calls finish, and cuts what
   * is left after `graceMs`.
   */
  async close(graceMs: number): Promise<void> {
    const closed = new Promise<void>((resolve) => this.#listener.close(() => resolve()));
    this.#injector.drain(graceMs);
    const goodbye = new GrpcError(Status.unavailable, 'the server is shutting down');
    for (const stream of [...this.#streams.all]) stream.fail(goodbye);
    const cut = setTimeout(() => {
      for (const socket of this.#sockets) socket.destroy();
    }, graceMs);
    await closed;
    clearTimeout(cut);
    this.#grpc.forceShutdown();
  }

  #createSecure(material: KeyMaterial): tls.Server {
    const server = tls.createServer({
      ...contextOf(material),
      ALPNProtocols: ['h2'],
      handshakeTimeout: HANDSHAKE_TIMEOUT_MS,
      noDelay: true,
    });
    server.on('secureConnection', (socket) => {
      // What Node's http2 asks for; the client that offered no protocol means HTTP/2 all the same.
      socket.alpnProtocol ||= 'h2';
      this.#accept(socket);
    });
    server.on('tlsClientError', (error, socket) => {
      this.#log.debug('handshake failed', { peer: socket.remoteAddress, error: error.message });
    });
    return server;
  }

  #accept(socket: net.Socket): void {
    this.#sockets.add(socket);
    socket.on('close', () => this.#sockets.delete(socket));
    // Without a listener a reset between accept and hand-over would end the process.
    socket.on('error', (error) => this.#log.debug('connection failed', { error: error.message }));
    this.#injector.injectConnection(socket);
  }
}

function contextOf({ certificatePem, privateKeyPem }: KeyMaterial): tls.SecureContextOptions {
  return { ...TLS_SETTINGS, cert: certificatePem, key: privateKeyPem };
}

/** Reads `host:port` or `[v6]:port`; throws `bad-address` otherwise. Port 0 lets the kernel choose. */
export function parseListenAddress(text: string): ListenAddress {
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([^:[\]]*)):(\d{1,5})$/.exec(text);
  const host = match?.[1] ?? match?.[2];
  const port = Number(match?.[3]);
  if (host === undefined || port > 65_535) {
    throw new HeddleError('bad-address', `read the address "${text}": expected host:port, such as 127.0.0.1:8086`);
  }
  return { host: host === '' ? '0.0.0.0' : host, port };
}
