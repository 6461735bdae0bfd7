import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Tally } from './support/counts.ts';
import { APPLICATION_PORT, conformanceProgram, MeshedPair, SERVICE } from './support/meshed-pair.ts';
import { Program } from './support/program.ts';

/** The cases of gRPC's interop specification that ask for no credentials and no load balancer of gRPC's own. */
const CASES = [
  'empty_unary',
  'large_unary',
  'client_streaming',
  'server_streaming',
  'ping_pong',
  'empty_stream',
  'cancel_after_begin',
  'cancel_after_first_response',
  'timeout_on_sleeping_server',
  'custom_metadata',
  'status_code_and_message',
  'special_status_message',
  'unimplemented_method',
  'unimplemented_service',
];

/** Calls by the grpc-status that the server sends: three are cancelled first, some cases make several. */
const STATUSES = { '0': 8, '2': 3, '12': 2 };

describe('gRPC interop through a pair with mutual TLS', () => {
  const program = conformanceProgram('grpc-interop-client');
  const tally = new Tally('grpcInterop', CASES.length);
  let pair: MeshedPair;
  let server: Program;

  beforeAll(async () => {
    pair = await MeshedPair.start('hdlgrp');
    server = new Program(pair.server, [conformanceProgram('grpc-interop-server'), `--port=${APPLICATION_PORT}`]);
    await pair.whenApplicationListens();
  });

  afterAll(async () => {
    tally.write();
    await server?.kill();
    await pair?.close();
  });

  test.each(CASES)('%s', (name) =>
    tally.case(async () => {
      const target = [`--server_host=${SERVICE.host}`, `--server_port=${SERVICE.port}`];
      const client = new Program(pair.client, [program, ...target, `--test_case=${name}`]);
      const status = await client.end(30_000);
      expect(status, `${client.output}\n${pair.log}`).toBe(0);
    }),
  );

  test('both workers say that every call was secured, and how those ended that were not cancelled', async () => {
    const views = [
      ['client', { direction: 'outbound', tls: 'true', server_id: pair.identityOf('server') }],
      ['server', { direction: 'inbound', tls: 'true', client_id: pair.identityOf('client') }],
    ] as const;
    for (const [pod, secured] of views) {
      const all = await pair.metric(pod, 'request_total', { direction: secured.direction });
      expect(await pair.metric(pod, 'request_total', secured)).toBe(all);
      const ended = (code: string) => pair.metric(pod, 'response_total', { ...secured, grpc_status: code });
      const statuses = async () =>
        Object.fromEntries(await Promise.all(Object.keys(STATUSES).map(async (code) => [code, await ended(code)])));
      // A response is counted when it has ended, a moment after the client program has.
      await expect.poll(async () => [pod, await statuses()], { timeout: 10_000 }).toEqual([pod, STATUSES]);
    }
  });
});
