// Which watches of different workers are the same question to the control plane. Pods of one namespace that ask for
// one target share a stream: the control plane looks at the namespace and node of the client, not at its name
// (linkerd2-proxy-api: GetDestination.context_token, TrafficSpec.source_workload).

import { GetDestination } from '#api/gen/destination.ts';
import { PortSpec } from '#api/gen/inbound.ts';
import { TrafficSpec } from '#api/gen/outbound.ts';
import { WatchKind } from '#api/worker-link.ts';
import { HeddleError } from '#lib/errors.ts';

export interface WatchTarget {
  /** Equal for watches that one upstream stream can feed. */
  key: string;
  kind: WatchKind;
  /** The request to send upstream. */
  request: Uint8Array;
  /** What is asked for, for people. */
  name: string;
}

/** A request longer than this is no target: names and tokens are a few hundred bytes. */
const REQUEST_BYTES_MAX = 16 * 1024;

/**
 * Reads a worker's request. Throws `bad-watch` for an unknown kind or bytes that are not the kind's request.
 * The worker's bytes go upstream as they are; only the key forgets what does not matter.
 */
export function watchTarget(kind: number, request: Uint8Array): WatchTarget {
  if (request.length > REQUEST_BYTES_MAX) {
    throw new HeddleError('bad-watch', `open a watch of "${request.length}" bytes: expected ${REQUEST_BYTES_MAX}`);
  }
  // The frame it came in is a view of a buffer that is used again.
  const bytes = Uint8Array.from(request);
  try {
    switch (kind) {
      case WatchKind.destination:
      case WatchKind.profile: {
        const { scheme, path, contextToken } = GetDestination.decode(bytes);
        return { kind, key: join(kind, scheme, path, contextKey(contextToken)), request: bytes, name: path };
      }
      case WatchKind.outboundPolicy: {
        const { sourceWorkload, target } = TrafficSpec.decode(bytes);
        const name = target?.$case === 'authority' ? target.value : addressText(target?.value);
        return { kind, key: join(kind, workloadKey(sourceWorkload), name), request: bytes, name };
      }
      case WatchKind.inboundPolicy: {
        const { workload, port } = PortSpec.decode(bytes);
        return { kind, key: join(kind, workload, String(port)), request: bytes, name: `${workload}:${port}` };
      }
    }
  } catch (cause) {
    throw new HeddleError('bad-watch', `open a watch of kind "${kind}": expected its request as protobuf`, { cause });
  }
  throw new HeddleError('bad-watch', `open a watch of kind "${kind}": expected 1 to 4`);
}

function join(kind: number, ...parts: string[]): string {
  return JSON.stringify([kind, ...parts]);
}

/** Namespace and node decide what a client is told; its pod name does not. Tokens in other shapes are kept whole. */
function contextKey(token: string): string {
  const fields = jsonObject(token);
  return fields ? JSON.stringify([fields.ns ?? null, fields.nodeName ?? null]) : token;
}

/** Routes depend on the client's namespace only; external workloads are kept apart. */
function workloadKey(workload: string): string {
  const fields = jsonObject(workload);
  return fields && 'pod' in fields ? JSON.stringify([fields.ns ?? null]) : workload;
}

function jsonObject(text: string): Record<string, unknown> | null {
  if (!text.startsWith('{')) return null;
  try {
    return JSON.parse(text) as Record<string, unknown>;
  } catch {
    // Not JSON is a shape of its own (`ns:<namespace>`): the control plane says what it thinks of it.
    return null;
  }
}

function addressText(
  address: { ip?: { ip?: { $case: string; value: unknown } | undefined } | undefined; port: number } | undefined,
): string {
  const ip = address?.ip?.ip;
  if (!address || !ip) return '';
  if (ip.$case === 'ipv4') {
    const value = ip.value as number;
    return `${value >>> 24}.${(value >>> 16) & 255}.${(value >>> 8) & 255}.${value & 255}:${address.port}`;
  }
  const { first, last } = ip.value as { first: bigint; last: bigint };
  return `[${first.toString(16)}.${last.toString(16)}]:${address.port}`;
}
