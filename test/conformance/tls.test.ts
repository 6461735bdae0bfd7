import { mkdtempSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { FakeAgent, Issuer } from '../worker/support/agent.ts';
import { httpApplication, request } from '../worker/support/application.ts';
import { API, meshConfig, POD_ADDRESS, WEB } from '../worker/support/config.ts';
import { meshSocket, peerCertificate } from '../worker/support/mesh.ts';
import { permit, server } from '../worker/support/policy.ts';
import { cleanUp, inboundAddress, WorkerUnderTest } from '../worker/support/process.ts';
import { Tally, writeLines } from './support/counts.ts';
import { writeTlsCertificates } from './support/tls-certificates.ts';
import { listTlsCases, TlsClient } from './support/tls-client.ts';

const cases = listTlsCases().map((one, number) => ({ ...one, number }));

describe("TLS 1.3 that a worker's inbound side must refuse, by section of RFC 8446", () => {
  const tally = new Tally('tls', cases.length);
  const lines: string[] = [];
  const directory = mkdtempSync(path.join(os.tmpdir(), 'heddle-tls-'));
  const issuer = new Issuer();
  const good = peerCertificate(issuer, API);
  let worker: WorkerUnderTest;
  let agent: FakeAgent;
  let application: Awaited<ReturnType<typeof httpApplication>>;
  let client: TlsClient;

  beforeAll(async () => {
    writeTlsCertificates(directory, issuer);
    worker = new WorkerUnderTest();
    agent = await FakeAgent.connect(worker.sockets.controlPath, issuer);
    application = await httpApplication();
    agent.setPolicy(application.port, server({ authorizations: [permit('0.0.0.0/0')] }));
    agent.configure(meshConfig(worker.sockets, issuer.anchorsPem));
    await agent.whenState('ready');
    const { inbound4 } = worker.sockets.ports;
    client = new TlsClient({
      port: `${inboundAddress(application.port)}:${inbound4}`,
      // Not one of the addresses that stand for other ports: this is what the connection was made to.
      direct: `${POD_ADDRESS}:${inbound4}`,
      serverName: WEB,
      directory,
    });
  });

  afterAll(async () => {
    tally.write();
    writeLines('tls', lines);
    await client?.stop();
    cleanUp();
    rmSync(directory, { recursive: true, force: true });
  });

  test('the client is accepted as long as it changes nothing', async () => {
    expect(await client.attempt('none')).toBe('accepted');
    expect(application.seen.splice(0).map(({ url }) => url)).toEqual(['/negative']);
  });

  test.each(cases)('$section: $name', { timeout: 30_000 }, ({ number, section, name, expected }) =>
    tally.case(async () => {
      const outcome = await client.attempt(number);
      lines.push(`section ${section} | ${name} | ${outcome}`);
      expect(expected).toContain(outcome);
      expect(application.seen).toEqual([]);
      // The worker goes on, for a client that does everything right.
      const connect = () => meshSocket(worker.sockets, issuer, application.port, { certificate: good });
      expect((await request(worker.sockets, application.port, { connect })).status).toBe(200);
      expect(application.seen.splice(0)[0]!.headers['l5d-client-id']).toBe(API);
    }),
  );

  test('the worker has told and counted them, and took none for a fault of its own', async () => {
    expect(worker.status).toBeNull();
    expect(worker.noise).toEqual([]);
    expect(worker.lines.filter(({ level }) => level === 'error')).toEqual([]);
    expect(await agent.metric('inbound_tcp_errors_total', 'error="identity required"')).toBeGreaterThan(100);
  });
});
