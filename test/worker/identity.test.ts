// Certificates that live for seconds and authorities that change, with connections that must not notice.

import { once } from 'node:events';
import { afterEach, describe, expect, test } from 'vitest';
import { makeAuthority } from '#controlplane/identity/testing.ts';
import { FakeAgent, Issuer } from './support/agent.ts';
import { echo, httpApplication, request, TcpClient, tcpApplication } from './support/application.ts';
import { API, meshConfig } from './support/config.ts';
import { meshSocket, peerCertificate, secured } from './support/mesh.ts';
import { cleanUp, until, WorkerUnderTest } from './support/process.ts';

afterEach(cleanUp);

async function ready(issuer = new Issuer()) {
  const worker = new WorkerUnderTest();
  const agent = await FakeAgent.connect(worker.sockets.controlPath, issuer);
  agent.configure(meshConfig(worker.sockets, issuer.anchorsPem));
  await agent.whenState('ready');
  return { issuer, worker, agent, sockets: worker.sockets };
}

/** The serial number of the certificate that a new handshake gets. */
async function serialOf(rig: Awaited<ReturnType<typeof ready>>, port: number): Promise<string> {
  const socket = await secured(meshSocket(rig.sockets, rig.issuer, port));
  const { serialNumber } = socket.getPeerX509Certificate()!;
  socket.destroy();
  return serialNumber;
}

describe('renewal', () => {
  test('of a life of seconds comes in time, again and again, and open connections go on', async () => {
    const issuer = new Issuer();
    issuer.lifetimeMs = 3_000;
    const rig = await ready(issuer);
    const application = await tcpApplication(echo);
    const certificate = peerCertificate(issuer, API);
    const client = new TcpClient(await secured(meshSocket(rig.sockets, issuer, application.port, { certificate })));
    const serials = new Set<string>();
    let sent = '';
    await until('the fourth certificate', async () => {
      const line = `${issuer.requests.length} requests so far\n`;
      client.socket.write(line);
      sent += line;
      await until('the echo', () => client.received === sent);
      // Every handshake succeeds, which it would not with an expired certificate.
      serials.add(await serialOf(rig, application.port));
      return serials.size >= 4;
    });
    expect(client.closed).toBeNull();
    expect(await rig.agent.metric('control_identity_cert_refreshes_total', 'result="error"')).toBe(0);
    expect(await rig.agent.metric('control_identity_cert_refreshes_total', 'result="ok"')).toBeGreaterThanOrEqual(4);
    expect(rig.agent.state!.certificateExpires * 1000).toBeGreaterThan(Date.now());
  });

  test('that fails keeps the certificate for as long as it lives, and comes back by itself', async () => {
    const issuer = new Issuer();
    issuer.lifetimeMs = 4_000;
    const rig = await ready(issuer);
    const application = await tcpApplication(echo);
    const before = await serialOf(rig, application.port);
    rig.agent.close();
    await rig.worker.whenLogged(/cannot get a certificate.*agent is not connected/);
    expect(await serialOf(rig, application.port)).toBe(before);
    const next = await FakeAgent.connect(rig.sockets.controlPath, issuer);
    await until('a new certificate', async () => (await serialOf(rig, application.port)) !== before);
    expect(await next.metric('control_identity_cert_refreshes_total', 'result="error"')).toBeGreaterThan(0);
  });
});

describe('rotation of the trust anchor', () => {
  test('old, both, new: peers of each are served while it is trusted, open connections go on', async () => {
    const rig = await ready();
    const { issuer, sockets, agent, worker } = rig;
    const application = await httpApplication();
    const opaque = await tcpApplication(echo);
    const [oldAuthority, newAuthority] = [issuer.authority, makeAuthority('two', {}, Date.now())];
    const issuerOf = (authority: typeof oldAuthority, anchorsPem = authority.files.anchorsPem): Issuer => {
      const made = new Issuer();
      made.authority = { ...authority, files: { ...authority.files, anchorsPem } };
      return made;
    };
    const both = oldAuthority.files.anchorsPem + newAuthority.files.anchorsPem;
    // Clients trust both authorities; who they are is signed by one of them.
    const [oldPeers, newPeers] = [issuerOf(oldAuthority, both), issuerOf(newAuthority, both)];
    const call = (peers: Issuer) => {
      const certificate = peerCertificate(peers, API);
      return request(sockets, application.port, {
        connect: () => meshSocket(sockets, peers, application.port, { certificate }),
      }).then(
        ({ status }) => status,
        () => 'refused',
      );
    };
    const configure = async (anchorsPem: string) => {
      const seen = worker.lines.length;
      agent.configure(meshConfig(sockets, anchorsPem));
      await until('the anchors apply', () =>
        worker.lines.slice(seen).some(({ message }) => message === 'configuration changed'),
      );
    };
    const client = new TcpClient(
      await secured(meshSocket(sockets, oldPeers, opaque.port, { certificate: peerCertificate(oldPeers, API) })),
    );
    client.socket.write('opaque: one\n');
    await until('the echo', () => client.received === 'opaque: one\n');

    expect([await call(oldPeers), await call(newPeers)]).toEqual([200, 'refused']);
    await configure(both);
    expect([await call(oldPeers), await call(newPeers)]).toEqual([200, 200]);
    issuer.authority = newAuthority;
    await configure(newAuthority.files.anchorsPem);
    await until('the certificate is of the new authority', () => issuer.requests.length === 2);
    await until('it is in use', async () => (await call(newPeers)) === 200);
    expect([await call(oldPeers), await call(newPeers)]).toEqual(['refused', 200]);

    client.socket.write('opaque: two\n');
    await until('the echo', () => client.received.endsWith('two\n'));
    expect(client.closed).toBeNull();
  });

  test('anchors that cannot be read change nothing', async () => {
    const rig = await ready();
    rig.agent.configure(meshConfig(rig.sockets, 'no certificates at all'));
    const line = await rig.worker.whenLogged(/expected PEM certificates/);
    expect(line.level).toBe('error');
    const application = await tcpApplication(echo);
    const socket = await secured(
      meshSocket(rig.sockets, rig.issuer, application.port, { certificate: peerCertificate(rig.issuer, API) }),
    );
    socket.write('x'.repeat(20));
    const [chunk] = (await once(socket, 'data')) as [Buffer];
    expect(chunk.toString()).toBe('x'.repeat(20));
  });
});
