import { describe, expect, test } from 'vitest';
import { FakeClock } from '#lib/clock.ts';
import type { Duplex } from '#lib/duplex.ts';
import { HeddleError } from '#lib/errors.ts';
import { memoryPair } from '#lib/memory-duplex.ts';
import type { ConnectTarget } from '../io/connect.ts';
import type { TlsConnectOptions, TlsContext, TlsDuplex } from '../io/tls.ts';
import { createDial } from './dial.ts';
import { type EndpointInfo, plainEndpoint } from './endpoint-info.ts';
import { settle } from './testing.ts';

const NAME = 'web.shop.serviceaccount.identity.heddle.cluster.local';
const plain = plainEndpoint('10.1.0.9', 9443, 'not_provided_by_service_discovery');
const meshed: EndpointInfo = { ...plain, identity: { name: NAME, serverName: NAME } };

/** `selectsAlpn`: the peer takes what is offered. */
function setUp({ hasIdentity = true, selectsAlpn = true, failure = null as HeddleError | null } = {}) {
  const connects: ConnectTarget[] = [];
  const handshakes: TlsConnectOptions[] = [];
  const [near, far] = memoryPair();
  let sent = Buffer.alloc(0);
  far.listener = {
    onData: (buffer, start, end) => {
      sent = Buffer.concat([sent, buffer.subarray(start, end)]);
    },
    onEnd: () => {},
    onDrain: () => {},
    onClose: () => {},
  };
  far.resume();
  const tls: TlsContext = {
    update: () => {},
    accept: () => Promise.reject(new Error('not a server')),
    connect: async (duplex, options) => {
      handshakes.push(options);
      if (failure) throw failure;
      const alpn = selectsAlpn ? (options.alpn?.[0] ?? null) : null;
      return Object.assign(duplex, { peerIdentities: [NAME], alpn, serverName: NAME }) as Duplex as TlsDuplex;
    },
  };
  const dial = createDial({
    clock: new FakeClock(),
    connect: async (target) => {
      connects.push(target);
      return near;
    },
    tls: () => (hasIdentity ? tls : null),
    connectTimeoutMs: () => 1_000,
  });
  return { dial, connects, handshakes, sent: () => sent.toString('latin1') };
}

describe('dial', () => {
  test('without identity: the port itself, in clear', async () => {
    const { dial, connects, handshakes } = setUp();
    await dial({ ...plain, transportPort: 4143 }, 'http1');
    expect(connects.map(({ port }) => port)).toEqual([9443]);
    expect(handshakes).toEqual([]);
  });

  test('with identity: TLS to the name that discovery said, no ALPN', async () => {
    const { dial, handshakes, sent } = setUp();
    await dial(meshed, 'http2');
    await settle(2);
    expect(handshakes).toEqual([{ serverName: NAME, identity: NAME, timeoutMs: 1_000 }]);
    expect(sent()).toBe('');
  });

  // The bytes that a linkerd2-proxy was seen to send for port 9443.
  test.each([
    [null, '\x08\xe3\x49'],
    ['http1', '\x08\xe3\x49\x1a\x02\x0a\x00'],
    ['http2', '\x08\xe3\x49\x1a\x02\x12\x00'],
  ] as const)('transport header for %s', async (session, message) => {
    const { dial, connects, handshakes, sent } = setUp();
    await dial({ ...meshed, transportPort: 4143 }, session);
    await settle(2);
    expect(connects.map(({ port }) => port)).toEqual([4143]);
    expect(handshakes[0]!.alpn).toEqual(['transport.l5d.io/v1']);
    expect(sent()).toBe(`transport.l5d.io/v1\r\n\r\n\0\0\0${String.fromCharCode(message.length)}${message}`);
  });

  test('a peer that does not select the header gets none', async () => {
    const { dial, sent } = setUp({ selectsAlpn: false });
    await dial({ ...meshed, transportPort: 4143 }, null);
    await settle(2);
    expect(sent()).toBe('');
  });

  test('a gateway is told the name', async () => {
    const { dial, sent } = setUp();
    await dial({ ...meshed, authorityOverride: 'web.shop.svc.cluster.local:8080' }, 'http1');
    await settle(2);
    expect(sent()).toContain('web.shop.svc.cluster.local');
  });

  test('a peer with another identity: the request may go to another endpoint', async () => {
    const { dial } = setUp({ failure: new HeddleError('tls-identity-mismatch', 'verify peer') });
    await expect(dial(meshed, 'http1')).rejects.toMatchObject({ code: 'tls-identity-mismatch', retry: 'yes' });
  });

  test('without an identity of our own nothing is sent to a meshed peer', async () => {
    const { dial } = setUp({ hasIdentity: false });
    await expect(dial(meshed, 'http1')).rejects.toMatchObject({
      code: 'tls-not-ready',
      retry: 'no',
      source: 'upstream',
    });
  });
});
