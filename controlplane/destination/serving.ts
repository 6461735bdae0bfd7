// The certificate that the destination and policy services serve with: issued by the identity service as a workload's
// is, or read from files. Both may change while the process runs.

import { identityName } from '#api/names.ts';
import type { Clock } from '#lib/clock.ts';
import { describeError } from '#lib/errors.ts';
import type { KeyMaterial } from '#lib/grpc/tls.ts';
import type { Log } from '#lib/log.ts';
import { createCertifiedIdentity } from '../identity/certify-client.ts';
import { FileWatch } from '../identity/file-watch.ts';
import type { DestinationConfig } from './config.ts';

const FILES_INTERVAL_MS = 10_000;
/** Until the first certificate is there, an installation is probably still writing the files. */
const FIRST_INTERVAL_MS = 500;

export interface ServingSource {
  close(): void;
}

/** Calls back with each certificate; trouble is logged and tried again. */
export function watchServingCertificate(
  config: DestinationConfig,
  clock: Clock,
  log: Log,
  onCertificate: (material: KeyMaterial) => void,
): ServingSource {
  const origin = config.certificate;
  if (origin.kind === 'files') {
    return watchFiles(
      { certificatePem: origin.certificate, privateKeyPem: origin.privateKey },
      clock,
      log,
      onCertificate,
    );
  }
  const { controlPlaneNamespace, trustDomain } = config.mesh;
  const parts = { namespace: controlPlaneNamespace, controlPlaneNamespace, trustDomain };
  let anchorsPem = '';
  const identity = createCertifiedIdentity({
    address: origin.address,
    serverIdentity: identityName({ ...parts, serviceAccount: origin.identityServiceAccount }),
    trustAnchorsPem: () => anchorsPem,
    tokenPath: origin.tokenFile,
    self: { ...parts, serviceAccount: origin.serviceAccount },
    clock,
    log,
  });
  identity.onChange(onCertificate);
  const anchors = watchFiles({ anchors: origin.trustAnchors }, clock, log, (files) => {
    const isFirst = anchorsPem === '';
    anchorsPem = files.anchors;
    if (isFirst) void identity.renew();
  });
  return {
    close: () => {
      anchors.close();
      identity[Symbol.dispose]();
    },
  };
}

function watchFiles<Name extends string>(
  paths: Record<Name, string>,
  clock: Clock,
  log: Log,
  onChange: (files: Readonly<Record<Name, string>>) => void,
): ServingSource {
  let watch: FileWatch<Name> | null = null;
  const start = (intervalMs: number) => {
    watch?.close();
    watch = new FileWatch({
      paths,
      intervalMs,
      clock,
      onChange: (files) => {
        try {
          onChange(files);
        } catch (error) {
          log.error('files are not used', { ...paths, error: describeError(error) });
        }
        if (intervalMs === FIRST_INTERVAL_MS) start(FILES_INTERVAL_MS);
      },
      onError: (error) => log.warn('files cannot be read', { error: describeError(error) }),
    });
    void watch.start();
  };
  start(FIRST_INTERVAL_MS);
  return { close: () => watch?.close() };
}
