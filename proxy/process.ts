// The process around a worker: arguments, signals, the log's descriptor, what happens when the code itself is broken.

import { writeSync } from 'node:fs';
import { setFlagsFromString } from 'node:v8';
import { CONTROL_FD, LISTENER_FIRST_FD, LISTENER_NAMES, type ListenerName, WorkerExit } from '#api/worker-link.ts';
import { systemClock } from '#lib/clock.ts';
import { describeError } from '#lib/errors.ts';
import { releaseIdleMemory } from '#lib/idle-memory.ts';
import { createLog, type LogSink } from '#lib/log.ts';
import { parseConfig } from './config.ts';
import { originalDestination } from './original-destination.ts';
import { Worker, type WorkerOptions } from './worker.ts';

const STDERR_FD = 2;

/**
 * Lines go out by one system call each. The descriptor may be a pipe that nobody reads, which does not block: a line
 * that does not fit is lost, so that logging never holds up traffic.
 */
const stderr: LogSink = {
  write: (line) => {
    try {
      writeSync(STDERR_FD, line);
    } catch {
      // There is no place left to say so.
    }
  },
};

/** Runs the worker, or with `--check-config` only loads it. `replace` is for tests that have no redirection. */
export function main(
  args: readonly string[],
  environment: (name: string) => string | undefined,
  replace: Partial<WorkerOptions> = {},
): void {
  if (args.includes('--check-config')) return;
  // Policies bring regular expressions, peers the text: V8 gives up on backtracking and takes linear time instead.
  setFlagsFromString('--enable-experimental-regexp-engine-on-excessive-backtracks');
  const fields: Record<string, string> = {};
  const { log, setLevel } = createLog({ fields, sink: stderr });
  const fail = (error: unknown): void => {
    log.error('worker is broken: it ends', { error, reason: describeError(error) });
    process.exit(WorkerExit.failed);
  };
  process.on('uncaughtException', fail);
  process.on('unhandledRejection', fail);
  try {
    const config = parseConfig(environment);
    fields.podUid = config.podUid;
    setLevel(config.logLevel);
    const worker = new Worker({
      process: config,
      clock: systemClock,
      log,
      setLogLevel: setLevel,
      setLogFields: (more) => void Object.assign(fields, more),
      random: Math.random,
      listeners: inheritedListeners(),
      controlFd: CONTROL_FD,
      originalDestination,
      exit: (status) => process.exit(status),
      ...replace,
    });
    process.on('SIGTERM', () => worker.terminate());
    process.on('SIGINT', () => worker.terminate());
    worker.start();
    releaseIdleMemory(systemClock);
  } catch (error) {
    fail(error);
  }
}

function inheritedListeners(): Record<ListenerName, number> {
  const entries = LISTENER_NAMES.map((name, index) => [name, LISTENER_FIRST_FD + index] as const);
  return Object.fromEntries(entries) as Record<ListenerName, number>;
}
