// The labels of one endpoint's series, as Linkerd's proxy writes them: what it is, where it is, and whether the
// connection to it is secured.

import { formatAddress } from '../address.ts';
import type { Labels } from '../observe/recorder.ts';
import type { EndpointInfo } from './endpoint-info.ts';

/** `authority`: the logical destination (`web.shop.svc.cluster.local:80`), empty where there is none. */
export function endpointLabels(info: EndpointInfo, authority: string): Labels {
  const labels: Record<string, string> = {};
  if (authority !== '') labels.authority = authority;
  labels.target_addr = formatAddress(info.address, info.port);
  labels.target_ip = info.address;
  labels.target_port = String(info.port);
  if (info.identity) {
    labels.tls = 'true';
    labels.server_id = info.identity.name;
  } else {
    labels.tls = 'no_identity';
    labels.no_tls_reason = info.noTlsReason;
  }
  for (const [name, value] of Object.entries(info.labels)) labels[`dst_${name}`] = value;
  return labels;
}
