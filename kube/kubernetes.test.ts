import http from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, describe, expect, test } from 'vitest';
import { systemClock } from '#lib/clock.ts';
import { createLog } from '#lib/log.ts';
import { ApiServer } from './api-server.ts';
import { KubernetesSource } from './kubernetes.ts';
import type { Kind } from './resources.ts';
import type { ResourceSink } from './source.ts';

/** As much of an API server as a reflector sees: versions, pages, watches that resume, bookmarks, 410, 404. */
class FakeApiServer {
  readonly requests: URL[] = [];
  readonly #objects = new Map<string, object>();
  readonly #events: { version: number; text: string }[] = [];
  readonly #watches = new Set<http.ServerResponse>();
  readonly #server = http.createServer((request, response) => this.#serve(request, response));
  #version = 100;
  /** Versions below are answered with 410. */
  forgottenBelow = 0;
  isInstalled = true;
  isBroken = false;
  authorization: string | undefined;

  async listen(): Promise<string> {
    await new Promise<void>((resolve) => this.#server.listen(0, '127.0.0.1', resolve));
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  close(): void {
    this.#server.close();
    this.#server.closeAllConnections();
  }

  put(name: string, extra: object = {}): void {
    const isNew = !this.#objects.has(name);
    const object = { metadata: { name, namespace: 'shop', resourceVersion: String(++this.#version) }, ...extra };
    this.#objects.set(name, object);
    this.#emit(isNew ? 'ADDED' : 'MODIFIED', { apiVersion: 'v1', kind: 'ServiceAccount', ...object });
  }

  remove(name: string): void {
    this.#objects.delete(name);
    const metadata = { name, namespace: 'shop', resourceVersion: String(++this.#version) };
    this.#emit('DELETED', { apiVersion: 'v1', kind: 'ServiceAccount', metadata });
  }

  bookmark(): void {
    this.#emit('BOOKMARK', { metadata: { resourceVersion: String(++this.#version) } });
  }

  get watches(): number {
    return this.#watches.size;
  }

  cutWatches(): void {
    for (const response of this.#watches) response.destroy();
  }

  #emit(type: string, object: object): void {
    const text = `${JSON.stringify({ type, object })}\n`;
    this.#events.push({ version: this.#version, text });
    for (const response of this.#watches) response.write(text);
  }

  #serve(request: http.IncomingMessage, response: http.ServerResponse): void {
    const url = new URL(request.url!, 'http://a');
    this.requests.push(url);
    this.authorization = request.headers.authorization;
    if (this.isBroken) return void response.writeHead(500).end('{"message":"broken"}');
    if (!this.isInstalled) return void response.writeHead(404).end('{"message":"not found"}');
    if (url.searchParams.get('watch') === '1') this.#watch(Number(url.searchParams.get('resourceVersion')), response);
    else this.#list(url, response);
  }

  #list(url: URL, response: http.ServerResponse): void {
    const from = Number(url.searchParams.get('continue') ?? 0);
    // Smaller pages than were asked for are the server's right.
    const items = [...this.#objects.values()].slice(from, from + 2);
    const next = from + 2 < this.#objects.size ? { continue: String(from + 2) } : {};
    response.end(
      JSON.stringify({ apiVersion: 'v1', metadata: { resourceVersion: String(this.#version), ...next }, items }),
    );
  }

  #watch(version: number, response: http.ServerResponse): void {
    if (version < this.forgottenBelow) {
      response.end(
        `${JSON.stringify({ type: 'ERROR', object: { code: 410, message: 'too old resource version' } })}\n`,
      );
      return;
    }
    response.writeHead(200);
    response.flushHeaders();
    for (const event of this.#events) if (event.version > version) response.write(event.text);
    this.#watches.add(response);
    response.on('close', () => this.#watches.delete(response));
  }
}

class Mirror implements ResourceSink {
  readonly names = new Set<string>();
  resets = 0;

  reset(_kind: Kind, objects: readonly { metadata: { name: string } }[]): void {
    this.resets++;
    this.names.clear();
    for (const { metadata } of objects) this.names.add(metadata.name);
  }

  apply(_kind: Kind, object: { metadata: { name: string } }): void {
    this.names.add(object.metadata.name);
  }

  delete(_kind: Kind, { name }: { name: string }): void {
    this.names.delete(name);
  }

  get sorted(): string[] {
    return [...this.names].sort();
  }
}

const cleanups: (() => void)[] = [];
afterEach(() => {
  for (const cleanup of cleanups.splice(0)) cleanup();
});

async function start(prepare: (server: FakeApiServer) => void = () => {}) {
  const server = new FakeApiServer();
  prepare(server);
  const url = await server.listen();
  const lines: string[] = [];
  const { log } = createLog({ level: 'debug', sink: { write: (line) => lines.push(line) } });
  const api = new ApiServer({ url, caPem: null, tokenFile: null });
  const stop = new AbortController();
  cleanups.push(() => {
    stop.abort();
    api.close();
    server.close();
  });
  const mirror = new Mirror();
  const source = new KubernetesSource({ api, clock: systemClock, log, fieldSelectors: { Pod: 'spec.nodeName=a' } });
  return { server, mirror, source, lines, signal: stop.signal };
}

describe('list and watch', () => {
  test('all pages are listed, then every change follows', async () => {
    const { server, mirror, source, signal } = await start((fake) => {
      for (const name of ['a', 'b', 'c', 'd', 'e']) fake.put(name);
    });
    await source.start(['ServiceAccount'], mirror, signal);
    expect(mirror.sorted).toEqual(['a', 'b', 'c', 'd', 'e']);
    await expect.poll(() => server.watches).toBe(1);
    server.put('f');
    server.remove('a');
    await expect.poll(() => mirror.sorted).toEqual(['b', 'c', 'd', 'e', 'f']);
    expect(mirror.resets).toBe(1);
  });

  test('a watch that breaks resumes where it was, and misses nothing', async () => {
    const { server, mirror, source, signal } = await start((fake) => fake.put('a'));
    await source.start(['ServiceAccount'], mirror, signal);
    await expect.poll(() => server.watches).toBe(1);
    server.bookmark();
    server.put('b');
    await expect.poll(() => mirror.sorted).toEqual(['a', 'b']);
    server.isBroken = true;
    server.cutWatches();
    await expect.poll(() => server.watches).toBe(0);
    server.put('c');
    server.remove('a');
    server.isBroken = false;
    await expect.poll(() => mirror.sorted, { timeout: 5_000 }).toEqual(['b', 'c']);
    expect(mirror.resets).toBe(1);
  });

  test('a server that has forgotten the version is listed again: what went meanwhile is gone', async () => {
    const { server, mirror, source, signal } = await start((fake) => {
      fake.put('a');
      fake.put('b');
    });
    await source.start(['ServiceAccount'], mirror, signal);
    await expect.poll(() => server.watches).toBe(1);
    server.isBroken = true;
    server.cutWatches();
    await expect.poll(() => server.watches).toBe(0);
    server.remove('a');
    server.forgottenBelow = 1_000_000;
    server.isBroken = false;
    await expect.poll(() => mirror.resets, { timeout: 5_000 }).toBeGreaterThan(1);
    server.forgottenBelow = 0;
    await expect.poll(() => mirror.sorted, { timeout: 5_000 }).toEqual(['b']);
  });

  test('a server that cannot be reached loses nothing that is known', async () => {
    const { server, mirror, source, lines, signal } = await start((fake) => fake.put('a'));
    await source.start(['ServiceAccount'], mirror, signal);
    await expect.poll(() => server.watches).toBe(1);
    server.close();
    await expect
      .poll(() => lines.filter((line) => line.includes('stays in use')).length, { timeout: 5_000 })
      .toBeGreaterThan(1);
    expect(mirror.sorted).toEqual(['a']);
  });

  test('a kind that is not installed has no objects, and start goes on', async () => {
    const { mirror, source, signal } = await start((fake) => {
      fake.isInstalled = false;
    });
    await source.start(['Server'], mirror, signal);
    expect(mirror.resets).toBe(1);
    expect(mirror.sorted).toEqual([]);
  });

  test('an object that cannot be read is told, keeps its last sound version, and disturbs nobody', async () => {
    const { server, mirror, source, signal } = await start((fake) => fake.put('a'));
    await source.start(['ServiceAccount'], mirror, signal);
    await expect.poll(() => server.watches).toBe(1);
    server.put('a', { metadata: { name: 'a', namespace: 'shop', resourceVersion: '900', labels: 'none' } });
    server.put('b');
    await expect.poll(() => mirror.sorted).toEqual(['a', 'b']);
    expect(source.problems()).toMatchObject([{ object: 'ServiceAccount shop/a', severity: 'error' }]);
    server.remove('a');
    await expect.poll(() => mirror.sorted).toEqual(['b']);
    expect(source.problems()).toEqual([]);
  });

  test('pods are asked for by node, everything else without a selector', async () => {
    const { server, mirror, source, signal } = await start();
    await source.start(['Pod', 'ServiceAccount'], mirror, signal);
    const selectors = new Map(server.requests.map((url) => [url.pathname, url.searchParams.get('fieldSelector')]));
    expect(selectors).toEqual(
      new Map([
        ['/api/v1/pods', 'spec.nodeName=a'],
        ['/api/v1/serviceaccounts', null],
      ]),
    );
  });
});
