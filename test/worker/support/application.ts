// Applications and clients of the pod under test, on loopback addresses.

import http from 'node:http';
import net from 'node:net';
import { POD_ADDRESS } from './config.ts';
import { inboundAddress, onCleanUp, type Sockets } from './process.ts';

export interface SeenRequest {
  method: string;
  url: string;
  headers: http.IncomingHttpHeaders;
  body: string;
}

/** An HTTP application of the pod. It answers 200 with a body that names the request, or as `answer` says. */
export async function httpApplication(
  answer?: (request: http.IncomingMessage, response: http.ServerResponse) => void,
  address = POD_ADDRESS,
): Promise<{ port: number; seen: SeenRequest[]; server: http.Server }> {
  const seen: SeenRequest[] = [];
  const server = http.createServer((request, response) => {
    let body = '';
    request.setEncoding('latin1').on('data', (text: string) => {
      body += text;
    });
    request.on('end', () => {
      seen.push({ method: request.method!, url: request.url!, headers: request.headers, body });
      if (answer) answer(request, response);
      else response.end(`${request.method} ${request.url} ${body}`);
    });
  });
  return { port: await listen(server, address), seen, server };
}

/** A TCP application of the pod. */
export async function tcpApplication(
  serve: (socket: net.Socket) => void,
): Promise<{ port: number; sockets: net.Socket[] }> {
  const sockets: net.Socket[] = [];
  const server = net.createServer({ allowHalfOpen: true }, (socket) => {
    sockets.push(socket);
    socket.on('error', () => {});
    serve(socket);
  });
  return { port: await listen(server), sockets };
}

/** Sends back what comes. */
export function echo(socket: net.Socket): void {
  socket.pipe(socket);
}

async function listen(server: net.Server, address = POD_ADDRESS): Promise<number> {
  server.listen(0, address);
  await new Promise((resolve) => server.once('listening', resolve));
  onCleanUp(() => {
    server.close();
    if (server instanceof http.Server) server.closeAllConnections();
  });
  return (server.address() as net.AddressInfo).port;
}

export interface Answer {
  status: number;
  headers: http.IncomingHttpHeaders;
  body: string;
}

export interface RequestOptions {
  method?: string;
  path?: string;
  headers?: http.OutgoingHttpHeaders;
  body?: string;
  /** The client's own address. */
  from?: string;
  agent?: http.Agent;
  /** Reaches the worker, such as over TLS; by default plain TCP to the inbound listener. */
  connect?: () => net.Socket;
}

/** A request to `port` of the pod, through the worker. Rejects when the connection fails. */
export function request(sockets: Sockets, port: number, options: RequestOptions = {}): Promise<Answer> {
  const { method = 'GET', path = '/', headers = {}, body, from = '127.0.0.9', connect } = options;
  const { promise, resolve, reject } = Promise.withResolvers<Answer>();
  const outgoing = http.request({
    host: inboundAddress(port),
    port: sockets.ports.inbound4,
    localAddress: from,
    method,
    path,
    headers: { host: 'web.shop', ...headers },
    // With an agent, even none, Node would ignore the connection.
    ...(connect ? { createConnection: connect } : { agent: options.agent ?? false }),
  });
  outgoing.setTimeout(10_000, () => outgoing.destroy(new Error('no answer within 10 s')));
  outgoing.on('error', reject);
  outgoing.on('response', (response) => {
    let text = '';
    response.setEncoding('latin1').on('data', (chunk: string) => {
      text += chunk;
    });
    response.on('error', reject);
    response.on('end', () => resolve({ status: response.statusCode!, headers: response.headers, body: text }));
  });
  outgoing.end(body);
  return promise;
}

/** A TCP connection to `port` of the pod, through the worker. */
export class TcpClient {
  readonly socket: net.Socket;
  received = '';
  /** Set when the connection is gone: empty when it ended in order, else the error's code. */
  closed: string | null = null;
  #error = '';

  constructor(socket: net.Socket) {
    this.socket = socket;
    socket.setEncoding('latin1');
    socket.on('data', (text: string) => {
      this.received += text;
    });
    socket.on('error', (error: NodeJS.ErrnoException) => {
      this.#error = error.code ?? error.message;
    });
    socket.on('close', () => {
      this.closed = this.#error;
    });
    onCleanUp(() => socket.destroy());
  }

  static connect(sockets: Sockets, port: number, from = '127.0.0.9'): TcpClient {
    const options = { host: inboundAddress(port), port: sockets.ports.inbound4, localAddress: from };
    return new TcpClient(net.connect({ ...options, allowHalfOpen: true }));
  }
}
