// Connections whose bytes are nobody's business: TCP and TLS routes choose a backend, the balancer an endpoint, and the
// bytes are copied both ways. A client whose connection cannot be made sees a reset, as it would without a proxy.

import type { Clock } from '#lib/clock.ts';
import type { Duplex, DuplexListener } from '#lib/duplex.ts';
import { HeddleError } from '#lib/errors.ts';
import { errnoOf } from '../errno.ts';
import type { PumpOptions } from '../io/pump.ts';
import type { Recorder } from '../observe/recorder.ts';
import { hostOf } from '../policy/route-match.ts';
import type { Backends, BackendUse, Members, TcpMember } from './backends.ts';
import { type Choice, choose } from './distribute.ts';
import type { Ticket } from './endpoint.ts';
import type { Composed } from './logical.ts';
import type { TcpRoute } from './policy.ts';
import type { Lease } from './shared.ts';

export interface OpaqueOptions {
  clock: Clock;
  random: () => number;
  recorder: Recorder;
  backends: Backends;
  /** `pump` of io/pump.ts. */
  pump(left: Duplex, right: Duplex, options: PumpOptions): { close(error?: HeddleError): void };
}

/** A client's connection on its way through. */
export interface OpaqueConnection {
  /** Cuts both sides. Idempotent. */
  close(error?: HeddleError): void;
}

export interface OpaqueRequest {
  client: Duplex;
  /** What was read from the client before. */
  received: Uint8Array | null;
  /** Of the ClientHello; null where none was looked for. */
  serverName: string | null;
  /** Both sides are gone, or the connection could not be made. Called once. */
  onDone(error: HeddleError | null): void;
}

export interface OpaqueService {
  open(request: OpaqueRequest): OpaqueConnection;
}

interface ComposedTcpRoute {
  route: TcpRoute;
  choices: (Choice & { members: Members<TcpMember> | null })[];
}

/** A service for TCP or TLS routes: the first route that takes the server's name. */
export function composeOpaque(
  routes: readonly TcpRoute[],
  use: BackendUse,
  options: OpaqueOptions,
): Composed<OpaqueService> {
  const leases: Lease<unknown>[] = [];
  const composed = routes.map((route) => ({
    route,
    choices: route.distribution.backends.map(({ backend, weight }) => {
      const lease = options.backends.tcp(backend, use);
      if (!lease) return { weight, members: null, isAvailable: () => true };
      leases.push(lease);
      return { weight, members: lease.value.members, isAvailable: () => lease.value.isAvailable() };
    }),
  }));
  return {
    service: { open: (request) => open(composed, request, options) },
    release: () => {
      for (const lease of leases) lease.release();
    },
  };
}

function open(routes: readonly ComposedTcpRoute[], request: OpaqueRequest, options: OpaqueOptions): OpaqueConnection {
  const found = routes.find(({ route }) => takesServerName(route, request.serverName));
  const choice = found && choose(found.route.distribution.kind, found.choices, options.random);
  const connection = new Connection(request, choice?.members ?? null, options);
  if (!found) connection.refuse('no-route', 'find route for connection: expected one for its server name');
  else if (found.route.refusal === 'forbidden') connection.refuse('forbidden', 'connection is forbidden by policy');
  else if (found.route.refusal) connection.refuse('invalid-policy', 'connection has an invalid route');
  else if (!choice?.members) connection.refuse('invalid-backend', 'choose backend: expected one that can be used');
  else connection.start();
  return connection;
}

function takesServerName({ snis }: TcpRoute, serverName: string | null): boolean {
  if (snis.length === 0) return true;
  if (serverName === null) return false;
  const host = hostOf(serverName);
  return snis.some((match) =>
    match.kind === 'exact' ? match.host === host : host.length > match.suffix.length && host.endsWith(match.suffix),
  );
}

/** Endpoints tried for one connection before the client is told. Nothing was sent to those that failed. */
const ENDPOINTS_TRIED_MAX = 3;

class Connection implements OpaqueConnection, DuplexListener {
  readonly #request: OpaqueRequest;
  readonly #members: Members<TcpMember> | null;
  readonly #options: OpaqueOptions;
  readonly #abort = new AbortController();
  #received: Uint8Array[];
  #tried = 0;
  #isWaiting = false;
  #hasEnded = false;
  #pump: { close(error?: HeddleError): void } | null = null;
  #isOver = false;

  constructor(request: OpaqueRequest, members: Members<TcpMember> | null, options: OpaqueOptions) {
    this.#request = request;
    this.#members = members;
    this.#options = options;
    this.#received = request.received ? [request.received] : [];
    request.client.listener = this;
  }

  start(): void {
    const member = this.#members!.pick();
    if (member) {
      this.ready(member);
      return;
    }
    const refusal = this.#members!.wait(this);
    if (refusal) this.fail(refusal);
    else this.#isWaiting = true;
  }

  refuse(code: string, message: string): void {
    this.fail(new HeddleError(code, message));
  }

  close(error?: HeddleError): void {
    if (this.#pump) this.#pump.close(error);
    else this.fail(error ?? new HeddleError('connection-closed', 'close connection: the worker ends'));
  }

  // From the balancer.

  ready(member: TcpMember): void {
    this.#isWaiting = false;
    this.#connect(member).catch((error: unknown) => {
      this.fail(new HeddleError('connect-failed', 'connect', { source: 'internal', cause: error }));
    });
  }

  /** The client is told by a reset: it never got through. */
  fail(error: HeddleError): void {
    if (this.#isOver) return;
    this.#isOver = true;
    if (this.#isWaiting) this.#members?.cancel(this);
    this.#abort.abort();
    this.#request.client.reset(error);
    this.#request.onDone(error);
  }

  // The client's stream, until bytes flow. It is paused, so that little can come.

  onData(buffer: Buffer, start: number, end: number): void {
    this.#received.push(Uint8Array.from(buffer.subarray(start, end)));
  }

  onEnd(): void {
    this.#hasEnded = true;
  }

  onDrain(): void {}

  onClose(error: HeddleError | null): void {
    this.fail(
      error ?? new HeddleError('client-aborted', 'await connection: the client closed', { source: 'downstream' }),
    );
  }

  async #connect(member: TcpMember): Promise<void> {
    this.#tried++;
    const { endpoint } = member;
    const { clock } = this.#options;
    const ticket = endpoint.begin(clock.nowMs());
    try {
      const server = await endpoint.connect(null, this.#abort.signal);
      if (this.#isOver) {
        server.reset();
        endpoint.observe(ticket, clock.nowMs());
        return;
      }
      this.#flow(member, ticket, server);
    } catch (error) {
      endpoint.observe(ticket, clock.nowMs());
      const failure =
        error instanceof HeddleError ? error : new HeddleError('connect-failed', 'connect', { cause: error });
      this.#onConnectFailed(member, failure);
    }
  }

  #onConnectFailed(member: TcpMember, error: HeddleError): void {
    if (this.#isOver) return;
    const next = error.retry === 'yes' && this.#tried < ENDPOINTS_TRIED_MAX ? this.#members!.pick(member) : null;
    if (next) this.ready(next);
    else this.fail(error);
  }

  #flow(member: TcpMember, ticket: Ticket, server: Duplex): void {
    const { clock, pump } = this.#options;
    const { client, onDone } = this.#request;
    const closed = member.endpoint.transport.opened(server);
    const received = this.#received.length === 1 ? this.#received[0]! : Buffer.concat(this.#received);
    this.#received = [];
    this.#pump = pump(client, server, {
      clock,
      ...(received.length > 0 && { receivedFromLeft: received }),
      onDone: (error) => {
        this.#isOver = true;
        member.endpoint.observe(ticket, clock.nowMs());
        closed(error ? errnoOf(error) : '');
        onDone(error);
      },
    });
    // The client ended its direction before there was anywhere to pass that on.
    if (this.#hasEnded) server.end();
  }
}
