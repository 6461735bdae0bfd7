// Label selectors (Kubernetes API conventions, "Label selectors"): all requirements must hold, and a selector without
// any matches everything.

import type { LabelSelector } from './resources.ts';

type Labels = Record<string, string> | undefined;

/** True when every label of `wanted` is there with that value. */
export function matchesLabels(wanted: Record<string, string>, labels: Labels): boolean {
  return Object.entries(wanted).every(([key, value]) => labels?.[key] === value);
}

export function matchesSelector(selector: LabelSelector, labels: Labels): boolean {
  return (
    matchesLabels(selector.matchLabels ?? {}, labels) &&
    (selector.matchExpressions ?? []).every(({ key, operator, values = [] }) => {
      const value = labels?.[key];
      switch (operator) {
        case 'In':
          return value !== undefined && values.includes(value);
        case 'NotIn':
          return value === undefined || !values.includes(value);
        case 'Exists':
          return value !== undefined;
        case 'DoesNotExist':
          return value === undefined;
        default:
          return false;
      }
    })
  );
}
