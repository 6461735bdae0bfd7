// The names of a cluster, after Kubernetes' DNS specification (v1.1.0): a Service's name is its ClusterIPs, a headless
// one's its ready endpoints, `<hostname>.<service>` one of those, `<a-b-c-d>.<namespace>.pod` that address. An index:
// fed by a source, asked by the server.

import type { EndpointSlice, Kind, KubeObject, Service } from '#kube/resources.ts';
import type { ObjectKey, ResourceSink } from '#kube/source.ts';
import { isIpv4, parseIp } from '#lib/ip-address.ts';
import { CLASS_IN, type Question, RecordType, ResponseCode } from './message.ts';

/** Kinds the zone wants from its source. */
export const ZONE_KINDS: readonly Kind[] = ['Service', 'EndpointSlice'];

export interface Lookup {
  code: ResponseCode;
  addresses: Buffer[];
}

const SERVICE_NAME_LABEL = 'kubernetes.io/service-name';
const NOT_FOUND: Lookup = { code: ResponseCode.nameError, addresses: [] };

export class Zone implements ResourceSink {
  readonly #domain: string[];
  readonly #services = new Map<string, Service>();
  readonly #slices = new Map<string, EndpointSlice>();

  /** `clusterDomain` as in `cluster.local`. */
  constructor(clusterDomain: string) {
    this.#domain = clusterDomain.toLowerCase().split('.');
  }

  reset(kind: Kind, objects: readonly KubeObject[]): void {
    if (kind === 'Service') this.#services.clear();
    if (kind === 'EndpointSlice') this.#slices.clear();
    for (const object of objects) this.apply(kind, object);
  }

  apply(kind: Kind, object: KubeObject): void {
    const { namespace = '', name } = object.metadata;
    if (kind === 'Service') this.#services.set(keyOf({ namespace, name }), object as Service);
    if (kind === 'EndpointSlice') this.#slices.set(keyOf({ namespace, name }), object as EndpointSlice);
  }

  delete(kind: Kind, key: ObjectKey): void {
    if (kind === 'Service') this.#services.delete(keyOf(key));
    if (kind === 'EndpointSlice') this.#slices.delete(keyOf(key));
  }

  /** Names outside the cluster are refused: nobody is asked on behalf of a pod. */
  lookup({ name, type, class: recordClass }: Question): Lookup {
    const labels = name.split('.');
    const split = labels.length - this.#domain.length;
    const isOurs = split >= 0 && this.#domain.every((label, index) => labels[split + index] === label);
    if (!isOurs || recordClass !== CLASS_IN) return { code: ResponseCode.refused, addresses: [] };
    const all = this.#addresses(labels.slice(0, split));
    if (!all) return NOT_FOUND;
    const addresses = all.flatMap((text) => toRecord(text, type) ?? []);
    return { code: ResponseCode.noError, addresses };
  }

  /** Every address of the name, of both families; null when there is no such name. */
  #addresses(labels: string[]): string[] | null {
    const kind = labels.at(-1);
    const namespace = labels.at(-2);
    if (namespace === undefined) return kind === undefined || kind === 'svc' || kind === 'pod' ? [] : null;
    const rest = labels.slice(0, -2);
    if (kind === 'pod' && rest.length === 1) return podAddress(rest[0]!);
    if (kind !== 'svc' || rest.length === 0 || rest.length > 2) return null;
    const service = this.#services.get(keyOf({ namespace, name: rest.at(-1)! }));
    if (!service) return null;
    if (rest.length === 2) return this.#hostAddresses(service, rest[0]!);
    return this.#serviceAddresses(service);
  }

  #serviceAddresses(service: Service): string[] | null {
    const { clusterIP, clusterIPs } = service.spec;
    const own = clusterIPs ?? (clusterIP ? [clusterIP] : []);
    if (own.length > 0 && own[0] !== 'None') return own;
    const ready = this.#endpoints(service).flatMap((endpoint) => endpoint.addresses);
    // Without endpoints there is no record, hence no name: who waits for a service waits for its name.
    return ready.length > 0 ? [...new Set(ready)] : null;
  }

  #hostAddresses(service: Service, hostname: string): string[] | null {
    const named = this.#endpoints(service).filter((endpoint) => endpoint.hostname === hostname);
    return named.length > 0 ? named.flatMap((endpoint) => endpoint.addresses) : null;
  }

  /** Ready endpoints, or all of them where the Service publishes those that are not. */
  #endpoints({ metadata, spec }: Service): NonNullable<EndpointSlice['endpoints']> {
    return [...this.#slices.values()]
      .filter(
        (slice) =>
          slice.metadata.namespace === metadata.namespace &&
          slice.metadata.labels?.[SERVICE_NAME_LABEL] === metadata.name,
      )
      .flatMap((slice) => slice.endpoints ?? [])
      .filter((endpoint) => spec.publishNotReadyAddresses === true || endpoint.conditions?.ready !== false);
  }
}

function keyOf({ namespace, name }: ObjectKey): string {
  return `${namespace}/${name}`;
}

/** `10-0-0-1` and `fd00--1`: the address with dashes for its separators; such names exist without a pod. */
function podAddress(label: string): string[] | null {
  const isDotted = /^\d+-\d+-\d+-\d+$/.test(label);
  const text = label.replaceAll('-', isDotted ? '.' : ':');
  return parseIp(text) ? [text] : null;
}

function toRecord(text: string, type: number): Buffer | null {
  const bytes = parseIp(text);
  if (!bytes) return null;
  const isV4 = isIpv4(bytes);
  if (type === RecordType.a) return isV4 ? bytes.subarray(12) : null;
  if (type === RecordType.aaaa) return isV4 ? null : bytes;
  return null;
}
