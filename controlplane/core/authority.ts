// The targets that clients name: `host[:port]`, names of Services in the cluster's domain, tokens that say who asks.

import net from 'node:net';

export interface Authority {
  host: string;
  port: number;
}

/** Without a port in the authority (linkerd2-proxy-api, GetDestination.path). */
const DEFAULT_PORT = 80;

/** Reads `host`, `host:port`, `[v6]:port` or `v6`; null for anything else and for ports outside 1 to 65535. */
export function parseAuthority(text: string): Authority | null {
  if (net.isIPv6(text)) return { host: text, port: DEFAULT_PORT };
  const match = /^(?:\[([^\]]+)\]|([^:[\]/\s]+))(?::(\d{1,5}))?$/.exec(text);
  if (!match) return null;
  const [, ipv6, name, digits] = match;
  if (ipv6 !== undefined && !net.isIPv6(ipv6)) return null;
  const port = digits === undefined ? DEFAULT_PORT : Number(digits);
  if (port < 1 || port > 65_535) return null;
  return { host: ipv6 ?? name!, port };
}

export interface ServiceName {
  namespace: string;
  name: string;
  /** Of one pod behind the Service, as StatefulSets name them; null for the Service as a whole. */
  hostname: string | null;
}

const LABEL = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/;

/** Reads `[<hostname>.]<service>.<namespace>.svc.<cluster domain>`, case-insensitive, trailing dot allowed. */
export function parseServiceName(host: string, clusterDomain: string): ServiceName | null {
  const lower = host.toLowerCase().replace(/\.$/, '');
  const suffix = `.svc.${clusterDomain}`;
  if (!lower.endsWith(suffix)) return null;
  const labels = lower.slice(0, -suffix.length).split('.');
  if (!labels.every((label) => LABEL.test(label))) return null;
  if (labels.length === 2) return { hostname: null, name: labels[0]!, namespace: labels[1]! };
  if (labels.length === 3) return { hostname: labels[0]!, name: labels[1]!, namespace: labels[2]! };
  return null;
}

/** `<service>.<namespace>.svc.<cluster domain>`. */
export function serviceFqdn({ name, namespace }: { name: string; namespace: string }, clusterDomain: string): string {
  return `${name}.${namespace}.svc.${clusterDomain}`;
}

/** An address and a port as one string; IPv6 in brackets. */
export function formatAddress(ip: string, port: number): string {
  return ip.includes(':') ? `[${ip}]:${port}` : `${ip}:${port}`;
}

/** Who asks, as far as the token says. */
export interface ClientContext {
  namespace: string | null;
  nodeName: string | null;
}

/** Reads a destination context token: JSON, or the legacy `ns:<namespace>`. `isOdd` for junk, which says nothing. */
export function parseContextToken(token: string): ClientContext & { isOdd: boolean } {
  const nobody = { namespace: null, nodeName: null };
  if (token === '') return { ...nobody, isOdd: false };
  if (token.startsWith('ns:')) return { ...nobody, namespace: token.slice(3) || null, isOdd: true };
  const fields = jsonObject(token);
  if (!fields) return { ...nobody, isOdd: true };
  return { namespace: textOf(fields.ns), nodeName: textOf(fields.nodeName), isOdd: false };
}

export interface Workload {
  namespace: string;
  pod: string | null;
}

/** Reads a workload: `{"ns":…,"pod":…}`, one with `external_workload`, or the legacy `ns:pod`; null otherwise. */
export function parseWorkload(text: string): Workload | null {
  const fields = jsonObject(text);
  if (fields) {
    const namespace = textOf(fields.ns);
    const pod = textOf(fields.pod);
    if (!namespace || (!pod && !textOf(fields.external_workload))) return null;
    return { namespace, pod };
  }
  const [namespace, pod, ...rest] = text.split(':');
  return namespace && pod && rest.length === 0 && !text.startsWith('{') ? { namespace, pod } : null;
}

function jsonObject(text: string): Record<string, unknown> | null {
  if (!text.startsWith('{')) return null;
  try {
    return JSON.parse(text) as Record<string, unknown>;
  } catch {
    // The caller says what it makes of text that is no JSON.
    return null;
  }
}

function textOf(value: unknown): string | null {
  return typeof value === 'string' && value !== '' ? value : null;
}
