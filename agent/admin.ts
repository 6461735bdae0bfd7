// The agent's HTTP port on the node: one scrape target for the agent and all workers, health, and what is known of the
// pods. `/debug` answers on the node's own loopback and Unix socket only: it names addresses and processes.

import { chmodSync, renameSync, rmSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { HeddleError } from '#lib/errors.ts';
import type { ListenAddress } from '#lib/grpc/server.ts';

export interface AdminOptions {
  /** Null when ready, else why not. */
  notReady: () => string | null;
  metrics: { contentType: string; text(): Promise<string> };
  /** Writes the workers' text; `pod` (`namespace/name`) narrows it to one, null stands for all. */
  proxiesMetrics: (pod: string | null, response: ServerResponse) => Promise<void>;
  /** For `/debug/pods`. */
  pods: () => unknown;
  /** `namespace/name` and labels of each pod that has a worker, for `/sd`. */
  scrapeTargets: () => { pod: string; labels: Record<string, string> }[];
}

const CONNECTIONS_MAX = 64;
const REQUEST_TIMEOUT_MS = 5_000;
const PROXIES_METRICS = '/proxies/metrics';

type Handler = (request: IncomingMessage, response: ServerResponse, url: URL) => void | Promise<void>;

export class AdminServer {
  readonly #options: AdminOptions;
  readonly #servers: Server[] = [];
  #address: ListenAddress | null = null;
  readonly #handlers: Record<string, Handler>;

  constructor(options: AdminOptions) {
    this.#options = options;
    this.#handlers = {
      '/live': (_request, response) => reply(response, 200, 'live\n'),
      '/ready': (_request, response) => {
        const reason = options.notReady();
        reply(response, reason === null ? 200 : 503, `${reason ?? 'ready'}\n`);
      },
      '/metrics': async (_request, response) => {
        reply(response, 200, await options.metrics.text(), options.metrics.contentType);
      },
      [PROXIES_METRICS]: (_request, response, url) => options.proxiesMetrics(url.searchParams.get('pod'), response),
      '/sd': (request, response) => replyJson(response, 200, this.#discovery(request)),
      '/debug/pods': (request, response) => {
        if (isLocal(request)) replyJson(response, 200, options.pods());
        else reply(response, 403, 'expected a request from the node itself\n');
      },
    };
  }

  /** Listens on the node. Resolves with the address. Throws `listen`. */
  async listen({ host, port }: ListenAddress): Promise<ListenAddress> {
    const server = this.#server();
    await listening(server, `${host}:${port}`, (done) => server.listen(port, host, done));
    const bound = server.address();
    this.#address = { host, port: typeof bound === 'object' && bound ? bound.port : port };
    return this.#address;
  }

  /** Where it listens; null before. */
  get address(): ListenAddress | null {
    return this.#address;
  }

  /** Listens on a Unix socket of mode 0600, replacing that of an agent before. */
  async listenUnix(path: string): Promise<void> {
    const server = this.#server();
    const temporary = `${path}.${process.pid}`;
    rmSync(temporary, { force: true });
    await listening(server, temporary, (done) => server.listen(temporary, done));
    chmodSync(temporary, 0o600);
    renameSync(temporary, path);
  }

  close(): void {
    for (const server of this.#servers) {
      server.close();
      server.closeAllConnections();
    }
  }

  #server(): Server {
    const timeouts = { requestTimeout: REQUEST_TIMEOUT_MS, headersTimeout: REQUEST_TIMEOUT_MS };
    const server = createServer(timeouts, (request, response) => void this.#handle(request, response));
    server.maxConnections = CONNECTIONS_MAX;
    this.#servers.push(server);
    return server;
  }

  async #handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = URL.parse(request.url ?? '/', 'http://agent');
    const handler = url && Object.hasOwn(this.#handlers, url.pathname) ? this.#handlers[url.pathname] : undefined;
    if (!url || !handler) {
      reply(response, 404, `expected one of ${Object.keys(this.#handlers).join(', ')}\n`);
    } else if (request.method !== 'GET' && request.method !== 'HEAD') {
      reply(response, 405, 'expected GET\n');
    } else {
      try {
        await handler(request, response, url);
      } catch (error) {
        if (response.headersSent) response.destroy();
        else reply(response, 500, `${error instanceof Error ? error.message : error}\n`);
      }
    }
  }

  /** Prometheus HTTP service discovery: each pod as a target of its own at this very address. */
  #discovery(request: IncomingMessage): unknown {
    const target = request.headers.host ?? 'localhost';
    return this.#options.scrapeTargets().map(({ pod, labels }) => ({
      targets: [target],
      labels: { __metrics_path__: PROXIES_METRICS, __param_pod: pod, ...labels },
    }));
  }
}

function isLocal({ socket }: IncomingMessage): boolean {
  const address = socket.remoteAddress;
  // A Unix socket has no address.
  return address === undefined || address === '::1' || /^(::ffff:)?127\./.test(address);
}

function reply(response: ServerResponse, status: number, body: string, type = 'text/plain; charset=utf-8'): void {
  response.writeHead(status, { 'content-type': type });
  response.end(body);
}

function replyJson(response: ServerResponse, status: number, body: unknown): void {
  const encoded = JSON.stringify(body, (_key, value) => (typeof value === 'bigint' ? String(value) : value), 2);
  reply(response, status, `${encoded}\n`, 'application/json');
}

async function listening(server: Server, name: string, listen: (done: () => void) => void): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    server.once('error', (cause) => {
      reject(new HeddleError('listen', `listen on "${name}": expected a free address`, { cause }));
    });
    listen(resolve);
  });
}
