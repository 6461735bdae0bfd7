// Customers: they look at items and order, half of them over new connections, at a steady rate, and look at every byte
// that comes back. No retries: what fails is counted. One line of JSON a second tells how it goes.

import { createHash, randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { Agent, request } from 'node:http';

const TARGET = new URL(process.env.TARGET ?? 'http://front:8080');
const RATE = Number(process.env.RATE ?? '40');
const TIMEOUT_MS = 10_000;
const IN_FLIGHT_MAX = 200;
const ORDER_BYTES_MAX = 64 * 1024;

const catalog = JSON.parse(readFileSync(new URL('./files/catalog.json', import.meta.url), 'utf8')) as { id: number }[];
const kept = new Agent({ keepAlive: true, maxSockets: 8 });
const totals = { requests: 0, failed: 0, lastError: '' };
let inFlight = 0;
let turn = 0;

interface Exchange {
  path: string;
  body: Buffer | null;
  /** Why the answer is wrong; null when it is right. */
  verify: (text: string) => string | null;
}

function look(): Exchange {
  const item = catalog[turn % catalog.length]!;
  return {
    path: `/item/${item.id}`,
    body: null,
    verify: (text) => {
      const answer = JSON.parse(text) as { item: unknown; visits: unknown };
      if (JSON.stringify(answer.item) !== JSON.stringify(item)) return `wrong item ${text}`;
      return Number.isInteger(answer.visits) && (answer.visits as number) > 0 ? null : `wrong visits ${text}`;
    },
  };
}

function order(): Exchange {
  const body = randomBytes(1 + Math.floor(Math.random() * ORDER_BYTES_MAX));
  const expected = { bytes: body.length, digest: createHash('sha256').update(body).digest('hex') };
  return {
    path: '/order',
    body,
    verify: (text) => (text === JSON.stringify(expected) ? null : `wrong order ${text}`),
  };
}

async function send({ path, body, verify }: Exchange, agent: Agent | false): Promise<string | null> {
  return await new Promise((resolve) => {
    const sent = request(
      {
        host: TARGET.hostname,
        port: TARGET.port,
        path,
        agent,
        method: body ? 'POST' : 'GET',
        timeout: TIMEOUT_MS,
        headers: body ? { 'content-length': body.length } : {},
      },
      (response) => {
        const chunks: Buffer[] = [];
        response.on('data', (chunk: Buffer) => chunks.push(chunk));
        response.on('error', (error) => resolve(error.message));
        response.on('end', () => {
          const text = Buffer.concat(chunks).toString('utf8');
          if (response.statusCode !== 200) return resolve(`status ${response.statusCode} ${text.slice(0, 200)}`);
          try {
            resolve(verify(text));
          } catch (error) {
            resolve(String(error));
          }
        });
      },
    );
    sent.on('timeout', () => sent.destroy(new Error('timed out')));
    sent.on('error', (error) => resolve(error.message));
    sent.end(body ?? undefined);
  });
}

async function customer(): Promise<void> {
  turn++;
  inFlight++;
  const exchange = turn % 5 === 0 ? order() : look();
  const error = await send(exchange, turn % 2 === 0 ? kept : false);
  inFlight--;
  totals.requests++;
  if (error === null) return;
  totals.failed++;
  totals.lastError = `${exchange.path}: ${error}`;
}

setInterval(() => {
  if (inFlight < IN_FLIGHT_MAX) void customer();
}, 1000 / RATE);
setInterval(() => console.log(JSON.stringify(totals)), 1000);
process.on('SIGTERM', () => process.exit(0));
