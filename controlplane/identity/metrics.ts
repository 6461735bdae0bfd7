// What the identity service counts. `issuer_cert_ttl_seconds` carries Linkerd's name, since alerts are written on it.

import { Counter, collectDefaultMetrics, Gauge, Registry } from 'prom-client';
import type { Issuer, IssuerEvent } from './issuer.ts';

export interface IdentityMetrics {
  registry: Registry;
  outcome(outcome: string, way: string): void;
  issuerEvent(event: IssuerEvent): void;
  /** Reads the issuer at scrape time. */
  watchIssuer(issuer: Issuer, wallMs: () => number): void;
}

export function createIdentityMetrics(): IdentityMetrics {
  const registry = new Registry();
  collectDefaultMetrics({ register: registry });
  const certify = new Counter({
    name: 'heddle_identity_certify_total',
    help: 'Certify calls by outcome: issued, or the code of the refusal.',
    labelNames: ['outcome', 'way'],
    registers: [registry],
  });
  const events = new Counter({
    name: 'heddle_identity_issuer_events_total',
    help: 'IssuerUpdated, IssuerUpdateSkipped and IssuerValidationFailed.',
    labelNames: ['event'],
    registers: [registry],
  });
  return {
    registry,
    outcome: (outcome, way) => certify.inc({ outcome, way }),
    issuerEvent: (event) => events.inc({ event }),
    watchIssuer: (issuer, wallMs) => {
      new Gauge({
        name: 'issuer_cert_ttl_seconds',
        help: 'Seconds until the issuer chain expires.',
        registers: [registry],
        collect() {
          const authority = issuer.authority;
          if (authority) this.set((authority.notAfterMs - wallMs()) / 1000);
        },
      });
    },
  };
}
