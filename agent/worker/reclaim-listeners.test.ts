import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterEach, expect, test } from 'vitest';
import { encodeLinkFrame } from '#api/link-codec.ts';
import { reclaimListeners } from './reclaim-listeners.ts';

/** A process of its own: it must go on while this one reads. It ends by itself after four seconds. */
const TALKER = `
  const [socketPath, frame] = process.argv.slice(1);
  // Small frames: reading them takes longer than writing them.
  const bytes = Buffer.alloc(1 << 20, Buffer.from(frame, 'base64'));
  const server = require('node:net').createServer((socket) => {
    const talk = () => { while (socket.write(bytes)); };
    socket.on('drain', talk).on('error', () => {});
    talk();
  });
  server.listen(socketPath, () => console.log('ready'));
  setTimeout(() => process.exit(), 4000);
`;

const directory = mkdtempSync(path.join(os.tmpdir(), 'hdlrec-'));
afterEach(() => rmSync(directory, { recursive: true, force: true }));

test('a worker that never stops talking is given up in time, and holds up nothing else meanwhile', async () => {
  const socketPath = path.join(directory, 'control.sock');
  const frame = encodeLinkFrame(0x70, 0, Buffer.alloc(7)).toString('base64');
  const talker = spawn(process.execPath, ['-e', TALKER, socketPath, frame], { stdio: ['ignore', 'pipe', 'inherit'] });
  await new Promise((resolve) => talker.stdout.once('data', resolve));
  let turns = 0;
  const others = setInterval(() => turns++, 10);
  const startedMs = performance.now();
  await expect(reclaimListeners(socketPath, 500)).rejects.toMatchObject({ code: 'worker-not-adoptable' });
  expect(performance.now() - startedMs).toBeLessThan(2_000);
  expect(turns).toBeGreaterThan(5);
  clearInterval(others);
  talker.kill();
});
