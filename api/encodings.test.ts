// The generated messages against bytes observed on the wire and bytes worked out by hand from the field numbers: a
// wrong number in a .proto file would otherwise only show against a foreign proxy.

import { describe, expect, test } from 'vitest';
import { DestinationDefinition, GetDestination, Update, WeightedAddr } from './gen/destination.ts';
import { CertifyRequest, CertifyResponse, IdentityDefinition } from './gen/identity.ts';
import { Authz, InboundServerPoliciesDefinition, PortSpec, Server } from './gen/inbound.ts';
import { Metadata } from './gen/meta.ts';
import { IPAddress, TcpAddress } from './gen/net.ts';
import {
  Backend,
  FailureAccrual,
  GrpcRoute_Retry_Conditions,
  HttpRoute_Rule,
  OpaqueRoute_Rule,
  OutboundPoliciesDefinition,
  TrafficSpec,
} from './gen/outbound.ts';
import { TapDefinition, TapEvent, TapEvent_ProxyDirection } from './gen/tap.ts';
import { Header } from './gen/transport_header.ts';

interface Codec<T> {
  encode(message: T): { finish(): Uint8Array };
  decode(bytes: Uint8Array): T;
}

/** Encodes, compares with spaced hexadecimal, and decodes back. */
function expectBytes<T>(codec: Codec<T>, message: T, hex: string): void {
  const bytes = Buffer.from(hex.replaceAll(/\s/g, ''), 'hex');
  expect(Buffer.from(codec.encode(message).finish()).toString('hex')).toBe(bytes.toString('hex'));
  expect(codec.decode(bytes)).toEqual(message);
}

const ascii = (text: string) => Buffer.from(text).toString('hex');

describe('transport header, as a linkerd2-proxy sends it', () => {
  test('opaque', () => expectBytes(Header, { port: 9443, name: '', sessionProtocol: undefined }, '08 e3 49'));
  test('HTTP/1.1', () =>
    expectBytes(
      Header,
      { port: 9443, name: '', sessionProtocol: { kind: { $case: 'http1', value: {} } } },
      '08 e3 49 1a 02 0a 00',
    ));
  test('HTTP/2', () =>
    expectBytes(
      Header,
      { port: 9443, name: '', sessionProtocol: { kind: { $case: 'http2', value: {} } } },
      '08 e3 49 1a 02 12 00',
    ));
  test('gateway name', () =>
    expectBytes(Header, { port: 80, name: 'a.b', sessionProtocol: undefined }, `08 50 12 03 ${ascii('a.b')}`));
});

describe('addresses', () => {
  test('IPv4 is the big-endian integer of the octets, sent as a little-endian fixed32', () =>
    expectBytes(IPAddress, { ip: { $case: 'ipv4', value: 0x0a010203 } }, '0d 03 02 01 0a'));
  test('IPv6 is two fixed64 halves', () =>
    expectBytes(
      IPAddress,
      { ip: { $case: 'ipv6', value: { first: 0xfd00000000000001n, last: 2n } } },
      '12 12 09 01 00 00 00 00 00 00 fd 11 02 00 00 00 00 00 00 00',
    ));
  test('TCP address', () =>
    expectBytes(
      TcpAddress,
      { ip: { ip: { $case: 'ipv4', value: 0x7f000001 } }, port: 8080 },
      '0a 05 0d 01 00 00 7f 10 90 3f',
    ));
});

describe('destination', () => {
  test('request', () =>
    expectBytes(
      GetDestination,
      { scheme: '', path: 'web:80', contextToken: '{}' },
      `12 06 ${ascii('web:80')} 1a 02 7b7d`,
    ));

  test('endpoint with every field', () =>
    expectBytes(
      WeightedAddr,
      {
        addr: { ip: { ip: { $case: 'ipv4', value: 1 } }, port: 1 },
        weight: 10000,
        metricLabels: { pod: 'p' },
        tlsIdentity: {
          strategy: { $case: 'dnsLikeIdentity', value: { name: 'i' } },
          serverName: { name: 'i' },
        },
        protocolHint: { protocol: { $case: 'h2', value: {} }, opaqueTransport: { inboundPort: 4143 } },
        authorityOverride: { authorityOverride: 'a' },
        http2: {
          flowControl: undefined,
          keepAlive: { interval: { seconds: 10n, nanos: 0 }, timeout: { seconds: 3n, nanos: 0 }, whileIdle: true },
          internals: undefined,
        },
        resourceRef: { kind: { $case: 'default', value: 'x' } },
      },
      `0a 09 0a 05 0d 01 00 00 00 10 01
       18 90 4e
       22 08 0a 03 ${ascii('pod')} 12 01 70
       2a 0a 0a 03 0a 01 69 22 03 0a 01 69
       32 07 0a 00 12 03 08 af 20
       3a 03 0a 01 61
       42 0c 12 0a 0a 02 08 0a 12 02 08 03 18 01
       4a 03 0a 01 78`,
    ));

  test('opaque hint and URI identity', () =>
    expectBytes(
      WeightedAddr,
      {
        addr: undefined,
        weight: 0,
        metricLabels: {},
        tlsIdentity: { strategy: { $case: 'uriLikeIdentity', value: { uri: 'u' } }, serverName: undefined },
        protocolHint: { protocol: { $case: 'opaque', value: {} }, opaqueTransport: undefined },
        authorityOverride: undefined,
        http2: undefined,
        resourceRef: undefined,
      },
      '2a 05 1a 03 0a 01 75 32 02 1a 00',
    ));

  test('updates', () => {
    expectBytes(Update, { update: { $case: 'noEndpoints', value: { exists: true } } }, '1a 02 08 01');
    expectBytes(
      Update,
      { update: { $case: 'remove', value: { addrs: [{ ip: undefined, port: 7 }] } } },
      '12 04 0a 02 10 07',
    );
    expectBytes(Update, { update: { $case: 'add', value: { addrs: [], metricLabels: {} } } }, '0a 00');
  });
});

describe('outbound', () => {
  test('request by address', () =>
    expectBytes(
      TrafficSpec,
      { sourceWorkload: 'w', target: { $case: 'addr', value: { ip: undefined, port: 80 } } },
      '0a 01 77 12 02 10 50',
    ));
  test('request by authority', () =>
    expectBytes(TrafficSpec, { sourceWorkload: '', target: { $case: 'authority', value: 'a' } }, '1a 01 61'));
  test('balancer', () =>
    expectBytes(
      Backend,
      {
        metadata: { kind: { $case: 'default', value: 'd' } },
        kind: {
          $case: 'balancer',
          value: {
            discovery: { kind: { $case: 'dst', value: { path: 'a' } } },
            load: {
              $case: 'peakEwma',
              value: { defaultRtt: { seconds: 0n, nanos: 30_000_000 }, decay: { seconds: 10n, nanos: 0 } },
            },
          },
        },
        queue: { capacity: 100, failfastTimeout: { seconds: 3n, nanos: 0 } },
      },
      `0a 03 0a 01 64
       1a 14 0a 05 0a 03 0a 01 61 12 0b 0a 05 10 80 87 a7 0e 12 02 08 0a
       22 06 08 64 12 02 08 03`,
    ));
  test('rule with the deprecated and the present timeout', () =>
    expectBytes(
      HttpRoute_Rule,
      {
        matches: [],
        filters: [],
        backends: { kind: { $case: 'empty', value: {} } },
        requestTimeout: { seconds: 1n, nanos: 0 },
        timeouts: { response: undefined, request: { seconds: 1n, nanos: 0 }, idle: undefined },
        retry: undefined,
        allowL5dRequestHeaders: true,
      },
      '1a 02 0a 00 22 02 08 01 2a 04 12 02 08 01 38 01',
    ));
  test('forbidden opaque route', () =>
    expectBytes(
      OpaqueRoute_Rule,
      { backends: undefined, filters: [{ kind: { $case: 'forbidden', value: {} } }] },
      '12 02 12 00',
    ));
  test('gRPC retry conditions are numbered by status code', () =>
    expectBytes(
      GrpcRoute_Retry_Conditions,
      { cancelled: true, deadineExceeded: true, resourceExhausted: true, internal: true, unavailable: true },
      '08 01 20 01 40 01 68 01 70 01',
    ));
  test('failure accrual', () =>
    expectBytes(
      FailureAccrual,
      {
        kind: {
          $case: 'consecutiveFailures',
          value: {
            maxFailures: 7,
            backoff: {
              minBackoff: { seconds: 1n, nanos: 0 },
              maxBackoff: { seconds: 60n, nanos: 0 },
              jitterRatio: 0.5,
              respectRetryAfterHint: true,
            },
          },
        },
        ejection: { minReadyEndpoints: 2 },
      },
      '0a 13 08 07 12 0f 0a 02 08 01 12 02 08 3c 1d 00 00 00 3f 20 01 1a 02 08 02',
    ));
});

describe('inbound', () => {
  test('request', () => expectBytes(PortSpec, { workload: 'w', port: 8080 }, '0a 01 77 10 90 3f'));
  test('detect with labels', () =>
    expectBytes(
      Server,
      {
        protocol: {
          kind: {
            $case: 'detect',
            value: { timeout: { seconds: 10n, nanos: 0 }, httpRoutes: [], httpLocalRateLimit: undefined },
          },
        },
        serverIps: [],
        authorizations: [],
        labels: { k: 'v' },
      },
      '0a 06 0a 04 0a 02 08 0a 22 06 0a 01 6b 12 01 76',
    ));
  test('authorization of mesh identities', () =>
    expectBytes(
      Authz,
      {
        networks: [
          {
            net: { ip: { ip: { $case: 'ipv4', value: 0 } }, prefixLen: 0 },
            except: [{ ip: { ip: { $case: 'ipv4', value: 1 } }, prefixLen: 8 }],
          },
        ],
        authentication: {
          permit: {
            $case: 'meshTLS',
            value: {
              clients: {
                $case: 'identities',
                value: { identities: [{ name: 'n' }], suffixes: [{ parts: ['p'] }] },
              },
            },
          },
        },
        labels: {},
        metadata: { kind: { $case: 'default', value: 'm' } },
      },
      `0a 14 0a 07 0a 05 0d 00 00 00 00 12 09 0a 05 0d 01 00 00 00 10 08
       12 0e 12 0c 12 0a 0a 03 0a 01 6e 12 03 0a 01 70
       22 03 0a 01 6d`,
    ));
});

describe('the rest', () => {
  test('metadata of a resource', () =>
    expectBytes(
      Metadata,
      {
        kind: {
          $case: 'resource',
          value: { group: 'core', kind: 'Service', name: 'n', namespace: 's', section: '', port: 80 },
        },
      },
      `12 17 0a 04 ${ascii('core')} 12 07 ${ascii('Service')} 1a 01 6e 22 01 73 30 50`,
    ));
  test('certificates', () => {
    expectBytes(
      CertifyRequest,
      { identity: 'i', token: Buffer.from('t'), certificateSigningRequest: Buffer.from('c') },
      '0a 01 69 12 01 74 1a 01 63',
    );
    expectBytes(
      CertifyResponse,
      {
        leafCertificate: Buffer.from('l'),
        intermediateCertificates: [Buffer.from('m'), Buffer.from('n')],
        validUntil: { seconds: 1n, nanos: 0 },
      },
      '0a 01 6c 12 01 6d 12 01 6e 1a 02 08 01',
    );
  });
  test('tap event', () =>
    expectBytes(
      TapEvent,
      {
        source: { ip: undefined, port: 1 },
        destination: { ip: undefined, port: 2 },
        event: {
          $case: 'http',
          value: {
            event: {
              $case: 'responseEnd',
              value: {
                id: { base: 1, stream: 2n },
                sinceRequestInit: undefined,
                sinceResponseInit: undefined,
                responseBytes: 3n,
                eos: { end: { $case: 'grpcStatusCode', value: 0 } },
                trailers: undefined,
              },
            },
          },
        },
        destinationMeta: { labels: {} },
        sourceMeta: undefined,
        proxyDirection: TapEvent_ProxyDirection.INBOUND,
        routeMeta: undefined,
      },
      '0a 02 10 01 12 02 10 02 1a 0e 1a 0c 0a 04 08 01 10 02 20 03 2a 02 08 00 22 00 30 01',
    ));
  test('unknown fields are skipped', () => expect(Header.decode(Buffer.from('08e349520161', 'hex')).port).toBe(9443));
});

test('method paths', () => {
  const definitions = [
    DestinationDefinition,
    OutboundPoliciesDefinition,
    InboundServerPoliciesDefinition,
    IdentityDefinition,
    TapDefinition,
  ];
  const paths = definitions.flatMap((service) =>
    Object.values(service.methods as Record<string, { name: string; responseStream: boolean }>).map(
      ({ name, responseStream }) => `/${service.fullName}/${name}${responseStream ? ' stream' : ''}`,
    ),
  );
  expect(paths).toEqual([
    '/io.linkerd.proxy.destination.Destination/Get stream',
    '/io.linkerd.proxy.destination.Destination/GetProfile stream',
    '/io.linkerd.proxy.outbound.OutboundPolicies/Get',
    '/io.linkerd.proxy.outbound.OutboundPolicies/Watch stream',
    '/io.linkerd.proxy.inbound.InboundServerPolicies/GetPort',
    '/io.linkerd.proxy.inbound.InboundServerPolicies/WatchPort stream',
    '/io.linkerd.proxy.identity.Identity/Certify',
    '/io.linkerd.proxy.tap.Tap/Observe stream',
  ]);
});
