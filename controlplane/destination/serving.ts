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
  const watching = { intervalMs: config.reloadIntervalMs, clock, log };
  if (origin.kind === 'files') {
    return watchFiles(
      { certificatePem: origin.certificate, privateKeyPem: origin.privateKey },
      watching,
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
  const anchors = watchFiles({ anchors: origin.trustAnchors }, watching, (files) => {
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
  { intervalMs, clock, log }: { intervalMs: number; clock: Clock; log: Log },
  onChange: (files: Readonly<Record<Name, string>>) => void,
): ServingSource {
  const watch = new FileWatch({
    paths,
    intervalMs,
    clock,
    onChange: (files) => {
      try {
        onChange(files);
      } catch (error) {
        log.error('files are not used', { ...paths, error: describeError(error) });
      }
    },
    onError: (error) => log.warn('files cannot be read', { error: describeError(error) }),
  });
  void watch.start();
  return { close: () => watch.close() };
}
