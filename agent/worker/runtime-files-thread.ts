// Reads the files of a runtime in a thread of its own: stripping types loads a compiler of some 30 MiB, which goes with
// the thread instead of staying in the agent for ever.

import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import { HeddleError } from '#lib/errors.ts';
import { type RuntimeFile, runtimeFiles } from './runtime-files.ts';

/** As {@link runtimeFiles}. Throws `runtime-failed` when the thread does. */
export async function readRuntimeFiles(sourceRoot: string): Promise<RuntimeFile[]> {
  const thread = new Worker(import.meta.filename, {
    workerData: { readRuntimeFiles: sourceRoot },
    execArgv: ['--disable-warning=ExperimentalWarning'],
  });
  return await new Promise((resolve, reject) => {
    thread.once('message', (files: { name: string; content: Uint8Array }[]) => {
      resolve(files.map(({ name, content }) => ({ name, content: Buffer.from(content.buffer) })));
    });
    thread.once('error', (cause) => {
      reject(new HeddleError('runtime-failed', `read the sources in "${sourceRoot}"`, { cause }));
    });
    thread.once('exit', () => reject(new HeddleError('runtime-failed', `read the sources in "${sourceRoot}"`)));
  });
}

if (!isMainThread && typeof workerData?.readRuntimeFiles === 'string') {
  // Each in memory of its own: small buffers share a pool that would be copied with them.
  const files = runtimeFiles(workerData.readRuntimeFiles).map(({ name, content }) => ({
    name,
    content: Uint8Array.from(content),
  }));
  parentPort!.postMessage(files);
}
