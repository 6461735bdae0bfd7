import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { Annotation } from '#api/names.ts';
import { parsePortRange, planRedirect, SKIP_ENTRIES_MAX } from './plan.ts';

const CONTROL = { from: 4190, to: 4191 };
const GALERA = [
  { from: 4567, to: 4567 },
  { from: 4568, to: 4568 },
];

function planOf(podAnnotations: Record<string, string>, namespaceAnnotations: Record<string, string> = {}) {
  return planRedirect({ podAnnotations, namespaceAnnotations });
}

describe('without annotations', () => {
  test('everything is redirected except what Linkerd leaves alone by default', () => {
    expect(planOf({})).toEqual({
      plan: {
        inbound: true,
        outbound: true,
        failOpen: false,
        skipInboundPorts: [CONTROL, ...GALERA],
        skipOutboundPorts: [CONTROL, ...GALERA],
        skipOutboundCidrs: [],
        skipInboundCidrs: [],
      },
      problems: [],
    });
  });
});

describe('annotations', () => {
  test('of the pod', () => {
    const { plan, problems } = planOf({
      [Annotation.skipInboundPorts]: '22, 8000-8010',
      [Annotation.skipOutboundPorts]: '3306',
      [Annotation.skipSubnets]: '10.9.0.0/16,fd00::/8',
      [Annotation.skipOutboundSubnets]: '192.0.2.0/24',
      [Annotation.onAgentDown]: 'open',
    });
    expect(problems).toEqual([]);
    // Added to the default, where the outbound list replaces it: as in Linkerd.
    expect(plan.skipInboundPorts).toEqual([CONTROL, ...GALERA, { from: 22, to: 22 }, { from: 8000, to: 8010 }]);
    expect(plan.skipOutboundPorts).toEqual([CONTROL, { from: 3306, to: 3306 }]);
    expect(plan.skipOutboundCidrs).toEqual(['192.0.2.0/24']);
    expect(plan.skipInboundCidrs).toEqual(['10.9.0.0/16', 'fd00::/8']);
    expect(plan.failOpen).toBe(true);
  });

  test('of the namespace count where the pod has none, and an empty one of the pod takes them back', () => {
    const namespace = { [Annotation.skipOutboundPorts]: '25', [Annotation.onAgentDown]: 'open' };
    expect(planOf({}, namespace).plan.skipOutboundPorts).toEqual([CONTROL, { from: 25, to: 25 }]);
    expect(planOf({}, namespace).plan.failOpen).toBe(true);
    const pod = { [Annotation.skipOutboundPorts]: '', [Annotation.onAgentDown]: 'closed' };
    expect(planOf(pod, namespace).plan.skipOutboundPorts).toEqual([CONTROL]);
    expect(planOf(pod, namespace).plan.failOpen).toBe(false);
  });
});

describe('what is not understood', () => {
  test.each([
    [Annotation.skipInboundPorts, '80,http', 'http', 'expected ports from 1 to 65535'],
    [Annotation.skipInboundPorts, '70000', '70000', 'expected ports from 1 to 65535'],
    [Annotation.skipOutboundPorts, '0', '0', 'expected ports from 1 to 65535'],
    [Annotation.skipOutboundPorts, '90-80', '90-80', 'expected ports from 1 to 65535'],
    [Annotation.skipSubnets, '10.0.0.0/33', '10.0.0.0/33', 'expected networks such as "10.0.0.0/8"'],
    [Annotation.skipSubnets, 'fd00::/8,office', 'office', 'expected networks such as "10.0.0.0/8"'],
    [Annotation.onAgentDown, 'maybe', 'maybe', 'expected "closed" or "open"'],
  ])('%s: "%s"', (annotation, value, entry, remedy) => {
    const { problems } = planOf({ [annotation]: value });
    expect(problems).toHaveLength(1);
    expect(problems[0]!.code).toBe('bad-annotation');
    expect(problems[0]!.message).toContain(`read annotation "${annotation}" with "${entry}": ${remedy}`);
  });

  test('leaves the rest in effect', () => {
    const { plan, problems } = planOf({
      [Annotation.skipInboundPorts]: '80,http,81',
      [Annotation.skipSubnets]: 'nowhere,10.0.0.0/8',
      [Annotation.onAgentDown]: '?',
    });
    expect(problems).toHaveLength(3);
    expect(plan.skipInboundPorts).toEqual([CONTROL, ...GALERA, { from: 80, to: 80 }, { from: 81, to: 81 }]);
    expect(plan.skipInboundCidrs).toEqual(['10.0.0.0/8']);
    expect(plan.failOpen).toBe(false);
  });

  test('too many entries end at the bound', () => {
    const value = Array.from({ length: SKIP_ENTRIES_MAX + 1 }, (_, index) => index + 1).join(',');
    const { plan, problems } = planOf({ [Annotation.skipInboundPorts]: value });
    expect(plan.skipInboundPorts).toHaveLength(1 + GALERA.length + SKIP_ENTRIES_MAX);
    expect(problems.map(({ message }) => message)).toEqual([
      `read annotation "${Annotation.skipInboundPorts}" with "${SKIP_ENTRIES_MAX + 1} entries": expected at most ${SKIP_ENTRIES_MAX}`,
    ]);
  });

  test('never throws and never yields a port that is none', () => {
    fc.assert(
      fc.property(fc.string(), fc.string(), (ports, networks) => {
        const { plan } = planOf({ [Annotation.skipInboundPorts]: ports, [Annotation.skipSubnets]: networks });
        for (const { from, to } of plan.skipInboundPorts) {
          expect(from >= 1 && from <= to && to <= 65535).toBe(true);
        }
      }),
    );
  });
});

test('every port survives as text', () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 65535 }), fc.nat(65535), (from, length) => {
      const to = Math.min(65535, from + length);
      expect(parsePortRange(`${from}-${to}`)).toEqual({ from, to });
      expect(parsePortRange(String(from))).toEqual({ from, to: from });
    }),
  );
});
