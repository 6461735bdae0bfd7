// Values that appear all over the messages of the policy API: references, durations; and the error for a bad one.

import type { Duration } from '#api/gen/google/protobuf/duration.ts';
import type { Metadata } from '#api/gen/meta.ts';
import { HeddleError } from '#lib/errors.ts';
import { defaultRef, type MetaRef } from './policy.ts';

export function translateRef(metadata: Metadata | undefined): MetaRef {
  const kind = metadata?.kind;
  if (kind?.$case !== 'resource') return defaultRef(kind?.value ?? '');
  const { group, kind: resourceKind, namespace, name, port, section } = kind.value;
  return { group, kind: resourceKind, namespace, name, port: port === 0 ? '' : String(port), section };
}

/** Milliseconds; null where the message is absent. */
export function translateDuration(duration: Duration | undefined): number | null {
  return duration ? Number(duration.seconds) * 1000 + duration.nanos / 1e6 : null;
}

export function invalid(field: string, value: string, expected: string): HeddleError {
  return new HeddleError(
    'invalid-policy',
    `read outbound policy, field "${field}" with "${value}": expected ${expected}`,
  );
}
