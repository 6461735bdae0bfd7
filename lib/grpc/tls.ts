// TLS as the mesh speaks it towards the control plane: 1.3 only, the hybrid post-quantum group first, no resumption (a
// resumed session would not look at a changed certificate), peers known by the identities in their certificate.

import { constants, X509Certificate } from 'node:crypto';
import type { SecureContextOptions } from 'node:tls';

/** In order of preference; what linkerd2-proxy offers. */
export const TLS_GROUPS = 'X25519MLKEM768:X25519:P-256:P-384';

export const TLS_SETTINGS = {
  minVersion: 'TLSv1.3',
  ecdhCurve: TLS_GROUPS,
  secureOptions: constants.SSL_OP_NO_TICKET,
} as const satisfies SecureContextOptions;

/** A certificate chain, leaf first, and its key; all PEM. */
export interface KeyMaterial {
  certificatePem: string;
  privateKeyPem: string;
}

/** The DNS and URI names of a certificate, in order: each is an identity of its holder. */
export function identitiesOf(der: Uint8Array): string[] {
  const names = new X509Certificate(der).subjectAltName ?? '';
  return [...names.matchAll(/(?:^|, )(?:DNS|URI):("(?:[^"\\]|\\.)*"|[^,]*)/g)].map((match) =>
    match[1]!.startsWith('"') ? (JSON.parse(match[1]!) as string) : match[1]!,
  );
}
