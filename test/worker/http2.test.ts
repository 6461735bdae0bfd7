// HTTP/2 to a pod: in clear with prior knowledge, inside mesh TLS, and as the carrier of a peer's HTTP/1 requests.

import { once } from 'node:events';
import http2 from 'node:http2';
import net from 'node:net';
import { afterEach, describe, expect, test } from 'vitest';
import { FakeAgent, Issuer } from './support/agent.ts';
import { httpApplication } from './support/application.ts';
import { API, meshConfig, POD_ADDRESS } from './support/config.ts';
import { meshSocket, peerCertificate, secured } from './support/mesh.ts';
import { cleanUp, inboundAddress, onCleanUp, WorkerUnderTest } from './support/process.ts';

afterEach(cleanUp);

async function ready() {
  const issuer = new Issuer();
  const worker = new WorkerUnderTest();
  const agent = await FakeAgent.connect(worker.sockets.controlPath, issuer);
  agent.configure(meshConfig(worker.sockets, issuer.anchorsPem));
  await agent.whenState('ready');
  return { issuer, worker, agent, sockets: worker.sockets };
}

type Ready = Awaited<ReturnType<typeof ready>>;

/** An HTTP/2 application of the pod that answers with what it heard. */
async function http2Application(): Promise<{ port: number; seen: http2.IncomingHttpHeaders[] }> {
  const seen: http2.IncomingHttpHeaders[] = [];
  const server = http2.createServer();
  server.on('stream', (stream: http2.ServerHttp2Stream, headers) => {
    seen.push(headers);
    let body = '';
    stream.setEncoding('latin1').on('data', (text: string) => {
      body += text;
    });
    stream.on('end', () => {
      stream.respond({ ':status': 200, 'content-type': 'text/plain' }, { waitForTrailers: true });
      stream.on('wantTrailers', () => stream.sendTrailers({ 'x-trailer': 'kept' }));
      stream.end(`${headers[':method']} ${headers[':path']} ${body.length}`);
    });
  });
  server.listen(0, POD_ADDRESS);
  await once(server, 'listening');
  onCleanUp(() => server.close());
  return { port: (server.address() as net.AddressInfo).port, seen };
}

function session(rig: Ready, connect: () => net.Socket): http2.ClientHttp2Session {
  const client = http2.connect('http://web.shop', { createConnection: connect });
  client.on('error', () => {});
  onCleanUp(() => client.destroy());
  expect(rig.worker.status).toBeNull();
  return client;
}

interface Answer {
  headers: http2.IncomingHttpHeaders;
  trailers: http2.IncomingHttpHeaders;
  body: string;
}

function request(client: http2.ClientHttp2Session, headers: http2.OutgoingHttpHeaders, body?: string): Promise<Answer> {
  const { promise, resolve, reject } = Promise.withResolvers<Answer>();
  const stream = client.request(headers);
  const answer: Answer = { headers: {}, trailers: {}, body: '' };
  stream.on('response', (received) => {
    answer.headers = received;
  });
  stream.on('trailers', (received) => {
    answer.trailers = received;
  });
  stream.setEncoding('latin1').on('data', (text: string) => {
    answer.body += text;
  });
  stream.on('error', reject);
  stream.on('end', () => resolve(answer));
  stream.end(body);
  return promise;
}

describe('HTTP/2', () => {
  test('in clear reaches the application, many streams at a time, trailers and all', async () => {
    const rig = await ready();
    const application = await http2Application();
    const client = session(rig, () => net.connect(rig.sockets.ports.inbound4, inboundAddress(application.port)));
    const answers = await Promise.all(
      Array.from({ length: 50 }, (_, index) =>
        request(
          client,
          { ':method': 'POST', ':path': `/${index}`, 'l5d-client-id': 'forged' },
          'x'.repeat(index * 1000),
        ),
      ),
    );
    for (const [index, { headers, trailers, body }] of answers.entries()) {
      expect([headers[':status'], trailers['x-trailer'], body]).toEqual([
        200,
        'kept',
        `POST /${index} ${index * 1000}`,
      ]);
    }
    expect(application.seen.every((headers) => headers['l5d-client-id'] === undefined)).toBe(true);
    const port = `target_port="${application.port}"`;
    expect(await rig.agent.metric('request_total', 'direction="inbound"', port)).toBe(50);
    expect(await rig.agent.metric('tcp_open_total', 'peer="dst"', port)).toBe(1);
  });

  test('inside mesh TLS brings the identity of the client', async () => {
    const rig = await ready();
    const application = await http2Application();
    const certificate = peerCertificate(rig.issuer, API);
    const socket = await secured(meshSocket(rig.sockets, rig.issuer, application.port, { certificate }));
    const client = session(rig, () => socket);
    expect((await request(client, { ':path': '/' })).headers[':status']).toBe(200);
    expect(application.seen[0]!['l5d-client-id']).toBe(API);
  });

  test('of a peer that carries HTTP/1.1 becomes HTTP/1.1 again', async () => {
    const rig = await ready();
    const application = await httpApplication();
    const certificate = peerCertificate(rig.issuer, API);
    const socket = await secured(meshSocket(rig.sockets, rig.issuer, application.port, { certificate }));
    const client = session(rig, () => socket);
    const answer = await request(client, { ':method': 'PUT', ':path': '/x', 'l5d-orig-proto': 'HTTP/1.1' }, 'body');
    expect([answer.headers[':status'], answer.headers['l5d-orig-proto'], answer.body]).toEqual([
      200,
      'HTTP/1.1',
      'PUT /x body',
    ]);
    expect(application.seen[0]!.headers).not.toHaveProperty('l5d-orig-proto');
    expect(application.seen[0]!.headers).toMatchObject({ host: 'web.shop:80', 'l5d-client-id': API });
  });

  test('gRPC learns of refusals by grpc-status', async () => {
    const rig = await ready();
    const config = meshConfig(rig.sockets, rig.issuer.anchorsPem, { inbound: { defaultPolicy: 'all-authenticated' } });
    rig.agent.configure(config);
    await rig.worker.whenLogged('configuration changed');
    const application = await http2Application();
    const headers = { ':method': 'POST', ':path': '/a.B/Get', 'content-type': 'application/grpc' };
    const stranger = session(rig, () => net.connect(rig.sockets.ports.inbound4, inboundAddress(application.port)));
    const refused = await request(stranger, headers);
    expect([refused.headers[':status'], refused.headers['grpc-status']]).toEqual([200, '7']);
    const certificate = peerCertificate(rig.issuer, API);
    const socket = await secured(meshSocket(rig.sockets, rig.issuer, application.port, { certificate }));
    const peer = session(rig, () => socket);
    expect((await request(peer, headers)).headers['grpc-status']).toBeUndefined();
    expect(application.seen.length).toBe(1);
  });
});
