// The destination service with the certificate that the identity service issues to it, as an installation has it: both
// as processes, keys and tokens made by the command line, one directory of manifests.

import { execFileSync } from 'node:child_process';
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { DestinationDefinition } from '#api/gen/destination.ts';
import { GrpcClient } from '#lib/grpc/client.ts';
import { StreamLog } from './support/client.ts';
import { ProcessUnderTest } from './support/process.ts';

const HEDDLE = path.resolve(import.meta.dirname, '../../bin/heddle');
const IDENTITY = 'heddle-destination.heddle.serviceaccount.identity.heddle.cluster.local';
let directory: string;
const processes: ProcessUnderTest[] = [];
const clients: GrpcClient[] = [];
const at = (...parts: string[]) => path.join(directory, ...parts);
const heddle = (...args: string[]) => execFileSync(HEDDLE, args, { encoding: 'utf8', timeout: 30_000 }).trim();

beforeEach(() => {
  directory = mkdtempSync(path.join(os.tmpdir(), 'heddle-issued-'));
  mkdirSync(at('manifests'));
  writeFileSync(
    at('manifests/web.yaml'),
    'apiVersion: v1\nkind: Service\nmetadata: { name: web }\nspec: { clusterIP: 10.96.0.1, ports: [{ port: 80 }] }\n',
  );
  heddle('identity', 'create-anchor', '--out', at('anchor'));
  heddle('identity', 'create-issuer', '--anchor', at('anchor'), '--out', at('issuer'));
  heddle('identity', 'create-token-key', '--out', at('tokens'));
  copyFileSync(at('anchor/ca.crt'), at('anchors.pem'));
});

afterEach(async () => {
  for (const client of clients.splice(0)) client.close();
  for (const running of processes.splice(0)) await running.stop();
  rmSync(directory, { recursive: true, force: true });
});

function run(main: string, ...args: string[]): ProcessUnderTest {
  const started = new ProcessUnderTest(main, args);
  processes.push(started);
  return started;
}

function writeToken(serviceAccount: string): void {
  const claims = ['--namespace', 'heddle', '--service-account', serviceAccount, '--node', 'node-1'];
  writeFileSync(at('token'), heddle('identity', 'issue-token', '--key', at('tokens/token.key'), ...claims));
}

const portOf = (address: unknown) => (address as { port: number }).port;

async function startIdentity(): Promise<number> {
  const identity = run(
    'controlplane/identity/main.ts',
    ...['--identity-addr', '127.0.0.1:0', '--admin-addr', '127.0.0.1:0', '--issuer-dir', at('issuer')],
    ...['--trust-anchors', at('anchors.pem'), '--token-keys', at('tokens/token.pub'), '--leaf-lifetime', '3s'],
    ...['--source', `dir:${at('manifests')}`],
  );
  return portOf((await identity.logged('serving')).grpc);
}

function startDestination(identityPort: number): ProcessUnderTest {
  return run(
    'controlplane/destination/main.ts',
    ...['--source', `dir:${at('manifests')}`, '--destination-addr', '127.0.0.1:0', '--policy-addr', '127.0.0.1:0'],
    ...['--admin-addr', '127.0.0.1:0', '--identity-addr', `127.0.0.1:${identityPort}`],
    ...['--trust-anchors', at('anchors.pem'), '--token-file', at('token')],
  );
}

function profile(port: number): StreamLog<unknown> {
  const client = new GrpcClient({
    address: `127.0.0.1:${port}`,
    tls: { serverIdentity: IDENTITY, trustAnchorsPem: () => readFileSync(at('anchors.pem'), 'utf8') },
  });
  clients.push(client);
  const { getProfile } = DestinationDefinition.methods;
  return StreamLog.open(client, DestinationDefinition, getProfile, {
    scheme: '',
    path: '10.96.0.1:80',
    contextToken: '',
  });
}

test('serves with it, and renews it while streams live', async () => {
  writeToken('heddle-destination');
  const destination = startDestination(await startIdentity());
  const port = portOf((await destination.logged('serving')).destination);
  const first = profile(port);
  await first.until((messages) => messages.length === 1);
  const renewals = () => destination.lines.filter(({ message }) => message === 'serving certificate renewed').length;
  // The first certificate lives for 3 s.
  await expect.poll(renewals, { timeout: 15_000 }).toBeGreaterThanOrEqual(3);
  await profile(port).until((messages) => messages.length === 1);
  expect(first.end).toBeNull();
}, 60_000);

test('does not serve with a token of somebody else', async () => {
  writeToken('somebody');
  const destination = startDestination(await startIdentity());
  const refused = await destination.logged('serving certificate not renewed');
  expect(refused.reason).toContain('heddle-destination');
  expect(destination.lines.map(({ message }) => message)).not.toContain('serving');
  writeToken('heddle-destination');
  expect(await destination.logged('serving')).toHaveProperty('destination.port');
}, 60_000);
