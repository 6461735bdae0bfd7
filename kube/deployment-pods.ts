// The pods that a Deployment would have, named as a ReplicaSet names them: `<deployment>-<template hash>-<suffix>`. The
// suffix counts the replica and is the same each time, so that a runner finds its pods again.

import type { Deployment, Pod } from './resources.ts';
import { nameHash, uidOf } from './uid.ts';

const HASH_LENGTH = 10;
const SUFFIX_LENGTH = 5;

/** Pods of the present template; without a status, which a runner adds. */
export function podsOfDeployment({ metadata, spec }: Deployment): Pod[] {
  const namespace = metadata.namespace ?? 'default';
  const hash = nameHash(spec.template, HASH_LENGTH);
  const replicaSet = `${metadata.name}-${hash}`;
  const owner = {
    apiVersion: 'apps/v1',
    kind: 'ReplicaSet',
    name: replicaSet,
    uid: uidOf('ReplicaSet', { namespace, name: replicaSet }),
    controller: true,
  };
  return Array.from({ length: spec.replicas ?? 1 }, (_, index) => {
    const name = `${replicaSet}-${nameHash([replicaSet, index], SUFFIX_LENGTH)}`;
    return {
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: {
        name,
        namespace,
        uid: uidOf('Pod', { namespace, name }),
        labels: { ...spec.template.metadata?.labels, 'pod-template-hash': hash },
        annotations: { ...spec.template.metadata?.annotations },
        ownerReferences: [owner],
      },
      spec: spec.template.spec,
    };
  });
}
