// The nftables rules of one pod as text for `nft -f`, applied in one transaction. Pure. Chains and skip sets are filled
// anew each time; the sets of exempt workers and the counters stay as they are, so that writing the rules again never
// redirects a running worker to itself.

import { LISTENER_NAMES, type ListenerName } from '#api/worker-link.ts';
import { isIpv4, parseCidr } from '#lib/ip-address.ts';
import { EXEMPT_LEVELS_MAX } from './ebpf-layout.ts';
import type { PortRange, RedirectPlan } from './redirector.ts';

export const TABLE = 'inet heddle';

/** Counters, named as those of the programs where they mean the same. */
export const NFT_COUNTERS = [
  'outbound_redirected',
  'outbound_skipped_loopback',
  'outbound_skipped_metadata',
  'outbound_skipped_worker',
  'outbound_skipped_port',
  'outbound_skipped_network',
  'inbound_steered',
  'inbound_skipped_port',
  'inbound_skipped_network',
  'inbound_refused_no_listener',
] as const;

/** tproxy keeps the destination address of inbound connections; redirect leaves it to SO_ORIGINAL_DST. */
export type InboundMode = 'tproxy' | 'redirect';

export interface NftPod {
  plan: RedirectPlan;
  /** Ports of the listeners. */
  ports: Readonly<Record<ListenerName, number>>;
  inboundMode: InboundMode;
  exemptUids: readonly number[];
  /** Relative to /sys/fs/cgroup, as nft wants them. */
  exemptCgroups: readonly string[];
}

export function nftRules(pod: NftPod): string {
  const { plan } = pod;
  const lines = [
    `add table ${TABLE}`,
    ...NFT_COUNTERS.map((name) => `add counter ${TABLE} ${name}`),
    `add set ${TABLE} exempt_uids { type uid; }`,
    `add set ${TABLE} exempt_cgroups { type cgroupsv2; }`,
    ...elements('exempt_uids', pod.exemptUids.map(String)),
    ...elements(
      'exempt_cgroups',
      pod.exemptCgroups.map((path) => `"${path}"`),
    ),
    ...skipSets('out', plan.skipOutboundPorts, plan.skipOutboundCidrs),
    ...skipSets('in', plan.skipInboundPorts, plan.skipInboundCidrs),
    `add chain ${TABLE} output { type nat hook output priority -100; policy accept; }`,
    `flush chain ${TABLE} output`,
    ...(plan.outbound ? outputRules(pod) : []).map((rule) => `add rule ${TABLE} output ${rule}`),
    ...(pod.inboundMode === 'tproxy' ? tproxyChain(pod) : redirectChain(pod)),
  ];
  return `${lines.join('\n')}\n`;
}

/** Takes everything away. */
export function nftRemoval(): string {
  // Adding first makes deleting succeed where nothing is.
  return `add table ${TABLE}\ndelete table ${TABLE}\n`;
}

/** Adds or removes an exempt worker while the rules are in place. */
export function nftExemption(action: 'add' | 'delete', exempt: { uid: number } | { cgroup: string }): string {
  const [set, element] = 'uid' in exempt ? ['exempt_uids', exempt.uid] : ['exempt_cgroups', `"${exempt.cgroup}"`];
  return `${action} element ${TABLE} ${set} { ${element} }\n`;
}

/** Rules that prove that the kernel and nft know what `mode` needs. */
export function nftTrial(mode: InboundMode): string {
  const ports = Object.fromEntries(LISTENER_NAMES.map((name) => [name, 1])) as Record<ListenerName, number>;
  const plan: RedirectPlan = {
    inbound: true,
    outbound: true,
    failOpen: false,
    skipInboundPorts: [{ from: 1, to: 2 }],
    skipOutboundPorts: [],
    skipOutboundCidrs: [],
    skipInboundCidrs: [],
  };
  return nftRules({ plan, ports, inboundMode: mode, exemptUids: [], exemptCgroups: [] });
}

function elements(set: string, values: readonly string[]): string[] {
  return values.length === 0 ? [] : [`add element ${TABLE} ${set} { ${values.join(', ')} }`];
}

function skipSets(direction: 'in' | 'out', ports: readonly PortRange[], networks: readonly string[]): string[] {
  const of = (family: 4 | 6) => networks.filter((text) => isIpv4(parseCidr(text)!.bytes) === (family === 4));
  const sets = [
    { name: `skip_${direction}_ports`, type: 'inet_service', values: ports.map(({ from, to }) => `${from}-${to}`) },
    { name: `skip_${direction}_networks4`, type: 'ipv4_addr', values: of(4) },
    { name: `skip_${direction}_networks6`, type: 'ipv6_addr', values: of(6) },
  ];
  return sets.flatMap(({ name, type, values }) => [
    `add set ${TABLE} ${name} { type ${type}; flags interval; auto-merge; }`,
    `flush set ${TABLE} ${name}`,
    ...elements(name, values),
  ]);
}

function counted(outcome: (typeof NFT_COUNTERS)[number], verdict: string): string {
  return `counter name "${outcome}" ${verdict}`;
}

/** Only the first packet of a connection passes a nat chain. */
function outputRules({ ports }: NftPod): string[] {
  const worker = counted('outbound_skipped_worker', 'return');
  return [
    'meta l4proto != tcp return',
    `oifname "lo" ${counted('outbound_skipped_loopback', 'return')}`,
    `ip daddr 169.254.169.254 ${counted('outbound_skipped_metadata', 'return')}`,
    `ip6 daddr fd00:ec2::254 ${counted('outbound_skipped_metadata', 'return')}`,
    // A level deeper than the socket's own cgroup matches nothing.
    ...Array.from(
      { length: EXEMPT_LEVELS_MAX },
      (_, index) => `socket cgroupv2 level ${index + 1} @exempt_cgroups ${worker}`,
    ),
    `meta skuid @exempt_uids ${worker}`,
    `tcp dport @skip_out_ports ${counted('outbound_skipped_port', 'return')}`,
    `ip daddr @skip_out_networks4 ${counted('outbound_skipped_network', 'return')}`,
    `ip6 daddr @skip_out_networks6 ${counted('outbound_skipped_network', 'return')}`,
    `meta nfproto ipv4 meta l4proto tcp ${counted('outbound_redirected', `redirect to :${ports.outbound4}`)}`,
    `meta nfproto ipv6 meta l4proto tcp ${counted('outbound_redirected', `redirect to :${ports.outbound6}`)}`,
  ];
}

const INBOUND_SKIPS = [
  'meta l4proto != tcp return',
  'iifname "lo" return',
  `tcp dport @skip_in_ports ${counted('inbound_skipped_port', 'return')}`,
  `ip saddr @skip_in_networks4 ${counted('inbound_skipped_network', 'return')}`,
  `ip6 saddr @skip_in_networks6 ${counted('inbound_skipped_network', 'return')}`,
];

/**
 * The SYN is given to the listener; later packets find the accepted socket by themselves, its address being the pod's
 * own. The kernel passes over the rule when nobody listens, so what comes behind it decides.
 */
function tproxyChain({ plan, ports }: NftPod): string[] {
  const rules = [
    'tcp flags & (fin | syn | rst | ack) != syn return',
    ...INBOUND_SKIPS,
    `meta nfproto ipv4 meta l4proto tcp tproxy ip to 127.0.0.1:${ports.inbound4} ${counted('inbound_steered', 'accept')}`,
    `meta nfproto ipv6 meta l4proto tcp tproxy ip6 to [::1]:${ports.inbound6} ${counted('inbound_steered', 'accept')}`,
    ...(plan.failOpen ? [] : [counted('inbound_refused_no_listener', 'reject with tcp reset')]),
  ];
  return [
    `add chain ${TABLE} steer { type filter hook prerouting priority -150; policy accept; }`,
    `flush chain ${TABLE} steer`,
    ...(plan.inbound ? rules : []).map((rule) => `add rule ${TABLE} steer ${rule}`),
  ];
}

/** The destination becomes the pod's own address at the listener's port; what it was is kept for SO_ORIGINAL_DST. */
function redirectChain({ plan, ports }: NftPod): string[] {
  const rules = [
    ...INBOUND_SKIPS,
    `meta nfproto ipv4 meta l4proto tcp ${counted('inbound_steered', `redirect to :${ports.inbound4}`)}`,
    `meta nfproto ipv6 meta l4proto tcp ${counted('inbound_steered', `redirect to :${ports.inbound6}`)}`,
  ];
  return [
    `add chain ${TABLE} prerouting { type nat hook prerouting priority -100; policy accept; }`,
    `flush chain ${TABLE} prerouting`,
    ...(plan.inbound ? rules : []).map((rule) => `add rule ${TABLE} prerouting ${rule}`),
  ];
}
