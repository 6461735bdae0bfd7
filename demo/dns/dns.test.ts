import { Resolver } from 'node:dns/promises';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { EndpointSlice, Service } from '#kube/resources.ts';
import { silentLog } from '#lib/log.ts';
import { parseQuery } from './message.ts';
import { DnsServer } from './server.ts';
import { Zone } from './zone.ts';

function mkService(name: string, spec: Partial<Service['spec']>): Service {
  return { apiVersion: 'v1', kind: 'Service', metadata: { name, namespace: 'shop' }, spec };
}

function mkSlice(service: string, endpoints: NonNullable<EndpointSlice['endpoints']>): EndpointSlice {
  return {
    apiVersion: 'discovery.k8s.io/v1',
    kind: 'EndpointSlice',
    metadata: { name: `${service}-1`, namespace: 'shop', labels: { 'kubernetes.io/service-name': service } },
    addressType: 'IPv4',
    endpoints,
  };
}

const zone = new Zone('cluster.local');
const server = new DnsServer({ zone, log: silentLog });
const resolver = new Resolver({ timeout: 2000, tries: 1 });

beforeAll(async () => {
  zone.reset('Service', [
    mkService('web', { clusterIP: '10.96.0.11' }),
    mkService('dual', { clusterIPs: ['10.96.0.12', 'fd00::12'] }),
    mkService('redis', { clusterIP: 'None' }),
    mkService('many', { clusterIP: 'None' }),
    mkService('early', { clusterIP: 'None', publishNotReadyAddresses: true }),
    mkService('empty', { clusterIP: 'None' }),
  ]);
  const many = Array.from({ length: 100 }, (_, index) => ({ addresses: [`10.1.1.${index}`] }));
  zone.reset('EndpointSlice', [
    mkSlice('redis', [
      { addresses: ['10.1.0.1'], hostname: 'redis-0', conditions: { ready: true } },
      { addresses: ['10.1.0.2'], hostname: 'redis-1' },
      { addresses: ['10.1.0.3'], conditions: { ready: false } },
    ]),
    mkSlice('many', many),
    mkSlice('early', [{ addresses: ['10.1.0.9'], conditions: { ready: false } }]),
  ]);
  const port = await server.listen('127.0.0.1', 0);
  resolver.setServers([`127.0.0.1:${port}`]);
});
afterAll(() => server.close());

describe('the zone', () => {
  test.each([
    ['a Service', 'web.shop.svc.cluster.local', ['10.96.0.11']],
    ['a name in other case', 'WEB.Shop.svc.Cluster.LOCAL', ['10.96.0.11']],
    ['a headless Service: its ready endpoints', 'redis.shop.svc.cluster.local', ['10.1.0.1', '10.1.0.2']],
    ['an endpoint with a hostname', 'redis-1.redis.shop.svc.cluster.local', ['10.1.0.2']],
    ['a headless Service that publishes early', 'early.shop.svc.cluster.local', ['10.1.0.9']],
    ['the address of a pod', '10-1-0-7.shop.pod.cluster.local', ['10.1.0.7']],
  ])('answers %s', async (_what, name, addresses) => {
    expect((await resolver.resolve4(name)).sort()).toEqual(addresses);
  });

  test('answers both families, each when asked for', async () => {
    expect(await resolver.resolve4('dual.shop.svc.cluster.local')).toEqual(['10.96.0.12']);
    expect(await resolver.resolve6('dual.shop.svc.cluster.local')).toEqual(['fd00::12']);
    await expect(resolver.resolve6('web.shop.svc.cluster.local')).rejects.toMatchObject({ code: 'ENODATA' });
  });

  test.each([
    ['a Service that is not there', 'none.shop.svc.cluster.local', 'ENOTFOUND'],
    ['another namespace', 'web.other.svc.cluster.local', 'ENOTFOUND'],
    ['a headless Service without endpoints', 'empty.shop.svc.cluster.local', 'ENOTFOUND'],
    ['a hostname that nobody has', 'redis-9.redis.shop.svc.cluster.local', 'ENOTFOUND'],
    ['a pod that is no address', 'a-b.shop.pod.cluster.local', 'ENOTFOUND'],
    ['a name too deep', 'a.b.web.shop.svc.cluster.local', 'ENOTFOUND'],
    ['a name of the world', 'example.com', 'EREFUSED'],
  ])('refuses %s', async (_what, name, code) => {
    await expect(resolver.resolve4(name)).rejects.toMatchObject({ code });
  });

  test('forgets what was deleted', async () => {
    zone.apply('Service', mkService('brief', { clusterIP: '10.96.0.99' }));
    expect(await resolver.resolve4('brief.shop.svc.cluster.local')).toEqual(['10.96.0.99']);
    zone.delete('Service', { namespace: 'shop', name: 'brief' });
    await expect(resolver.resolve4('brief.shop.svc.cluster.local')).rejects.toMatchObject({ code: 'ENOTFOUND' });
  });
});

/** A query for `many.shop.svc.cluster.local`, type A, without EDNS. */
function plainQuery(): Buffer {
  const labels = 'many.shop.svc.cluster.local'.split('.').flatMap((label) => [label.length, ...Buffer.from(label)]);
  return Buffer.from([0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, ...labels, 0, 0, 1, 0, 1]);
}

describe('a reply', () => {
  test('stays within 512 bytes for a client that offers no more, and says what it left out', () => {
    const reply = server.answer(plainQuery())!;
    expect(reply.length).toBeLessThanOrEqual(512);
    expect(reply.readUInt16BE(2) & 0x0200).toBe(0x0200);
    expect(reply.readUInt16BE(6)).toBe(Math.floor((512 - plainQuery().length) / 16));
  });

  test('uses what the client offers', () => {
    const opt = Buffer.from([0, 0, 41, 0x10, 0, 0, 0, 0, 0, 0, 0]);
    const query = Buffer.concat([plainQuery(), opt]);
    query.writeUInt16BE(1, 10);
    const reply = server.answer(query)!;
    expect(reply.length).toBeGreaterThan(512);
    expect(reply.length).toBeLessThanOrEqual(1232);
  });

  test('is never made to a reply', () => {
    const reply = plainQuery();
    reply[2]! |= 0x80;
    expect(server.answer(reply)).toBeNull();
  });

  test.each([
    ['another operation', (query: Buffer) => query.writeUInt8(0x10, 2), 4],
    ['two questions', (query: Buffer) => query.writeUInt16BE(2, 4), 1],
    ['a compressed name', (query: Buffer) => query.writeUInt8(0xc0, 12), 1],
  ])('to %s is an error', (_what, change, code) => {
    const query = plainQuery();
    change(query);
    const reply = server.answer(query)!;
    expect(reply.readUInt16BE(0)).toBe(0x1234);
    expect(reply[3]! & 0xf).toBe(code);
  });

  test('to noise is an error or nothing, never a crash', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 80 }), (bytes) => {
        parseQuery(Buffer.from(bytes));
        server.answer(Buffer.from(bytes));
      }),
    );
    const query = plainQuery();
    fc.assert(
      fc.property(fc.nat(query.length), fc.nat(query.length - 1), fc.nat(255), (length, at, value) => {
        const changed = Buffer.from(query);
        changed[at] = value;
        server.answer(changed.subarray(0, length));
      }),
    );
  });
});
