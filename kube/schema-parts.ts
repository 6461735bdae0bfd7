// Pieces of the schemas of Kubernetes resources. Each has one message of the form `expected …`, which becomes the end
// of a problem's text.

import net from 'node:net';
import { z } from 'zod';
import { parseCidr } from '#lib/ip-address.ts';
import { isPort } from './port-set.ts';

/** A value that `test` accepts. */
export function expected<T>(what: string, test: (value: unknown) => boolean): z.ZodType<T> {
  return z.custom<T>(test, `expected ${what}`);
}

const isString = (value: unknown): value is string => typeof value === 'string';
const LABEL = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/;
const SUBDOMAIN = /^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$/;
const PORT_NAME = /^(?=.{1,15}$)(?=.*[a-z])[a-z0-9]+(-[a-z0-9]+)*$/;

export const text = expected<string>('text (put it in quotes)', isString);
export const flag = expected<boolean>('true or false', (value) => typeof value === 'boolean');
export const count = expected<number>(
  'a whole number from 0',
  (value) => Number.isInteger(value) && Number(value) >= 0,
);

/** RFC 1123 label: names of namespaces and services. */
export const label = expected<string>(
  'at most 63 lower-case letters, digits and dashes',
  (value) => isString(value) && LABEL.test(value),
);
/** RFC 1123 subdomain: names of most objects. */
export const subdomain = expected<string>(
  'at most 253 lower-case letters, digits, dashes and dots',
  (value) => isString(value) && value.length <= 253 && SUBDOMAIN.test(value),
);
export const port = expected<number>('a port from 1 to 65535', (value) => typeof value === 'number' && isPort(value));
export const portName = expected<string>(
  'a port name of at most 15 lower-case letters, digits and dashes',
  (value) => isString(value) && PORT_NAME.test(value),
);
export const portOrName = expected<number | string>(
  'a port from 1 to 65535 or the name of a container port',
  (value) => (typeof value === 'number' ? isPort(value) : isString(value) && PORT_NAME.test(value)),
);
export const ip = expected<string>('an IP address', (value) => isString(value) && net.isIP(value) !== 0);
export const clusterIp = expected<string>(
  'an IP address or None',
  (value) => isString(value) && (value === '' || value === 'None' || net.isIP(value) !== 0),
);
export const cidr = expected<string>(
  'a network such as 10.0.0.0/8',
  (value) => isString(value) && parseCidr(value) !== null,
);

export function oneOf<const T extends string>(...values: T[]): z.ZodType<T> {
  return expected<T>(`one of ${values.join(', ')}`, (value) => isString(value) && (values as string[]).includes(value));
}

/** An object with these fields; others are dropped. */
export function object<Shape extends z.core.$ZodLooseShape>(shape: Shape) {
  return z.object(shape, 'expected an object');
}

export function list<T extends z.ZodType>(item: T) {
  return z.array(item, 'expected a list');
}

export const texts = z.record(z.string(), text, 'expected an object of texts');

export const labelSelector = object({
  matchLabels: texts.optional(),
  matchExpressions: list(
    object({
      key: text,
      operator: oneOf('In', 'NotIn', 'Exists', 'DoesNotExist'),
      values: list(text).optional(),
    }),
  ).optional(),
});

export const ownerReference = object({
  apiVersion: text,
  kind: text,
  name: text,
  uid: text,
  controller: flag.optional(),
});

function metadata(name: z.ZodType<string>) {
  return object({
    name,
    namespace: label.optional(),
    uid: text.optional(),
    resourceVersion: text.optional(),
    generation: count.optional(),
    creationTimestamp: text.nullish().transform((value) => value ?? undefined),
    deletionTimestamp: text.optional(),
    labels: texts.optional(),
    annotations: texts.optional(),
    ownerReferences: list(ownerReference).optional(),
  });
}

/** An object named by a subdomain. */
export const named = { apiVersion: text, kind: text, metadata: metadata(subdomain) };
/** An object named by a label. */
export const labelled = { apiVersion: text, kind: text, metadata: metadata(label) };
/** Metadata of a pod template: no name of its own. */
export const templateMetadata = object({ labels: texts.optional(), annotations: texts.optional() });
