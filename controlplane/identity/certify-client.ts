// A control-plane process's own serving certificate: obtained from the identity service with the process's
// ServiceAccount token, as any workload's is, and renewed while it runs.

import { readFile } from 'node:fs/promises';
import { IdentityDefinition } from '#api/gen/identity.ts';
import { type IdentityParts, identityName } from '#api/names.ts';
import type { Clock } from '#lib/clock.ts';
import { HeddleError } from '#lib/errors.ts';
import { GrpcClient } from '#lib/grpc/client.ts';
import type { Log } from '#lib/log.ts';
import { ServingCertificate } from './serving-certificate.ts';

const CALL_TIMEOUT_MS = 10_000;

export interface CertifyClientOptions {
  /** `host:port` of the identity service. */
  address: string;
  /** The identity service's own identity. */
  serverIdentity: string;
  /** PEM trust anchors as they are now. */
  trustAnchorsPem: () => string;
  /** File of the process's token; read again for each request, since tokens are exchanged on disk. */
  tokenPath: string;
  /** Whose certificate it is. */
  self: IdentityParts;
  clock: Clock;
  log: Log;
}

/** Starts with `renew()`, which also begins the renewals; `close()` ends them and the connection. */
export function createCertifiedIdentity(options: CertifyClientOptions): ServingCertificate & Disposable {
  const client = new GrpcClient({
    address: options.address,
    tls: { serverIdentity: options.serverIdentity, trustAnchorsPem: options.trustAnchorsPem },
  });
  const identity = identityName(options.self);
  const certificate = new ServingCertificate({
    identity,
    certify: async (request) => {
      const { certify } = IdentityDefinition.methods;
      const message = { identity, token: await readToken(options.tokenPath), certificateSigningRequest: request };
      return await client.call(IdentityDefinition, certify, message, { timeoutMs: CALL_TIMEOUT_MS });
    },
    clock: options.clock,
    log: options.log,
  });
  return Object.assign(certificate, {
    [Symbol.dispose]: () => {
      certificate.close();
      client.close();
    },
  });
}

async function readToken(path: string): Promise<Buffer> {
  try {
    return Buffer.from((await readFile(path, 'utf8')).trim());
  } catch (cause) {
    throw new HeddleError('read-token', `read the token "${path}": expected a ServiceAccount token`, { cause });
  }
}
