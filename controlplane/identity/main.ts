// The identity service's process: options, source of pods, token review, signals.

import { CommanderError } from 'commander';
import { openSource } from '#kube/open.ts';
import { systemClock } from '#lib/clock.ts';
import { describeError } from '#lib/errors.ts';
import { createLog, type Log } from '#lib/log.ts';
import { type IdentityConfig, parseConfig } from './config.ts';
import { PodIndex } from './pods.ts';
import { IdentityServer } from './server.ts';
import { TokenKeys } from './token-keys.ts';
import { KeyTokenReviewer } from './tokens.ts';

async function run(config: IdentityConfig, log: Log): Promise<void> {
  const clock = systemClock;
  const stop = new AbortController();
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => stop.abort());

  const pods = new PodIndex();
  const source = openSource(config.source, { log, clock, environment: (name) => process.env[name] });
  const keys = new TokenKeys({ path: config.tokenKeys, intervalMs: config.reloadIntervalMs, clock, log });
  const reviewer = new KeyTokenReviewer({
    keys: () => keys.get(),
    issuer: config.tokenIssuer,
    isBoundPodLive: (pod) => pods.get(pod.uid)?.isLive === true,
    clock,
  });
  const server = new IdentityServer({ config, reviewer, findPod: (uid) => pods.get(uid), clock, log });

  await Promise.all([keys.start(), source.start(['Pod'], pods, stop.signal)]);
  const stopped = new Promise<void>((resolve) => {
    stop.signal.addEventListener('abort', () => resolve(), { once: true });
  });
  const started = server.start().then(({ grpc, admin }) => log.info('serving', { grpc, admin }));
  await Promise.race([started, stopped]);
  await stopped;
  log.info('stopping');
  keys.close();
  await server.close();
}

try {
  const config = parseConfig(process.argv.slice(2));
  if (!config.isCheckOnly) {
    const { log } = createLog({ level: config.logLevel, fields: { process: 'identity' } });
    await run(config, log);
  }
} catch (error) {
  // Asked for help, which was printed.
  if (error instanceof CommanderError && error.exitCode === 0) process.exit(0);
  process.stderr.write(`heddle-identity: ${describeError(error)}\n`);
  process.exitCode = 1;
}
