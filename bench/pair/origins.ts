// Everything that answers at the server's end: nginx, a gRPC echo, and iperf3.

import path from 'node:path';
import { type Program, startProgram } from '../program.ts';
import { startOrigin } from './origin.ts';
import { ROUTES } from './system.ts';

/** Starts all of them in a namespace. */
export async function startOrigins(netns: string, directory: string): Promise<Program[]> {
  const start = (name: string, port: number, argv: string[]) =>
    startProgram({ name, netns, argv, listens: { host: '0.0.0.0', port } });
  const grpc = path.join(import.meta.dirname, 'grpc-origin.ts');
  const { grpc: grpcRoute, throughput } = ROUTES;
  return [
    await startOrigin(netns, directory),
    await start('grpc origin', grpcRoute.originPort, [process.execPath, grpc, String(grpcRoute.originPort)]),
    await start('iperf3', throughput.originPort, ['iperf3', '-s', '-p', String(throughput.originPort)]),
  ];
}
