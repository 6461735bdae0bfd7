import { createServer } from 'node:http';
import net from 'node:net';
import { expect, test } from 'vitest';
import { ScrapeGate, sendPieces } from './scrape.ts';

/** More than the kernel buffers for a connection that nobody reads. */
function* manyPieces(): Generator<Buffer> {
  for (let index = 0; index < 64; index++) yield Buffer.alloc(1024 * 1024, 'x');
}

async function serve(timeoutMs: number) {
  const gate = new ScrapeGate(1);
  const results: (true | null)[] = [];
  const server = createServer((_request, response) => {
    gate
      .run(async () => {
        await sendPieces(response, manyPieces(), timeoutMs);
        return true as const;
      })
      .then((result) => {
        results.push(result);
        if (result === null) response.writeHead(503).end();
      });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as net.AddressInfo;
  return { server, port, results };
}

test('a scraper that does not read is cut off, and gives its place back', async () => {
  const { server, port, results } = await serve(300);
  const slow = net.connect(port, '127.0.0.1');
  slow.on('error', () => {});
  slow.pause();
  slow.write('GET / HTTP/1.1\r\nhost: a\r\n\r\n');
  await expect.poll(() => results, { timeout: 3_000 }).toEqual([true]);
  slow.destroy();
  server.close();
});

test('a scraper that reads gets everything', async () => {
  const { server, port, results } = await serve(10_000);
  const response = await fetch(`http://127.0.0.1:${port}/`);
  expect((await response.arrayBuffer()).byteLength).toBe(64 * 1024 * 1024);
  await expect.poll(() => results).toEqual([true]);
  server.close();
  server.closeAllConnections();
});
