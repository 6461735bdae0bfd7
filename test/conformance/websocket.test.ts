import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import http from 'node:http';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import WebSocket, { type ClientOptions, WebSocketServer } from 'ws';
import { Tally } from './support/counts.ts';
import { MeshedPair, SERVICE } from './support/meshed-pair.ts';

/** Lengths on both sides of each form of a frame's length (RFC 6455 section 5.2). */
const LENGTHS = [0, 1, 125, 126, 65_535, 65_536, 1 << 20];
const CONNECTIONS = 50;
const MESSAGES = 5;

let pair: MeshedPair;
let server: http.Server;
let echoes: WebSocketServer;
const open = new Set<WebSocket>();

const cases: [name: string, run: () => Promise<void>][] = [
  ...LENGTHS.map((length): [string, () => Promise<void>] => [
    `echoes ${length} characters and as many bytes`,
    async () => {
      const client = await connected();
      for (const message of ['x'.repeat(length), randomBytes(length)]) {
        client.send(message);
        const [echo, isBinary] = (await once(client, 'message')) as [Buffer, boolean];
        expect([echo.equals(Buffer.from(message)), isBinary]).toEqual([true, typeof message !== 'string']);
      }
    },
  ]),
  [
    'keeps fragments of a message together, with a ping between them',
    async () => {
      const client = await connected();
      const answers = Promise.all([once(client, 'pong'), once(client, 'message')]);
      client.send('one ', { fin: false });
      client.ping('between');
      client.send('two ', { fin: false });
      client.send('three');
      expect((await answers).map(([payload]) => String(payload))).toEqual(['between', 'one two three']);
    },
  ],
  [
    'compresses when both want to (RFC 7692)',
    async () => {
      const client = await connected('/', { perMessageDeflate: { threshold: 0 } });
      expect(client.extensions).toContain('permessage-deflate');
      const text = 'the same again and again '.repeat(10_000);
      client.send(text);
      expect(String((await once(client, 'message'))[0])).toBe(text);
    },
  ],
  [
    'agrees on a subprotocol',
    async () => {
      const client = await connected('/', {}, ['unknown', 'chosen']);
      expect(client.protocol).toBe('chosen');
    },
  ],
  [
    'hears what the server says right behind its 101',
    async () => {
      const client = dial('/greeting');
      expect(String((await once(client, 'message'))[0])).toBe('hello');
    },
  ],
  [
    'closes with the code and reason of the client',
    async () => {
      const accepted = once(echoes, 'connection');
      const client = await connected();
      const [peer] = (await accepted) as [WebSocket];
      const closed = Promise.all([closing(peer), closing(client)]);
      client.close(4_001, 'the client is done');
      expect(await closed).toEqual(Array(2).fill([4_001, 'the client is done']));
    },
  ],
  [
    'closes with the code and reason of the server',
    async () => {
      const client = await connected('/close');
      expect(await closing(client)).toEqual([4_002, 'the server is done']);
    },
  ],
  [
    'tells the server of a client that vanishes',
    async () => {
      const accepted = once(echoes, 'connection');
      const client = await connected();
      const [peer] = (await accepted) as [WebSocket];
      client.terminate();
      expect((await closing(peer))[0]).toBe(1_006);
    },
  ],
  [
    'hands on the answer of a server that refuses',
    async () => {
      const client = dial('/refused');
      const [, response] = (await once(client, 'unexpected-response')) as [unknown, http.IncomingMessage];
      const [body] = (await once(response.setEncoding('utf8'), 'data')) as [string];
      expect([response.statusCode, response.headers['x-why'], body]).toEqual([403, 'no', 'not you']);
    },
  ],
  [
    'carries both directions at a time, 8 MiB each',
    async () => {
      const client = await connected();
      const messages = Array.from({ length: 128 }, () => randomBytes(65_536));
      let at = 0;
      const { promise, resolve } = Promise.withResolvers<void>();
      client.on('message', (echo: Buffer) => {
        expect(echo.equals(messages[at++]!)).toBe(true);
        if (at === messages.length) resolve();
      });
      for (const message of messages) client.send(message);
      await promise;
    },
  ],
  [
    `keeps ${CONNECTIONS} connections at a time apart`,
    async () => {
      const clients = await Promise.all(Array.from({ length: CONNECTIONS }, () => connected()));
      await Promise.all(
        clients.map(async (client, index) => {
          for (let count = 0; count < MESSAGES; count++) {
            client.send(`${index} ${count}`);
            expect(String((await once(client, 'message'))[0])).toBe(`${index} ${count}`);
          }
        }),
      );
    },
  ],
];

function dial(path: string, options: ClientOptions = {}, protocols: string[] = []): WebSocket {
  const client = new WebSocket(`ws://web.shop.svc.cluster.local${path}`, protocols, {
    perMessageDeflate: false,
    handshakeTimeout: 10_000,
    createConnection: () => pair.connect(pair.client, SERVICE),
    ...options,
  });
  client.on('error', () => {});
  open.add(client);
  return client;
}

async function connected(path = '/', options: ClientOptions = {}, protocols: string[] = []): Promise<WebSocket> {
  const client = dial(path, options, protocols);
  await once(client, 'open');
  return client;
}

async function closing(socket: WebSocket): Promise<[code: number, reason: string]> {
  const [code, reason] = (await once(socket, 'close')) as [number, Buffer];
  return [code, reason.toString()];
}

function serve(socket: WebSocket, { url }: http.IncomingMessage): void {
  socket.on('error', () => {});
  socket.on('message', (message, isBinary) => socket.send(message as Buffer, { binary: isBinary }));
  if (url === '/greeting') socket.send('hello');
  if (url === '/close') socket.close(4_002, 'the server is done');
}

describe('WebSocket through a pair with mutual TLS', () => {
  const tally = new Tally('websocket', cases.length);

  beforeAll(async () => {
    pair = await MeshedPair.start('hdlwsk');
    server = http.createServer();
    echoes = new WebSocketServer({
      noServer: true,
      perMessageDeflate: { threshold: 0 },
      handleProtocols: (offered) => (offered.has('chosen') ? 'chosen' : false),
    });
    echoes.on('connection', serve);
    server.on('upgrade', (request, socket, head) => {
      if (request.url === '/refused') {
        socket.end('HTTP/1.1 403 Forbidden\r\nX-Why: no\r\nContent-Length: 7\r\n\r\nnot you');
        return;
      }
      echoes.handleUpgrade(request, socket, head, (client) => echoes.emit('connection', client, request));
    });
    server.listen({ fd: pair.applicationListener() });
    await once(server, 'listening');
  });

  afterEach(() => {
    for (const client of open) client.terminate();
    open.clear();
  });

  afterAll(async () => {
    tally.write();
    for (const client of echoes?.clients ?? []) client.terminate();
    server?.close();
    server?.closeAllConnections();
    await pair?.close();
  });

  test.each(cases)('%s', { timeout: 20_000 }, (_name, run) => tally.case(run));

  test('both workers say that every connection was secured', async () => {
    const views = [
      ['client', { direction: 'outbound', tls: 'true', server_id: pair.identityOf('server') }],
      ['server', { direction: 'inbound', tls: 'true', client_id: pair.identityOf('client') }],
    ] as const;
    for (const [pod, secured] of views) {
      const all = await pair.metric(pod, 'request_total', { direction: secured.direction });
      expect(all).toBeGreaterThan(CONNECTIONS);
      expect(await pair.metric(pod, 'request_total', secured)).toBe(all);
      // An upgraded connection is counted when it ends. One request was refused.
      const upgraded = () => pair.metric(pod, 'response_total', { ...secured, status_code: '101' });
      await expect.poll(upgraded, { timeout: 10_000, interval: 20 }).toBe(all - 1);
    }
  });
});
