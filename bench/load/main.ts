// The benchmark's own load generators as a program, because the load comes from a network namespace: prints one result
// as JSON.

import { Command } from 'commander';
import { runGrpcStreams } from './grpc-stream.ts';
import { runNewConnections } from './new-connections.ts';
import { runOpenLoop } from './open-loop.ts';
import type { LoadResult } from './result.ts';

const command = new Command('load')
  .argument('<kind>', 'open-loop, new-connections or grpc-stream')
  .requiredOption('--host <address>')
  .requiredOption('--port <number>', '', Number)
  .requiredOption('--seconds <number>', '', Number)
  .requiredOption('--connections <number>', '', Number)
  .option('--rate <number>', 'requests per second of the open loop', Number)
  .option('--streams <number>', 'streams per connection', Number)
  .option('--check-config', 'check the arguments and exit');

async function run(argv: string[]): Promise<LoadResult | null> {
  if (argv.includes('--check-config')) return null;
  command.parse(argv, { from: 'user' });
  const options = command.opts<{
    host: string;
    port: number;
    seconds: number;
    connections: number;
    rate?: number;
    streams?: number;
  }>();
  switch (command.args[0]) {
    case 'open-loop':
      return await runOpenLoop({ ...options, ratePerSecond: options.rate ?? 1000 });
    case 'new-connections':
      return await runNewConnections(options);
    case 'grpc-stream':
      return await runGrpcStreams({ ...options, streamsPerConnection: options.streams ?? 1 });
    default:
      throw new Error(`unknown kind "${command.args[0]}": expected open-loop, new-connections or grpc-stream`);
  }
}

try {
  const result = await run(process.argv.slice(2));
  if (result !== null) process.stdout.write(`${JSON.stringify(result)}\n`);
} catch (error) {
  console.error(`load: ${(error as Error).message}`);
  process.exitCode = 1;
}
