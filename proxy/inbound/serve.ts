// What becomes of an inbound connection once TLS is out of the way: the port's policy says which protocol to expect,
// the first bytes say which one it is where the policy leaves that open.

import { HeddleError } from '#lib/errors.ts';
import { errnoOf } from '../errno.ts';
import { IN_FLIGHT_MAX, InFlight } from '../in-flight.ts';
import type { HttpServerConnection } from '../io/http-connection.ts';
import { type Http1ServerOptions, serveHttp1 } from '../io/http1-server.ts';
import { type Http2ServerOptions, serveHttp2 } from '../io/http2-server.ts';
import { peek } from '../peek.ts';
import { authorize } from '../policy/authorization.ts';
import { allAuthorizations } from '../policy/server-policy.ts';
import { DETECT_BYTES_MAX, detectProtocol } from '../wire/detect.ts';
import type { Applications } from './application.ts';
import { type InboundConnection, inboundConnection } from './connection.ts';
import { type ForwardOptions, forward } from './forward.ts';
import { InboundHttp } from './http.ts';
import { downgradeFromHttp2 } from './orig-proto.ts';

export interface ServeOptions extends ForwardOptions {
  random: () => number;
  applications: Applications;
}

/** What both HTTP servers take. */
type SharedHttpOptions = Pick<
  Http1ServerOptions & Http2ServerOptions,
  'service' | 'clock' | 'clientIdentity' | 'received' | 'onClose'
>;

/** Serves connections whose TLS is known. */
export class InboundServer {
  readonly #options: ServeOptions;
  readonly inFlight = new InFlight(IN_FLIGHT_MAX);

  constructor(options: ServeOptions) {
    this.#options = options;
  }

  /** By the port's policy. Rejects with `client-gone` only. */
  async serve(connection: InboundConnection): Promise<void> {
    const { protocol } = this.#options.ports.get(connection.target.port).current;
    switch (protocol.kind) {
      case 'opaque':
      case 'tls':
        return this.opaque(connection);
      case 'http1':
        // A peer's proxy may have put HTTP/2 around it.
        if (connection.tls.kind !== 'mesh') {
          this.http1(connection);
          return;
        }
        return this.#detect(connection, this.#detectTimeoutMs(), 'http1');
      case 'http2':
      case 'grpc':
        this.http2(connection);
        return;
      case 'detect':
        return this.#detect(connection, protocol.timeoutMs, 'opaque');
      case 'invalid':
        // HTTP clients are told, others are closed by the authorization that never permits.
        return this.#detect(connection, this.#detectTimeoutMs(), 'opaque');
    }
  }

  opaque(connection: InboundConnection): Promise<void> {
    return forward(connection, this.#options);
  }

  http1(connection: InboundConnection): void {
    this.#http(connection, (shared) =>
      serveHttp1(connection.stream, {
        ...shared,
        onBadRequest: (status, error) => this.#onBadRequest(connection, `answered with ${status}`, error),
      }),
    );
  }

  http2(connection: InboundConnection): void {
    this.#http(connection, (shared) =>
      serveHttp2(connection.stream, {
        ...shared,
        onFault: (error) => this.#onBadRequest(connection, 'sent away', error),
      }),
    );
  }

  #http(connection: InboundConnection, serve: (shared: SharedHttpOptions) => HttpServerConnection): void {
    const { clock, random, ports, metrics, live, applications } = this.#options;
    const { stream, target, tls, client, received } = connection;
    const port = ports.get(target.port);
    const settle = metrics.of(target, port.current, tls).source.opened(stream);
    const application = applications.acquire(target);
    // Serving may end before `serve` returns: everything that the end needs is there before.
    let server: HttpServerConnection | null = null;
    const leave = live.enter({ drain: () => server?.drain(), cut: (error) => server?.close(error) });
    // Requests are judged one by one. A client that nothing on this port permits any more is cut even in mid-request:
    // an upgraded connection would otherwise live on for ever.
    const unsubscribe = port.onChange((changed) => {
      if (authorize(allAuthorizations(changed), client)) return;
      metrics.of(target, changed, tls).connection('terminate', null);
      server?.close(new HeddleError('policy-changed', 'client is not permitted any more', { source: 'downstream' }));
    });
    const { inFlight } = this;
    const service = new InboundHttp({
      clock,
      random,
      metrics,
      inFlight,
      connection,
      port,
      application: application.service,
    });
    server = serve({
      // A peer's proxy may have carried HTTP/1 in HTTP/2; nobody else may say so.
      service: downgradeFromHttp2(service, tls.kind === 'mesh'),
      clock,
      clientIdentity: client.identity,
      ...(received && { received }),
      onClose: (error) => {
        unsubscribe();
        leave();
        application.release();
        settle(error ? errnoOf(error) : '');
      },
    });
    if (live.isDraining) server.drain();
  }

  #onBadRequest(connection: InboundConnection, outcome: string, error: Error): void {
    const { log, ports, metrics } = this.#options;
    const { target, tls, clientName } = connection;
    log.info('request refused: not HTTP as it should be', { client: clientName, port: target.port, outcome, error });
    metrics.of(target, ports.get(target.port).current, tls).httpError('bad request');
  }

  /** One read decides. Silence means `fallback`: a server that speaks first. */
  async #detect(connection: InboundConnection, timeoutMs: number, fallback: 'opaque' | 'http1'): Promise<void> {
    const { clock, log, ports, metrics } = this.#options;
    const { stream, target, tls, received } = connection;
    const startedMs = clock.nowMs();
    const { bytes, reason } = await peek(stream, {
      clock,
      ...(received && { received }),
      bytesMax: DETECT_BYTES_MAX,
      timeoutMs,
      isEnough: () => true,
    });
    const series = metrics.of(target, ports.get(target.port).current, tls);
    if (reason === 'end' && bytes.length === 0) {
      series.detected('not_found', clock.nowMs() - startedMs);
      stream.reset();
      return;
    }
    const protocol = reason === 'timeout' ? fallback : detectProtocol(bytes);
    if (reason === 'timeout') {
      log.info('Continuing after timeout: no bytes to tell the protocol by', {
        port: target.port,
        timeoutMs,
        protocol,
      });
    }
    series.detected(reason === 'timeout' ? 'read_timeout' : protocol, clock.nowMs() - startedMs);
    const detected = inboundConnection(stream, bytes, target, tls);
    if (protocol === 'http1') this.http1(detected);
    else if (protocol === 'http2') this.http2(detected);
    else await this.opaque(detected);
  }

  #detectTimeoutMs(): number {
    return this.#options.detectTimeoutMs();
  }
}
