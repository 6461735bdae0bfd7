import { describe, expect, test } from 'vitest';
import { parseCidr, parseIp } from '#lib/ip-address.ts';
import {
  ANY_IDENTITY_SUFFIX,
  type Authentication,
  type Authorization,
  authorize,
  type Client,
} from './authorization.ts';

const ref = { group: '', kind: 'default', name: 'test' };

function client(address: string, identity: string | null = null, isMeshTls = identity !== null): Client {
  return { address: parseIp(address)!, isMeshTls, identity };
}

function authorization(
  network: string,
  authentication: Authentication = { kind: 'unauthenticated' },
  except: string[] = [],
): Authorization {
  return {
    ref,
    networks: [{ network: parseCidr(network)!, except: except.map((text) => parseCidr(text)!) }],
    authentication,
  };
}

const identities = (exact: string[], suffixes: string[] = []): Authentication => ({
  kind: 'identities',
  exact: new Set(exact),
  suffixes,
});

// Every case names who is allowed and the nearest twin that is not.
const CASES: [name: string, authorizations: Authorization[], allowed: Client, denied: Client][] = [
  ['IPv4 network', [authorization('10.1.0.0/16')], client('10.1.255.1'), client('10.2.0.1')],
  ['IPv6 network', [authorization('fd00:1::/32')], client('fd00:1::9'), client('fd00:2::9')],
  ['a single address', [authorization('10.1.2.3/32')], client('10.1.2.3'), client('10.1.2.2')],
  ['all of IPv4 but not IPv6', [authorization('0.0.0.0/0')], client('192.0.2.1'), client('2001:db8::1')],
  ['all of IPv6', [authorization('::/0')], client('2001:db8::1'), client('10.0.0.1')],
  [
    'except',
    [authorization('10.0.0.0/8', { kind: 'unauthenticated' }, ['10.9.0.0/16', '10.8.8.8/32'])],
    client('10.8.8.7'),
    client('10.8.8.8'),
  ],
  [
    'one network of several',
    [
      {
        ref,
        networks: [...authorization('10.1.0.0/16').networks, ...authorization('10.3.0.0/16').networks],
        authentication: { kind: 'unauthenticated' },
      },
    ],
    client('10.3.0.1'),
    client('10.2.0.1'),
  ],
  ['mesh TLS', [authorization('10.0.0.0/8', { kind: 'mesh' })], client('10.0.0.1', null, true), client('10.0.0.1')],
  [
    'an identity',
    [authorization('10.0.0.0/8', identities(['web.shop.x']))],
    client('10.0.0.1', 'web.shop.x'),
    client('10.0.0.1', 'api.shop.x'),
  ],
  [
    'identity needs TLS',
    [authorization('10.0.0.0/8', identities(['web.x']))],
    client('10.0.0.1', 'web.x'),
    client('10.0.0.1', 'web.x', false),
  ],
  [
    'identity needs a certificate',
    [authorization('10.0.0.0/8', identities([], [ANY_IDENTITY_SUFFIX]))],
    client('10.0.0.1', 'web.x'),
    client('10.0.0.1', null, true),
  ],
  [
    'identity and network',
    [authorization('10.1.0.0/16', identities(['web.x']))],
    client('10.1.0.1', 'web.x'),
    client('10.2.0.1', 'web.x'),
  ],
  [
    'suffix',
    [authorization('0.0.0.0/0', identities([], ['.shop.serviceaccount.x']))],
    client('10.0.0.1', 'web.shop.serviceaccount.x'),
    client('10.0.0.1', 'web.evilshop.serviceaccount.x'),
  ],
  [
    'suffix needs something before it',
    [authorization('0.0.0.0/0', identities([], ['.shop.x']))],
    client('10.0.0.1', 'a.shop.x'),
    client('10.0.0.1', '.shop.x'),
  ],
  [
    'SPIFFE id as a whole',
    [authorization('0.0.0.0/0', identities(['spiffe://x/ns/shop/sa/web'], ['.web']))],
    client('10.0.0.1', 'spiffe://x/ns/shop/sa/web'),
    client('10.0.0.1', 'spiffe://x/ns/shop/sa/api.web'),
  ],
  [
    'the second of two',
    [authorization('10.1.0.0/16'), authorization('10.2.0.0/16', { kind: 'mesh' })],
    client('10.2.0.1', null, true),
    client('10.2.0.1'),
  ],
];

describe('authorize', () => {
  test.each(CASES)('%s', (_name, authorizations, allowed, denied) => {
    expect(authorize(authorizations, allowed)).not.toBeNull();
    expect(authorize(authorizations, denied)).toBeNull();
  });

  test('permits nobody where there is no authorization', () => {
    expect(authorize([], client('10.0.0.1', 'web.x'))).toBeNull();
  });

  test('names the first that permits', () => {
    const first = { ...authorization('10.0.0.0/8'), ref: { ...ref, name: 'first' } };
    const second = { ...authorization('0.0.0.0/0'), ref: { ...ref, name: 'second' } };
    expect(authorize([first, second], client('10.0.0.1'))?.ref.name).toBe('first');
    expect(authorize([first, second], client('11.0.0.1'))?.ref.name).toBe('second');
  });

  test('any identity holds for SPIFFE ids too', () => {
    const anyone = [authorization('0.0.0.0/0', identities([], [ANY_IDENTITY_SUFFIX]))];
    expect(authorize(anyone, client('10.0.0.1', 'spiffe://x/a'))).not.toBeNull();
  });
});
