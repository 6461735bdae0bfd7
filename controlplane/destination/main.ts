// The destination and policy service's process: options, source of resources, signals.

import { CommanderError } from 'commander';
import { openSource } from '#kube/open.ts';
import { systemClock } from '#lib/clock.ts';
import { describeError } from '#lib/errors.ts';
import { createLog, type Log } from '#lib/log.ts';
import { type DestinationConfig, parseConfig } from './config.ts';
import { DestinationProcess } from './process.ts';

async function run(config: DestinationConfig, log: Log): Promise<void> {
  const stopped = new Promise<void>((resolve) => {
    for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => resolve());
  });
  const service = new DestinationProcess({
    config,
    source: openSource(config.source, { log, clock: systemClock, environment: (name) => process.env[name] }),
    clock: systemClock,
    log,
  });
  try {
    const started = service.start().then((addresses) => log.info('serving', { ...addresses }));
    await Promise.race([started, stopped]);
    await stopped;
    log.info('stopping');
  } finally {
    await service.close();
  }
}

try {
  const config = parseConfig(process.argv.slice(2));
  if (!config.isCheckOnly) {
    const { log } = createLog({ level: config.logLevel, fields: { process: 'destination' } });
    await run(config, log);
  }
} catch (error) {
  // Asked for help, which was printed.
  if (error instanceof CommanderError && error.exitCode === 0) process.exit(0);
  process.stderr.write(`heddle-destination: ${describeError(error)}\n`);
  process.exitCode = 1;
}
