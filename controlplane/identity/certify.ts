// One Certify call from request to certificate: the checks in Linkerd's order, each refusal with its gRPC status, one
// audit line for every certificate issued and, within a rate, for every refusal.

import type { CertifyRequest, CertifyResponse } from '#api/gen/identity.ts';
import type { Clock } from '#lib/clock.ts';
import { describeError } from '#lib/errors.ts';
import { Status } from '#lib/grpc/status.ts';
import type { Log } from '#lib/log.ts';
import type { Authorizer, Grant } from './authorize.ts';
import type { CertificateAuthority, Leaf } from './ca.ts';
import { type CertificateRequest, checkRequestedNames, parseCertificateRequest } from './csr.ts';
import type { Issuer } from './issuer.ts';
import { RateLimit } from './rate-limit.ts';
import { Refusal } from './refusal.ts';

export interface CertifierOptions {
  issuer: Issuer;
  authorizer: Authorizer;
  leafLifetimeMs: number;
  /** Requests under way at once; more are told to come again. */
  concurrencyMax: number;
  clock: Clock;
  log: Log;
  /** `issued`, or the code of the refusal. */
  onOutcome: (outcome: string, way: Grant['way'] | 'none') => void;
}

/** Audit lines for refusals: a caller with a bad token must not be able to fill a disk. */
const REFUSAL_LOG_RATE = { perSecond: 20, burst: 100, keysMax: 1 };

export class Certifier {
  readonly #options: CertifierOptions;
  readonly #refusalLog = new RateLimit(REFUSAL_LOG_RATE);
  #underWay = 0;

  constructor(options: CertifierOptions) {
    this.#options = options;
  }

  /**
   * Issues a certificate. `podUid` is the metadata of a relayed request, null without. Throws {@link Refusal}, or what the
   * issuer's validation threw when it does not verify any more.
   */
  async certify(request: CertifyRequest, podUid: string | null): Promise<CertifyResponse> {
    if (this.#underWay >= this.#options.concurrencyMax) {
      this.#options.onOutcome('overload', 'none');
      throw new Refusal(Status.resourceExhausted, 'overload', 'certify: too many requests at once, try again later');
    }
    this.#underWay++;
    try {
      return await this.#certify(request, podUid);
    } catch (error) {
      const code = error instanceof Refusal ? error.code : 'issuer-invalid';
      this.#options.onOutcome(code, 'none');
      if (this.#refusalLog.take('', this.#options.clock.nowMs())) {
        this.#options.log.warn('certificate refused', {
          event: 'RefusedLeafCertificate',
          identity: request.identity.slice(0, 512),
          podUid,
          code,
          reason: describeError(error),
        });
      }
      throw error;
    } finally {
      this.#underWay--;
    }
  }

  async #certify(request: CertifyRequest, podUid: string | null): Promise<CertifyResponse> {
    const { issuer, authorizer, clock, leafLifetimeMs } = this.#options;
    const authority = issuer.authority;
    if (!authority) throw new Refusal(Status.unavailable, 'no-issuer', 'certify: no issuer is loaded yet');
    const csr = parseRequest(request, podUid);
    this.#requireValid(authority);
    checkRequestedNames(csr, request.identity);
    const token = Buffer.from(request.token).toString('latin1');
    const grant = await authorizer.authorize({ identity: request.identity, token, podUid });
    const leaf = authority.signLeaf(csr.publicKeyDer, grant.identity, leafLifetimeMs, clock.wallMs());
    this.#audit(request.identity, grant, leaf);
    this.#options.onOutcome('issued', grant.way);
    return {
      leafCertificate: leaf.der,
      intermediateCertificates: [...authority.intermediates],
      validUntil: { seconds: BigInt(Math.floor(leaf.notAfterMs / 1000)), nanos: 0 },
    };
  }

  #requireValid(authority: CertificateAuthority): void {
    try {
      authority.verify(this.#options.clock.wallMs());
    } catch (error) {
      this.#options.issuer.reportInvalid(error);
      throw error;
    }
  }

  #audit(identity: string, grant: Grant, leaf: Leaf): void {
    this.#options.log.info('certificate issued', {
      event: 'IssuedLeafCertificate',
      identity,
      way: grant.way,
      caller: grant.caller,
      node: grant.node,
      pod: grant.pod,
      podUid: grant.podUid,
      serial: leaf.serialHex,
      notAfter: new Date(leaf.notAfterMs).toISOString(),
    });
  }
}

function parseRequest(request: CertifyRequest, podUid: string | null): CertificateRequest {
  for (const [field, isMissing] of [
    ['identity', request.identity === ''],
    ['token', request.token.length === 0],
    ['certificate_signing_request', request.certificateSigningRequest.length === 0],
    ['the metadata heddle-pod-uid', podUid === ''],
  ] as const) {
    if (isMissing) throw new Refusal(Status.invalidArgument, 'missing-field', `certify: expected ${field} to be set`);
  }
  try {
    return parseCertificateRequest(request.certificateSigningRequest);
  } catch (error) {
    throw new Refusal(Status.invalidArgument, 'bad-csr', describeError(error), error);
  }
}
