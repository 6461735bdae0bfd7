import { describe, expect, test } from 'vitest';
import { type NftPod, nftExemption, nftRemoval, nftRules } from './nft-rules.ts';

const POD: NftPod = {
  plan: {
    inbound: true,
    outbound: true,
    failOpen: false,
    skipInboundPorts: [{ from: 4190, to: 4191 }],
    skipOutboundPorts: [
      { from: 25, to: 25 },
      { from: 20, to: 30 },
    ],
    skipOutboundCidrs: ['10.9.0.0/16', 'fd09::/16', '10.8.0.0/16'],
    skipInboundCidrs: [],
  },
  ports: { inbound4: 1, inbound6: 2, outbound4: 3, outbound6: 4 },
  inboundMode: 'tproxy',
  exemptUids: [65536],
  exemptCgroups: ['unified/heddle/pod/1'],
};

function linesOf(changes: Partial<NftPod> = {}, plan: Partial<NftPod['plan']> = {}): string[] {
  return nftRules({ ...POD, ...changes, plan: { ...POD.plan, ...plan } })
    .trimEnd()
    .split('\n');
}

const chain = (lines: string[], name: string) =>
  lines.filter((line) => line.startsWith(`add rule inet heddle ${name} `)).map((line) => line.split(` ${name} `)[1]!);

describe('rules', () => {
  test('skip sets hold what the plan says, by family', () => {
    const lines = linesOf();
    expect(lines).toContain('add element inet heddle skip_out_ports { 25-25, 20-30 }');
    expect(lines).toContain('add element inet heddle skip_in_ports { 4190-4191 }');
    expect(lines).toContain('add element inet heddle skip_out_networks4 { 10.9.0.0/16, 10.8.0.0/16 }');
    expect(lines).toContain('add element inet heddle skip_out_networks6 { fd09::/16 }');
    expect(lines.filter((line) => line.startsWith('add element') && line.includes('skip_in_networks'))).toEqual([]);
    for (const line of lines.filter((text) => text.startsWith('add element inet heddle skip_'))) {
      expect(lines.indexOf(line)).toBeGreaterThan(lines.indexOf(`flush set inet heddle ${line.split(' ')[4]}`));
    }
  });

  test('exempt workers are added, and those that are there are not taken away', () => {
    const lines = linesOf();
    expect(lines).toContain('add element inet heddle exempt_uids { 65536 }');
    expect(lines).toContain('add element inet heddle exempt_cgroups { "unified/heddle/pod/1" }');
    expect(lines.join('\n')).not.toMatch(/delete|flush set inet heddle exempt/);
  });

  test('outbound: loopback and the metadata service first, workers next, the redirection last', () => {
    const output = chain(linesOf(), 'output');
    const at = (part: string) => output.findIndex((rule) => rule.includes(part));
    expect(at('l4proto != tcp')).toBe(0);
    const order = [
      'oifname "lo"',
      '169.254.169.254',
      'exempt_cgroups',
      'exempt_uids',
      '@skip_out_ports',
      'redirect to :3',
    ];
    const positions = order.map(at);
    expect(positions).toEqual([...positions].sort((a, b) => a - b));
    expect(positions).not.toContain(-1);
    expect(output.at(-2)).toBe('meta nfproto ipv4 meta l4proto tcp counter name "outbound_redirected" redirect to :3');
    expect(output.at(-1)).toBe('meta nfproto ipv6 meta l4proto tcp counter name "outbound_redirected" redirect to :4');
  });

  test('inbound without a listener is refused, unless the plan fails open', () => {
    expect(chain(linesOf(), 'steer').at(-1)).toBe('counter name "inbound_refused_no_listener" reject with tcp reset');
    const open = chain(linesOf({}, { failOpen: true }), 'steer');
    expect(open.at(-1)).toContain('tproxy ip6 to [::1]:2');
  });

  test('a direction that is not redirected has an empty chain', () => {
    const lines = linesOf({}, { inbound: false, outbound: false });
    expect(lines).toContain('flush chain inet heddle output');
    expect(chain(lines, 'output')).toEqual([]);
    expect(chain(lines, 'steer')).toEqual([]);
  });

  test('redirection without transparent proxying names no address', () => {
    const lines = linesOf({ inboundMode: 'redirect' });
    expect(chain(lines, 'prerouting').at(-2)).toContain('redirect to :1');
    expect(lines.join('\n')).not.toContain('tproxy');
  });
});

test('exemptions and the removal are one line or two', () => {
  expect(nftExemption('add', { uid: 7 })).toBe('add element inet heddle exempt_uids { 7 }\n');
  expect(nftExemption('delete', { cgroup: 'a/b' })).toBe('delete element inet heddle exempt_cgroups { "a/b" }\n');
  expect(nftRemoval()).toBe('add table inet heddle\ndelete table inet heddle\n');
});
