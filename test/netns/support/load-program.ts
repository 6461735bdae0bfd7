// A client in a pod that sends requests at a steady rate, whatever becomes of them: half of each on a connection of its
// own, half on connections that stay open. It never retries. An answer counts when every byte of it is right.

import { createHash } from 'node:crypto';
import http from 'node:http';
import net from 'node:net';
import { answerCommands } from './channel.ts';
import type { LoadCommand, LoadFailure, LoadOptions, LoadProtocol, LoadReport } from './load.ts';

const TICK_MS = 5;
const KEPT_CONNECTIONS = 8;
const UNANSWERED_MAX = 4_000;
const ANSWER_TIMEOUT_MS = 30_000;
const BODY_BYTES_MAX = 24 * 1024;

interface Exchange {
  number: number;
  protocol: LoadProtocol;
  host: string;
  body: Buffer;
  isOnNewConnection: boolean;
  startedMs: number;
}

/** Sends one request and resolves when its answer is right; rejects with why it is not. */
type Send = (exchange: Exchange) => Promise<void>;

const nowMs = (): number => Number(process.hrtime.bigint()) / 1e6;
/** When each connection was asked for. */
const started = new WeakMap<net.Socket, number>();
const connections: Record<LoadProtocol, number> = { http: 0, tcp: 0 };

class RequestError extends Error {
  readonly connectionStartedMs: number;
  constructor(what: string, socket: net.Socket | null) {
    super(what);
    this.connectionStartedMs = (socket && started.get(socket)) ?? Number.NaN;
  }
}

function connect(protocol: LoadProtocol, host: string, port: number): net.Socket {
  const startedMs = nowMs();
  const socket = net.connect({ host, port, allowHalfOpen: protocol === 'tcp', noDelay: true });
  started.set(socket, startedMs);
  connections[protocol]++;
  return socket;
}

/** Bytes that are different for each request, and known from its number. */
function bodyOf(number: number): Buffer {
  const seed = createHash('sha256').update(String(number)).digest();
  const length = 1 + (seed.readUInt32LE(0) % BODY_BYTES_MAX);
  const body = Buffer.alloc(length);
  for (let at = 0; at < length; at += seed.length) seed.copy(body, at);
  return body;
}

function httpSender(port: number): Send {
  class Agent extends http.Agent {
    override createConnection(options: http.ClientRequestArgs): net.Socket {
      return connect('http', options.host!, Number(options.port));
    }
  }
  const kept = Array.from({ length: KEPT_CONNECTIONS }, () => new Agent({ keepAlive: true, maxSockets: 1 }));
  return ({ number, host, body, isOnNewConnection }) =>
    new Promise((resolve, reject) => {
      // Each agent keeps one connection for each host.
      const agent = isOnNewConnection ? new Agent({ keepAlive: false }) : kept[(number >> 3) % kept.length]!;
      const headers = { 'content-length': body.length, 'x-number': number };
      const request = http.request({ host, port, method: 'POST', path: `/echo/${number}`, agent, headers });
      const fail = (what: string): void => reject(new RequestError(what, request.socket));
      request.setTimeout(ANSWER_TIMEOUT_MS, () => request.destroy(new Error('no answer in time')));
      request.on('error', (error) => fail(error.message));
      request.on('response', (response) => {
        const chunks: Buffer[] = [];
        response.on('data', (chunk: Buffer) => chunks.push(chunk));
        response.on('error', (error) => fail(`body: ${error.message}`));
        response.on('end', () => {
          const { 'l5d-proxy-error': proxyError = '', 'x-number': answered } = response.headers;
          if (response.statusCode !== 200) fail(`status ${response.statusCode} ${proxyError}`);
          else if (!response.complete || !Buffer.concat(chunks).equals(body)) fail('wrong body');
          else if (answered !== String(number)) fail(`answer of request ${answered}`);
          else resolve();
        });
      });
      request.end(body);
    });
}

/** Connections to an echo server: each message is written and read back whole. */
function tcpSender(port: number): Send {
  const kept = new Map<string, { socket: net.Socket; tail: Promise<void> }>();
  const exchangeOn = (socket: net.Socket, body: Buffer, isLast: boolean): Promise<void> =>
    new Promise((resolve, reject) => {
      let received = 0;
      const done = (what?: string): void => {
        socket.off('data', onData).off('error', onError).off('close', onClose).off('end', onEnd);
        socket.setTimeout(0, onTimeout);
        if (what !== undefined) socket.destroy();
        if (what === undefined) resolve();
        else reject(new RequestError(what, socket));
      };
      const onData = (chunk: Buffer): void => {
        const isRight = body.subarray(received, received + chunk.length).equals(chunk);
        received += chunk.length;
        if (!isRight) done('wrong body');
        else if (received === body.length && !isLast) done();
      };
      // The last message ends with the connection: half-close goes there and comes back.
      const onEnd = (): void => done(received === body.length && isLast ? undefined : 'ended early');
      const onError = (error: Error): void => done(error.message);
      const onClose = (): void => done('closed early');
      const onTimeout = (): void => done('no answer in time');
      socket.on('data', onData).on('error', onError).on('close', onClose).on('end', onEnd);
      socket.setTimeout(ANSWER_TIMEOUT_MS, onTimeout);
      if (isLast) socket.end(body);
      else socket.write(body);
    });
  const open = (host: string): net.Socket => connect('tcp', host, port).on('error', () => {});
  return ({ number, host, body, isOnNewConnection }) => {
    if (isOnNewConnection) return exchangeOn(open(host), body, true);
    const key = `${host} ${(number >> 3) % KEPT_CONNECTIONS}`;
    const entry = kept.get(key) ?? { socket: open(host), tail: Promise.resolve() };
    kept.set(key, entry);
    const exchange = entry.tail.then(async () => {
      if (entry.socket.destroyed || entry.socket.readableEnded) entry.socket = open(host);
      await exchangeOn(entry.socket, body, false);
    });
    entry.tail = exchange.catch(() => {});
    return exchange;
  };
}

class Load {
  readonly #options: LoadOptions;
  readonly #senders: [LoadProtocol, Send][] = [];
  readonly #requests: Record<LoadProtocol, number> = { http: 0, tcp: 0 };
  readonly #startedMs = nowMs();
  readonly #unanswered = new Set<Promise<void>>();
  readonly #failures: LoadFailure[] = [];
  readonly #timer = setInterval(() => this.#tick(), TICK_MS);
  #sent = 0;
  #ok = 0;
  #onNewConnections = 0;
  #slowestMs = 0;
  #unansweredMax = 0;
  #stoppedMs = 0;

  constructor(options: LoadOptions) {
    this.#options = options;
    const { http: httpPort, tcp: tcpPort } = options.ports;
    if (httpPort !== undefined) this.#senders.push(['http', httpSender(httpPort)]);
    if (tcpPort !== undefined) this.#senders.push(['tcp', tcpSender(tcpPort)]);
  }

  report(): LoadReport {
    const seconds = ((this.#stoppedMs || nowMs()) - this.#startedMs) / 1000;
    return {
      sent: this.#sent,
      ok: this.#ok,
      failures: this.#failures,
      onNewConnections: this.#onNewConnections,
      requests: this.#requests,
      connections,
      keptConnections: KEPT_CONNECTIONS * this.#options.hosts.length * this.#senders.length,
      unansweredMax: this.#unansweredMax,
      seconds,
      perSecond: this.#sent / seconds,
      slowestMs: this.#slowestMs,
    };
  }

  /** Sends nothing more; resolves when everything sent has its answer or has failed. */
  async stop(): Promise<LoadReport> {
    clearInterval(this.#timer);
    this.#stoppedMs = nowMs();
    await Promise.all(this.#unanswered);
    return this.report();
  }

  #tick(): void {
    const due = Math.floor(((nowMs() - this.#startedMs) / 1000) * this.#options.perSecond);
    while (this.#sent < due) this.#one(this.#sent++);
  }

  #one(number: number): void {
    const { hosts } = this.#options;
    const isOnNewConnection = number % 2 === 0;
    const [protocol, send] = this.#senders[(number >> 1) % this.#senders.length]!;
    const host = hosts[(number >> 2) % hosts.length]!;
    this.#requests[protocol]++;
    const exchange: Exchange = { number, protocol, host, body: bodyOf(number), isOnNewConnection, startedMs: nowMs() };
    if (isOnNewConnection) this.#onNewConnections++;
    if (this.#unanswered.size >= UNANSWERED_MAX) {
      this.#failed(exchange, new RequestError('too many unanswered', null));
      return;
    }
    const settled: Promise<void> = send(exchange)
      .then(
        () => {
          this.#ok++;
          this.#slowestMs = Math.max(this.#slowestMs, nowMs() - exchange.startedMs);
        },
        (error: RequestError) => this.#failed(exchange, error),
      )
      .finally(() => this.#unanswered.delete(settled));
    this.#unanswered.add(settled);
    this.#unansweredMax = Math.max(this.#unansweredMax, this.#unanswered.size);
  }

  #failed({ protocol, isOnNewConnection, startedMs }: Exchange, { message, connectionStartedMs }: RequestError): void {
    this.#failures.push({
      what: message,
      protocol,
      isOnNewConnection,
      connectionStartedMs,
      requestStartedMs: startedMs,
      failedMs: nowMs(),
    });
  }
}

let load: Load | null = null;

answerCommands((command: LoadCommand) => {
  switch (command.op) {
    case 'start':
      load = new Load(command.options);
      return null;
    case 'progress':
      return load!.report();
    case 'stop':
      return load!.stop();
  }
});
