// The shop's web application: prices come from the file server, visits and orders are kept in Redis. An ordinary
// program: it knows nothing of a mesh.

import { createHash } from 'node:crypto';
import { Agent, createServer, type IncomingMessage, request, type ServerResponse } from 'node:http';
import { RedisClient } from './redis-client.ts';

const PORT = 8000;
const FILES = { host: process.env.FILES_HOST ?? 'files', port: 8080 };
const REDIS = { host: process.env.REDIS_HOST ?? 'redis', port: 6379 };
const BODY_BYTES_MAX = 1024 * 1024;

interface Item {
  id: number;
  name: string;
  cents: number;
}

const agent = new Agent({ keepAlive: true, maxSockets: 4 });
let shared: RedisClient | null = null;
let orders = 0;

function redis(): RedisClient {
  if (!shared?.isOpen) shared = new RedisClient(REDIS.host, REDIS.port);
  return shared;
}

async function fetchCatalog(): Promise<Item[]> {
  return await new Promise((resolve, reject) => {
    const sent = request({ ...FILES, path: '/catalog.json', agent }, (response) => {
      readBody(response).then((body) => {
        if (response.statusCode !== 200) reject(new Error(`files answered ${response.statusCode}`));
        else resolve(JSON.parse(body.toString('utf8')) as Item[]);
      }, reject);
    });
    sent.on('error', reject);
    sent.end();
  });
}

async function readBody(message: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of message as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > BODY_BYTES_MAX) throw new Error('body too large');
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

async function showItem(id: number): Promise<object> {
  const [catalog, visits] = await Promise.all([fetchCatalog(), redis().command('INCR', `visits:${id}`)]);
  const item = catalog.find((candidate) => candidate.id === id);
  return { item: item ?? null, visits };
}

/** Every order has a Redis connection of its own, as short-lived programs do. */
async function takeOrder(message: IncomingMessage): Promise<object> {
  const body = await readBody(message);
  const digest = createHash('sha256').update(body).digest('hex');
  const client = new RedisClient(REDIS.host, REDIS.port);
  const key = `order:${process.pid}:${++orders % 1000}`;
  await client.command('SET', key, digest);
  const stored = await client.command('GET', key);
  client.close();
  return { bytes: body.length, digest: stored };
}

async function answer(message: IncomingMessage, response: ServerResponse): Promise<void> {
  const item = /^\/item\/(\d+)$/.exec(message.url ?? '');
  if (message.url === '/healthz') return reply(response, 200, { ok: true });
  if (message.method === 'GET' && item) return reply(response, 200, await showItem(Number(item[1])));
  if (message.method === 'POST' && message.url === '/order') return reply(response, 200, await takeOrder(message));
  reply(response, 404, { error: 'not found' });
}

function reply(response: ServerResponse, status: number, body: object): void {
  const text = JSON.stringify(body);
  response.writeHead(status, { 'content-type': 'application/json', 'content-length': Buffer.byteLength(text) });
  response.end(text);
}

const server = createServer((message, response) => {
  answer(message, response).catch((error: unknown) => {
    console.error(error);
    if (!response.headersSent) reply(response, 500, { error: String(error) });
    else response.destroy();
  });
});
// Longer than the proxies in front keep theirs, so that nobody writes into a connection that is being closed.
server.keepAliveTimeout = 75_000;
server.listen(PORT);
process.on('SIGTERM', () => process.exit(0));
