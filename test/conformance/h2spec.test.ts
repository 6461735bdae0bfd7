import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import http2 from 'node:http2';
import os from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { writeCounts } from './support/counts.ts';
import { APPLICATION_PORT, conformanceProgram, MeshedPair, SERVICE } from './support/meshed-pair.ts';
import { Program } from './support/program.ts';

const CASES = 146;

interface Suite {
  tests: number;
  failed: string[];
}

/** What a JUnit report of h2spec says. */
function readReport(xml: string): Suite {
  const cases = [
    ...xml.matchAll(/<testcase package="([^"]*)" classname="([^"]*)"[^>]*?(\/>|>([\s\S]*?)<\/testcase>)/g),
  ];
  const failed = cases.filter(([, , , , body = '']) => /<(failure|error|skipped)/.test(body));
  return { tests: cases.length, failed: failed.map(([, part, name]) => `${part}: ${name}`) };
}

describe('h2spec', () => {
  const directory = mkdtempSync(path.join(os.tmpdir(), 'heddle-h2spec-'));
  const program = conformanceProgram('h2spec');
  let pair: MeshedPair;
  let origin: http2.Http2Server;
  let originSessions = 0;
  let originRequests = 0;

  beforeAll(async () => {
    pair = await MeshedPair.start('hdlh2s');
    origin = http2.createServer();
    origin.on('session', (session) => {
      originSessions++;
      session.on('error', () => {});
    });
    origin.on('stream', (stream: http2.ServerHttp2Stream) => {
      originRequests++;
      stream.on('error', () => {});
      stream.resume();
      stream.respond({ ':status': 200, 'content-type': 'text/plain' });
      stream.end('hello from the origin');
    });
    origin.listen({ fd: pair.applicationListener() });
    await once(origin, 'listening');
  });

  afterAll(async () => {
    origin?.close();
    await pair?.close();
    rmSync(directory, { recursive: true, force: true });
  });

  async function h2spec(place: 'stranger' | 'client', host: string, port: number): Promise<Suite> {
    const report = path.join(directory, `${place}.xml`);
    const argv = [program, '--strict', '-h', host, '-p', String(port), '-o', '2', '-j', report];
    const run = new Program(pair[place], argv);
    await run.end(180_000);
    const suite = readReport(readFileSync(report, 'utf8'));
    expect(suite.failed, run.output).toEqual([]);
    return suite;
  }

  test("every case passes through the server's worker, which speaks the HTTP/2 itself", async () => {
    const { tests, failed } = await h2spec('stranger', pair.server.ipv4, APPLICATION_PORT);
    writeCounts('h2spec', { passed: tests - failed.length, total: tests });
    expect(tests).toBe(CASES);
    const of = (family: string, labels = {}) =>
      pair.metric('server', family, { direction: 'inbound', target_port: String(APPLICATION_PORT), ...labels });
    expect(await of('tcp_open_total', { peer: 'src' })).toBeGreaterThanOrEqual(CASES);
    const detected = await pair.metric('server', 'inbound_tcp_detect_http_results_total', { result: 'http2' });
    expect(detected).toBeGreaterThanOrEqual(CASES);
    // What is wrong ends at the worker: the origin has few connections, and none of the requests that were refused.
    expect(await pair.metric('server', 'inbound_http_errors_total', { error: 'bad request' })).toBeGreaterThan(40);
    expect(await of('tcp_open_total', { peer: 'dst' })).toBe(originSessions);
    expect(originSessions).toBeLessThan(10);
    expect(await of('request_total')).toBe(originRequests);
  });

  test("every case passes through the client's worker, in front of mutual TLS", async () => {
    const requestsBefore = originRequests;
    const { tests } = await h2spec('client', SERVICE.host, SERVICE.port);
    expect(tests).toBe(CASES);
    const outbound = { direction: 'outbound' };
    expect(await pair.metric('client', 'tcp_open_total', { ...outbound, peer: 'src' })).toBeGreaterThanOrEqual(CASES);
    expect(await pair.metric('client', 'tcp_open_total', { ...outbound, peer: 'dst', tls: 'true' })).toBeLessThan(10);
    const requests = originRequests - requestsBefore;
    const clientId = pair.identityOf('client');
    const secured = { direction: 'inbound', tls: 'true', client_id: clientId };
    expect(await pair.metric('server', 'request_total', secured)).toBe(requests);
    expect(requests).toBeGreaterThan(CASES);
  });
});
