// The agent's process: options, signals, exit status. SIGTERM ends the agent and nothing else of the mesh.

import path from 'node:path';
import { systemClock } from '#lib/clock.ts';
import { describeError } from '#lib/errors.ts';
import { createLog } from '#lib/log.ts';
import { type AgentConfig, parseConfig } from './config.ts';
import { confine } from './privileges.ts';

const sourceRoot = path.resolve(import.meta.dirname, '..');

/** Not an error, but not the end either: uninstall again when the pods are gone. As `agent/cni/main.ts` has it. */
const PLUGIN_STAYS = 3;

async function run(config: AgentConfig): Promise<void> {
  const { log } = createLog({ level: config.logLevel, fields: { process: 'agent', node: config.nodeName } });
  if (!config.isUninstall) confine(process.env, log);
  // The rest is loaded once: behind the point where the process is executed again.
  const { Agent, uninstall } = await import('./agent.ts');
  if (config.isUninstall) {
    if (!(await uninstall(config, log))) process.exitCode = PLUGIN_STAYS;
    return;
  }
  const stopped = new Promise<string>((resolve) => {
    for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => resolve(signal));
  });
  const agent = await Agent.start({
    config,
    sourceRoot,
    environment: (name) => process.env[name],
    clock: systemClock,
    log,
  });
  log.info('stopping', { signal: await stopped });
  await agent.stop();
}

try {
  const config = parseConfig(process.argv.slice(2), sourceRoot);
  if (!config.isCheckOnly) await run(config);
} catch (error) {
  process.stderr.write(`heddle-agent: ${describeError(error)}\n`);
  process.exitCode = 1;
}
