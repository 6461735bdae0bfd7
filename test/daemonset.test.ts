// The DaemonSet says what the agent understands, and asks for no more than it uses.

import { readFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, test } from 'vitest';
import { parseAllDocuments } from 'yaml';
import { parseConfig } from '#agent/config.ts';

const root = path.resolve(import.meta.dirname, '..');
const documents = parseAllDocuments(readFileSync(path.join(root, 'daemonset/agent.yaml'), 'utf8')).map(
  (document) => document.toJS() as { kind: string; metadata: { name: string }; [key: string]: unknown },
);

interface PodSpec {
  containers: {
    args: string[];
    securityContext: { privileged: boolean; capabilities: { add: string[]; drop: string[] } };
    volumeMounts: { name: string; mountPath: string }[];
  }[];
  volumes: { name: string }[];
}

const daemonSet = documents.find(({ kind }) => kind === 'DaemonSet') as unknown as {
  spec: { template: { spec: PodSpec } };
};
const { containers, volumes } = daemonSet.spec.template.spec;
const agent = containers[0]!;

describe('daemonset/agent.yaml', () => {
  test('passes arguments that the agent takes', () => {
    const args = agent.args.map((argument) => argument.replace('$(NODE_NAME)', 'node-1'));
    expect(parseConfig(args, '/opt/heddle')).toMatchObject({ nodeName: 'node-1', source: 'kubernetes' });
  });

  test('is not privileged and names each capability', () => {
    expect(agent.securityContext.privileged).toBe(false);
    expect(agent.securityContext.capabilities.drop).toEqual(['ALL']);
    expect(agent.securityContext.capabilities.add).not.toContain('ALL');
  });

  test('mounts only volumes that it has, and has only volumes that it mounts', () => {
    const mounted = agent.volumeMounts.map(({ name }) => name).sort();
    expect(mounted).toEqual(volumes.map(({ name }) => name).sort());
  });

  test('reads pods and namespaces and may change nothing', () => {
    const role = documents.find(({ kind }) => kind === 'ClusterRole') as unknown as {
      rules: { resources: string[]; verbs: string[] }[];
    };
    expect(role.rules.flatMap(({ verbs }) => verbs).filter((verb) => !['list', 'watch'].includes(verb))).toEqual([]);
    expect(role.rules.flatMap(({ resources }) => resources).sort()).toEqual(['namespaces', 'pods']);
  });
});
