// The `--source` option of every process that reads resources.

import { statSync } from 'node:fs';
import path from 'node:path';
import type { Clock } from '#lib/clock.ts';
import { HeddleError } from '#lib/errors.ts';
import type { Log } from '#lib/log.ts';
import { ApiServer, inClusterOptions } from './api-server.ts';
import { DirectorySource } from './directory.ts';
import { KubernetesSource } from './kubernetes.ts';
import type { ResourceSource } from './source.ts';

export interface OpenSourceOptions {
  log: Log;
  clock: Clock;
  /** Variables that tell a process in a pod where the API server is. */
  environment: (name: string) => string | undefined;
  /** Only the pods of this node; all of them without. */
  nodeName?: string;
}

/**
 * Opens `dir:<path>`, a directory of manifests, or `kubernetes`, the API server of the cluster that the process runs in.
 * Throws `bad-source` for another form and when the directory is not there (at the start that is a misspelling), and
 * `no-cluster` outside of a cluster.
 */
export function openSource(text: string, options: OpenSourceOptions): ResourceSource {
  const { log, clock, environment, nodeName } = options;
  if (text === 'kubernetes') {
    const api = new ApiServer(inClusterOptions(environment));
    const fieldSelectors = nodeName === undefined ? {} : { Pod: `spec.nodeName=${nodeName}` };
    return new KubernetesSource({ api, clock, log, fieldSelectors });
  }
  const directory = /^dir:(.+)$/.exec(text)?.[1];
  if (directory === undefined) {
    throw new HeddleError(
      'bad-source',
      `open the source "${text}": expected "kubernetes" or dir:<directory of manifests>`,
    );
  }
  const absolute = path.resolve(directory);
  if (!statSync(absolute, { throwIfNoEntry: false })?.isDirectory()) {
    throw new HeddleError('bad-source', `open the source "${text}": expected a directory at "${absolute}"`);
  }
  return new DirectorySource({ directory: absolute, log });
}
