// Requests to the Kubernetes API server: one JSON object, or a stream of them. Small on purpose: the generated client
// costs 80 MiB resident, more than the whole agent. The token is read again for each request, since the kubelet renews
// the file (https://kubernetes.io/docs/concepts/storage/projected-volumes, "serviceAccountToken").

import { readFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import http from 'node:http';
import https from 'node:https';
import path from 'node:path';
import { HeddleError } from '#lib/errors.ts';

export interface ApiServerOptions {
  /** Such as `https://10.96.0.1:443`. */
  url: string;
  /** PEM of the authority that signed the server's certificate; null for plain HTTP. */
  caPem: string | null;
  /** File with the bearer token; null where none is needed. */
  tokenFile: string | null;
}

/** Where a container finds its ServiceAccount. */
const SERVICE_ACCOUNT_DIRECTORY = '/var/run/secrets/kubernetes.io/serviceaccount';
const REQUEST_TIMEOUT_MS = 30_000;
/** An answer that is not a list of thousands of objects stays far below this. */
const ANSWER_BYTES_MAX = 256 * 1024 * 1024;
/** One object of a watch. etcd refuses objects above 1.5 MiB. */
const LINE_BYTES_MAX = 8 * 1024 * 1024;
const CONNECTIONS_MAX = 32;

/** The options of a process in a pod. Throws `no-cluster` outside of one. */
export function inClusterOptions(
  environment: (name: string) => string | undefined,
  directory = SERVICE_ACCOUNT_DIRECTORY,
): ApiServerOptions {
  const host = environment('KUBERNETES_SERVICE_HOST');
  const port = environment('KUBERNETES_SERVICE_PORT');
  if (!host || !port) {
    throw new HeddleError('no-cluster', 'find the API server: expected KUBERNETES_SERVICE_HOST and _PORT, as in a pod');
  }
  const authority = host.includes(':') ? `[${host}]` : host;
  return {
    url: `https://${authority}:${port}`,
    caPem: readFileSync(path.join(directory, 'ca.crt'), 'utf8'),
    tokenFile: path.join(directory, 'token'),
  };
}

/** The API server refused: `status` is its HTTP status. */
export class ApiServerError extends HeddleError {
  readonly status: number;

  constructor(status: number, message: string) {
    super('api-server', message, { source: 'upstream' });
    this.status = status;
  }
}

export class ApiServer {
  readonly #options: ApiServerOptions;
  readonly #agent: http.Agent;

  constructor(options: ApiServerOptions) {
    this.#options = options;
    const keepAlive = { keepAlive: true, maxSockets: CONNECTIONS_MAX };
    this.#agent = options.url.startsWith('https:')
      ? new https.Agent({ ...keepAlive, ...(options.caPem === null ? {} : { ca: options.caPem }) })
      : new http.Agent(keepAlive);
  }

  /** One object. Rejects with ApiServerError, or HeddleError `api-server-unreachable`. */
  async request(
    method: 'GET' | 'POST' | 'PATCH',
    pathname: string,
    body: object | null,
    signal: AbortSignal,
  ): Promise<unknown> {
    const deadline = AbortSignal.any([signal, AbortSignal.timeout(REQUEST_TIMEOUT_MS)]);
    const response = await this.#send(method, pathname, body, deadline);
    const parts: Buffer[] = [];
    let bytes = 0;
    for await (const part of response as AsyncIterable<Buffer>) {
      bytes += part.length;
      if (bytes > ANSWER_BYTES_MAX) throw new HeddleError('api-server', `read ${pathname}: the answer is too long`);
      parts.push(part);
    }
    return JSON.parse(Buffer.concat(parts).toString('utf8'));
  }

  /**
   * A watch: `onObject` gets each object until the server ends the stream. Rejects when it cannot be opened, breaks, or
   * stays silent for `silenceMs`.
   */
  async stream(
    pathname: string,
    onObject: (value: unknown) => void,
    options: { signal: AbortSignal; silenceMs: number },
  ): Promise<void> {
    const response = await this.#send('GET', pathname, null, options.signal);
    response.setTimeout(options.silenceMs, () => {
      response.destroy(new HeddleError('api-server-silent', `watch ${pathname}: silent for ${options.silenceMs} ms`));
    });
    let rest: Buffer = Buffer.alloc(0);
    for await (const part of response as AsyncIterable<Buffer>) {
      rest = rest.length === 0 ? part : Buffer.concat([rest, part]);
      for (let end = rest.indexOf(0x0a); end >= 0; end = rest.indexOf(0x0a)) {
        const line = rest.subarray(0, end).toString('utf8');
        rest = rest.subarray(end + 1);
        if (line.trim() !== '') onObject(JSON.parse(line));
      }
      if (rest.length > LINE_BYTES_MAX) throw new HeddleError('api-server', `watch ${pathname}: an object is too long`);
    }
  }

  close(): void {
    this.#agent.destroy();
  }

  async #send(
    method: string,
    pathname: string,
    body: object | null,
    signal: AbortSignal,
  ): Promise<http.IncomingMessage> {
    const { url, tokenFile } = this.#options;
    const token = tokenFile === null ? null : (await readFile(tokenFile, 'utf8')).trim();
    const text = body === null ? null : JSON.stringify(body);
    const contentType = method === 'PATCH' ? 'application/merge-patch+json' : 'application/json';
    const headers = {
      accept: 'application/json',
      ...(token === null ? {} : { authorization: `Bearer ${token}` }),
      ...(text === null ? {} : { 'content-type': contentType, 'content-length': Buffer.byteLength(text) }),
    };
    const library = url.startsWith('https:') ? https : http;
    const response = await new Promise<http.IncomingMessage>((resolve, reject) => {
      const request = library.request(new URL(pathname, url), { method, headers, agent: this.#agent, signal });
      request.once('response', resolve);
      request.on('error', (cause) => {
        reject(new HeddleError('api-server-unreachable', `${method} ${pathname}`, { source: 'upstream', cause }));
      });
      request.end(text ?? undefined);
    });
    const status = response.statusCode ?? 0;
    if (status >= 200 && status < 300) return response;
    throw new ApiServerError(status, `${method} ${pathname}: ${status} ${await reasonOf(response)}`);
  }
}

/** The message of the Status object that the API server answers errors with. */
async function reasonOf(response: http.IncomingMessage): Promise<string> {
  let text = '';
  for await (const part of response.setEncoding('utf8') as AsyncIterable<string>) {
    if (text.length < 4096) text += part;
  }
  try {
    return String((JSON.parse(text) as { message?: unknown }).message ?? text);
  } catch {
    return text;
  }
}
