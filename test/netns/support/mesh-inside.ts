// The first process of a lab's namespaces (mesh-lab.ts): makes them a node and does what it is told. When it ends,
// however it ends, the kernel ends everything in there.

import { execFileSync } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { enterNode } from '../../../demo/machine/inside.ts';
import { answerCommands } from './channel.ts';
import { MeshNode, type MeshNodeOptions } from './mesh-node.ts';
import { PodPrograms } from './pod-programs.ts';

/** `target` names the object, `method` one of its methods. */
export interface LabCommand {
  target: 'node' | 'programs';
  method: string;
  args: unknown[];
}

enterNode();
mkdirSync('/run/netns', { recursive: true });
execFileSync('mount', ['-t', 'tmpfs', 'heddle-lab', '/run/netns']);
const targets: Record<LabCommand['target'], object> = {
  node: new MeshNode(JSON.parse(process.argv[2]!) as MeshNodeOptions),
  programs: new PodPrograms(),
};

answerCommands(({ target, method, args }: LabCommand) => {
  const object = targets[target] as Record<string, (...args: unknown[]) => unknown>;
  return object[method]!(...args);
});
