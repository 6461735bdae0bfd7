// `heddle identity`: makes what the identity service needs where no cluster provides it: a trust anchor, an issuer, the
// key pair of a token issuer, and ServiceAccount tokens. Private keys are written with mode 0600 and never overwritten.

import { generateKeyPairSync, randomUUID } from 'node:crypto';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { Command } from 'commander';
import { DEFAULT_CONTROL_PLANE_NAMESPACE, DEFAULT_TRUST_DOMAIN, IDENTITY_AUDIENCE } from '#api/names.ts';
import { createIssuer, createTrustAnchor, type KeyedCertificate } from '#controlplane/identity/authority.ts';
import { type BoundObject, DEFAULT_TOKEN_ISSUER, issueToken } from '#controlplane/identity/jwt.ts';
import { parseDurationMs } from '#kube/duration.ts';
import { HeddleError } from '#lib/errors.ts';

interface AuthorityFlags {
  out: string;
  lifetime: string;
  controlPlaneNamespace: string;
  trustDomain: string;
}

interface TokenFlags {
  key: string;
  namespace: string;
  serviceAccount: string;
  pod?: string;
  podUid?: string;
  node?: string;
  nodeUid?: string;
  audience: string[];
  issuer: string;
  lifetime: string;
}

export function identityCommand(): Command {
  return new Command('identity')
    .description('trust anchors, issuers and tokens for installations outside Kubernetes')
    .addCommand(
      authorityFlags(new Command('create-anchor'))
        .description('make a trust anchor: ca.crt and ca.key')
        .action((flags: AuthorityFlags) => {
          const anchor = createTrustAnchor({ commonName: `root.${nameOf(flags)}`, ...periodOf(flags) });
          writeKeyed(flags.out, 'ca', anchor);
        }),
    )
    .addCommand(
      authorityFlags(new Command('create-issuer'))
        .description('make an issuer below a trust anchor: tls.crt, tls.key and ca.crt')
        .requiredOption('--anchor <dir>', 'directory of ca.crt and ca.key')
        .action((flags: AuthorityFlags & { anchor: string }) => {
          const anchor = readKeyed(flags.anchor, 'ca');
          const issuer = createIssuer(anchor, { commonName: `identity.${nameOf(flags)}`, ...periodOf(flags) });
          writeKeyed(flags.out, 'tls', issuer);
          writeFileSync(path.join(flags.out, 'ca.crt'), anchor.certificatePem);
        }),
    )
    .addCommand(
      new Command('create-token-key')
        .description('make the key pair of a token issuer: token.key and token.pub')
        .requiredOption('--out <dir>', 'directory to write to')
        .action((flags: { out: string }) => {
          const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'prime256v1' });
          mkdirSync(flags.out, { recursive: true });
          writeSecret(path.join(flags.out, 'token.key'), privateKey.export({ format: 'pem', type: 'pkcs8' }) as string);
          writeFileSync(path.join(flags.out, 'token.pub'), publicKey.export({ format: 'pem', type: 'spki' }));
        }),
    )
    .addCommand(tokenCommand());
}

function authorityFlags(command: Command): Command {
  return command
    .requiredOption('--out <dir>', 'directory to write to')
    .option('--lifetime <duration>', 'how long it is valid', '8760h')
    .option('--control-plane-namespace <name>', 'part of its name', DEFAULT_CONTROL_PLANE_NAMESPACE)
    .option('--trust-domain <name>', 'part of its name', DEFAULT_TRUST_DOMAIN);
}

function tokenCommand(): Command {
  return new Command('issue-token')
    .description('sign a ServiceAccount token and print it')
    .requiredOption('--key <file>', 'private key of the token issuer')
    .requiredOption('--namespace <name>', 'namespace of the ServiceAccount')
    .requiredOption('--service-account <name>', 'whom the token speaks for')
    .option('--pod <name>', 'bind it to this pod')
    .option('--pod-uid <uid>', 'UID of that pod')
    .option('--node <name>', 'bind it to this node, or say where the pod runs')
    .option('--node-uid <uid>', 'UID of that node')
    .option('--audience <name...>', 'whom the token is for', [IDENTITY_AUDIENCE])
    .option('--issuer <url>', 'who signs it', DEFAULT_TOKEN_ISSUER)
    .option('--lifetime <duration>', 'how long it is valid', '1h')
    .action((flags: TokenFlags) => {
      const pod = boundObject('--pod', flags.pod, flags.podUid);
      const node = flags.node === undefined ? undefined : { name: flags.node, uid: flags.nodeUid ?? flags.node };
      const token = issueToken(readFileSync(flags.key), {
        issuer: flags.issuer,
        audiences: flags.audience,
        namespace: flags.namespace,
        serviceAccount: { name: flags.serviceAccount, uid: randomUUID() },
        ...(pod ? { pod } : {}),
        ...(node ? { node } : {}),
        lifetimeMs: lifetimeOf(flags),
        nowMs: Date.now(),
      });
      process.stdout.write(`${token}\n`);
    });
}

function boundObject(flag: string, name: string | undefined, uid: string | undefined): BoundObject | undefined {
  if (name === undefined && uid === undefined) return undefined;
  if (name !== undefined && uid !== undefined) return { name, uid };
  throw new HeddleError('bad-flags', `bind the token: expected ${flag} and ${flag}-uid together`);
}

function nameOf(flags: AuthorityFlags): string {
  return `${flags.controlPlaneNamespace}.${flags.trustDomain}`;
}

function lifetimeOf({ lifetime }: { lifetime: string }): number {
  const ms = parseDurationMs(lifetime);
  if (ms !== null && ms > 0) return ms;
  throw new HeddleError('bad-flags', `read --lifetime "${lifetime}": expected a duration such as 24h`);
}

function periodOf(flags: AuthorityFlags): { lifetimeMs: number; nowMs: number } {
  return { lifetimeMs: lifetimeOf(flags), nowMs: Date.now() };
}

function readKeyed(directory: string, name: string): KeyedCertificate {
  try {
    return {
      certificatePem: readFileSync(path.join(directory, `${name}.crt`), 'utf8'),
      privateKeyPem: readFileSync(path.join(directory, `${name}.key`), 'utf8'),
    };
  } catch (cause) {
    throw new HeddleError('read-file', `read "${directory}": expected ${name}.crt and ${name}.key`, { cause });
  }
}

function writeKeyed(directory: string, name: string, keyed: KeyedCertificate): void {
  mkdirSync(directory, { recursive: true });
  // The key first: it is the one that refuses to overwrite.
  writeSecret(path.join(directory, `${name}.key`), keyed.privateKeyPem);
  writeFileSync(path.join(directory, `${name}.crt`), keyed.certificatePem);
}

function writeSecret(file: string, text: string): void {
  try {
    writeFileSync(file, text, { mode: 0o600, flag: 'wx' });
  } catch (cause) {
    throw new HeddleError('write-key', `write "${file}": expected a new file in a writable directory`, { cause });
  }
}
