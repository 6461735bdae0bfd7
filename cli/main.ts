// `heddle`: the command line. Each command lives in a file of its own; errors are one line on standard error, status 1.

import { Command, CommanderError } from 'commander';
import { describeError } from '#lib/errors.ts';
import packageJson from '../package.json' with { type: 'json' };
import { identityCommand } from './identity.ts';

function createProgram(): Command {
  return new Command('heddle')
    .description('A service mesh whose proxies live on the node.')
    .option('--check-config', 'load everything and exit')
    .exitOverride()
    .addCommand(
      new Command('version').description('print the version of this command line').action(() => {
        process.stdout.write(`heddle ${packageJson.version}\n`);
      }),
    )
    .addCommand(identityCommand())
    .argument('[command]')
    .action((name: string | undefined, options: { checkConfig?: boolean }, command: Command) => {
      if (name !== undefined) command.error(`heddle: unknown command "${name}": see heddle --help`);
      if (!options.checkConfig) command.help({ error: true });
    });
}

try {
  await createProgram().parseAsync(process.argv);
} catch (error) {
  // Commander has printed its own errors; help and version end with status 0.
  if (error instanceof CommanderError) process.exitCode = error.exitCode;
  else {
    process.stderr.write(`heddle: ${describeError(error)}\n`);
    process.exitCode = 1;
  }
}
