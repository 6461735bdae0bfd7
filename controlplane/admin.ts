// The admin port of a control-plane process: `/live` while it runs, `/ready` once it serves, `/metrics` in Prometheus
// text. Plain HTTP, answers GET only, tells nothing but these three.

import { createServer, type Server } from 'node:http';
import { HeddleError } from '#lib/errors.ts';
import type { ListenAddress } from '#lib/grpc/server.ts';

/** A scraper and a few probes; what comes beyond waits or is refused. */
const CONNECTIONS_MAX = 64;
const HEADERS_TIMEOUT_MS = 5000;

export interface AdminOptions {
  /** Null when ready, else the reason why not. */
  notReady: () => string | null;
  /** Prometheus text. */
  metrics: () => Promise<string>;
  contentType: string;
}

export class AdminServer {
  readonly #server: Server;

  constructor(options: AdminOptions) {
    this.#server = createServer(
      { requestTimeout: HEADERS_TIMEOUT_MS, headersTimeout: HEADERS_TIMEOUT_MS },
      (request, response) => {
        const path = request.url?.split('?')[0];
        const reply = (status: number, body: string, type = 'text/plain; charset=utf-8'): void => {
          response.writeHead(status, { 'content-type': type });
          response.end(body);
        };
        if (request.method !== 'GET') return reply(405, 'only GET\n');
        if (path === '/live') return reply(200, 'live\n');
        if (path === '/ready') {
          const reason = options.notReady();
          return reason === null ? reply(200, 'ready\n') : reply(503, `${reason}\n`);
        }
        if (path !== '/metrics') return reply(404, 'expected /live, /ready or /metrics\n');
        options.metrics().then(
          (text) => reply(200, text, options.contentType),
          () => reply(500, 'metrics cannot be read\n'),
        );
      },
    );
    this.#server.maxConnections = CONNECTIONS_MAX;
  }

  /** Resolves with the address listened on. Throws `listen`. */
  async listen({ host, port }: ListenAddress): Promise<ListenAddress> {
    await new Promise<void>((resolve, reject) => {
      this.#server.once('error', (cause) =>
        reject(new HeddleError('listen', `listen on "${host}:${port}": expected a free port`, { cause })),
      );
      this.#server.listen(port, host, resolve);
    });
    const bound = this.#server.address();
    return { host, port: typeof bound === 'object' && bound ? bound.port : port };
  }

  close(): void {
    this.#server.close();
    this.#server.closeAllConnections();
  }
}
