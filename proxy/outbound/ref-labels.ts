// Labels that name the configuration a series belongs to: `parent_*`, `route_*`, `backend_*`.

import type { Labels } from '../observe/recorder.ts';
import type { MetaRef } from './policy.ts';

export function parentLabels(ref: MetaRef): Labels {
  return {
    parent_group: ref.group,
    parent_kind: ref.kind,
    parent_namespace: ref.namespace,
    parent_name: ref.name,
    parent_port: ref.port,
    parent_section_name: ref.section,
  };
}

export function routeLabels(ref: MetaRef): Labels {
  return {
    route_group: ref.group,
    route_kind: ref.kind,
    route_namespace: ref.namespace,
    route_name: ref.name,
  };
}

export function backendLabels(ref: MetaRef): Labels {
  return {
    backend_group: ref.group,
    backend_kind: ref.kind,
    backend_namespace: ref.namespace,
    backend_name: ref.name,
    backend_port: ref.port,
    backend_section_name: ref.section,
  };
}
