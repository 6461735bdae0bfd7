// A server in a pod, told what to serve: HTTP that answers each body with itself, TCP and UDP that send back what they
// get. It knows nothing of a mesh, and says what reached it.

import dgram from 'node:dgram';
import http from 'node:http';
import net from 'node:net';
import { answerCommands } from './channel.ts';

export type WebCommand =
  | { op: 'http'; port: number; host?: string }
  | { op: 'tcp'; port: number; host?: string }
  | { op: 'udp'; port: number }
  | { op: 'seen' };

export interface WebSeen {
  requests: number;
  connections: number;
  /** Headers of the last request. */
  headers: http.IncomingHttpHeaders;
  /** The last peer. */
  peer: string;
}

const seen: WebSeen = { requests: 0, connections: 0, headers: {}, peer: '' };

function listen(server: net.Server | http.Server, port: number, host = '::'): Promise<void> {
  server.on('connection', ({ remoteAddress = '' }: net.Socket) => {
    seen.connections++;
    seen.peer = remoteAddress;
  });
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen({ port, host, backlog: 4096 }, resolve);
  });
}

function webServer(): http.Server {
  // Clients decide how long a connection stays.
  return http.createServer({ keepAliveTimeout: 600_000, requestTimeout: 0 }, (request, response) => {
    seen.requests++;
    seen.headers = request.headers;
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => {
      const body = Buffer.concat(chunks);
      const status = Number(/^\/status\/(\d+)/.exec(request.url!)?.[1] ?? 200);
      response.writeHead(status, {
        'content-length': body.length,
        'x-number': request.headers['x-number'] ?? '',
      });
      response.end(body);
    });
  });
}

function echoServer(): net.Server {
  return net.createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
    socket.on('error', () => socket.destroy());
    socket.pipe(socket);
  });
}

async function serveUdp(port: number): Promise<void> {
  const socket = dgram.createSocket({ type: 'udp6', ipv6Only: false });
  socket.on('message', (message, from) => socket.send(message, from.port, from.address));
  await new Promise<void>((resolve) => socket.bind(port, '::', resolve));
}

answerCommands((command: WebCommand) => {
  switch (command.op) {
    case 'http':
      return listen(webServer(), command.port, command.host);
    case 'tcp':
      return listen(echoServer(), command.port, command.host);
    case 'udp':
      return serveUdp(command.port);
    case 'seen':
      return seen;
  }
});
