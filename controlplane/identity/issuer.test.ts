import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { FakeClock } from '#lib/clock.ts';
import { silentLog } from '#lib/log.ts';
import type { AuthorityFiles } from './ca.ts';
import { Issuer } from './issuer.ts';
import { makeAuthority, makeKey, NOW_MS } from './testing.ts';

let directory: string;
let issuer: Issuer;
let events: string[];
const clock = new FakeClock(NOW_MS);

function write(files: Partial<AuthorityFiles>): void {
  const names = { certificatesPem: 'tls.crt', privateKeyPem: 'tls.key', anchorsPem: 'ca.crt' } as const;
  for (const [name, text] of Object.entries(files)) {
    writeFileSync(path.join(directory, names[name as keyof AuthorityFiles]), text);
  }
}

async function nextReload(): Promise<void> {
  const before = events.length;
  clock.advance(1000);
  await vi.waitFor(() => expect(events.length).toBeGreaterThan(before));
}

beforeEach(() => {
  directory = mkdtempSync(path.join(tmpdir(), 'heddle-issuer-'));
  events = [];
  issuer = new Issuer({
    paths: {
      certificates: path.join(directory, 'tls.crt'),
      privateKey: path.join(directory, 'tls.key'),
      anchors: path.join(directory, 'ca.crt'),
    },
    reloadIntervalMs: 1000,
    clock,
    log: silentLog,
    onEvent: (event) => events.push(event),
  });
});

afterEach(() => {
  issuer.close();
  rmSync(directory, { recursive: true, force: true });
});

describe('the issuer', () => {
  test('is loaded once its files are there', async () => {
    await issuer.start();
    expect(issuer.authority).toBeNull();
    expect(events).toEqual(['IssuerUpdateSkipped']);
    write(makeAuthority().files);
    await nextReload();
    expect(issuer.authority).not.toBeNull();
    expect(events).toEqual(['IssuerUpdateSkipped', 'IssuerUpdated']);
  });

  test('is exchanged for a new one while it runs, with both anchors in between', async () => {
    const old = makeAuthority('old');
    const next = makeAuthority('new');
    const seen: string[] = [];
    issuer.onUpdate((authority) => seen.push(`${authority.issuer.subject} of ${authority.anchors.length}`));
    write(old.files);
    await issuer.start();
    write({ anchorsPem: old.files.anchorsPem + next.files.anchorsPem });
    await nextReload();
    write({ certificatesPem: next.files.certificatesPem, privateKeyPem: next.files.privateKeyPem });
    await nextReload();
    write({ anchorsPem: next.files.anchorsPem });
    await nextReload();
    expect(seen).toEqual(['CN=issuer.old of 1', 'CN=issuer.old of 2', 'CN=issuer.new of 2', 'CN=issuer.new of 1']);
  });

  test.each([
    ['does not verify', { anchorsPem: makeAuthority('foreign').anchor.certificatePem }, 'IssuerValidationFailed'],
    ['is no certificate', { certificatesPem: 'junk' }, 'IssuerUpdateSkipped'],
    ['is not of that key', { privateKeyPem: makeKey().privatePem }, 'IssuerUpdateSkipped'],
  ])('stays when what comes after it %s', async (_what, change, event) => {
    write(makeAuthority('good').files);
    await issuer.start();
    const good = issuer.authority;
    write(change);
    await nextReload();
    expect(issuer.authority).toBe(good);
    expect(events).toEqual(['IssuerUpdated', event]);
  });
});
