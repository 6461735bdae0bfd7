// Labels of inbound series, as Linkerd's proxy writes them: the target of the connection, the server policy of its
// port, what TLS said about the client, and for requests the route and the authorization that decided.

import { formatAddress } from '../address.ts';
import type { Labels } from '../observe/recorder.ts';
import type { ResourceRef } from '../policy/authorization.ts';

/** Where the client wanted to go: an address of the pod and a port. */
export interface Target {
  readonly address: string;
  readonly port: number;
}

/** Why a connection is not mesh TLS, or what its TLS is. */
export type TlsStatus =
  | { readonly kind: 'mesh'; readonly clientIdentity: string | null }
  /** TLS of the application's own, passed on. */
  | { readonly kind: 'opaque'; readonly serverName: string | null }
  | { readonly kind: 'none'; readonly reason: 'no_tls_from_remote' | 'port_skipped' | 'loopback' }
  /** The pod has no identity. */
  | { readonly kind: 'disabled' };

export function targetLabels({ address, port }: Target): Labels {
  return { target_addr: formatAddress(address, port), target_ip: address, target_port: String(port) };
}

export function tlsLabels(status: TlsStatus): Labels {
  switch (status.kind) {
    case 'mesh':
      return { tls: 'true', client_id: status.clientIdentity ?? '' };
    case 'opaque':
      return { tls: 'opaque', sni: status.serverName ?? '' };
    case 'none':
      return { tls: 'no_identity', no_tls_reason: status.reason };
    case 'disabled':
      return { tls: 'disabled' };
  }
}

export function serverLabels(ref: ResourceRef, port: number): Labels {
  return { ...refLabels('srv', ref), srv_port: String(port) };
}

/** `srv_group`, `srv_kind`, `srv_name` and the like. */
export function refLabels(prefix: 'srv' | 'route' | 'authz' | 'ratelimit', ref: ResourceRef): Labels {
  return { [`${prefix}_group`]: ref.group, [`${prefix}_kind`]: ref.kind, [`${prefix}_name`]: ref.name };
}
