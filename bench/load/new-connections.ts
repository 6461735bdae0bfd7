// A new connection for each request, a fixed number of them at a time: connect, ask, read the whole answer, close.

import net from 'node:net';
import { ORIGIN_BODY } from '../pair/origin.ts';
import { Http1Response } from './http1-response.ts';
import { nowMs } from './open-loop.ts';
import { type LoadResult, Recorder } from './result.ts';

export interface NewConnectionsOptions {
  host: string;
  port: number;
  seconds: number;
  /** How many are open at a time. */
  connections: number;
}

const TIMEOUT_MS = 5_000;

/** Runs it; latency counts from connect to the last byte of the answer. */
export async function runNewConnections(options: NewConnectionsOptions): Promise<LoadResult> {
  const recorder = new Recorder();
  const startMs = nowMs();
  const endMs = startMs + options.seconds * 1000;
  const loop = async () => {
    while (nowMs() < endMs) {
      const openedMs = nowMs();
      try {
        await ask(options);
        recorder.succeeded(nowMs() - openedMs);
      } catch (error) {
        recorder.failed((error as Error).message);
      }
    }
  };
  await Promise.all(Array.from({ length: options.connections }, loop));
  return recorder.result(nowMs() - startMs);
}

function ask({ host, port }: NewConnectionsOptions): Promise<void> {
  const response = new Http1Response(ORIGIN_BODY);
  const socket = net.connect({ host, port, noDelay: true });
  return new Promise<void>((resolve, reject) => {
    socket.setTimeout(TIMEOUT_MS, () => reject(new Error('no answer in time')));
    socket.write(`GET / HTTP/1.1\r\nHost: ${host}:${port}\r\nConnection: close\r\n\r\n`);
    socket.on('data', (bytes: Buffer) => {
      try {
        if (response.push(bytes)) resolve();
      } catch (error) {
        reject(error as Error);
      }
    });
    socket.on('error', reject);
    socket.on('close', () => reject(new Error('the connection was closed before the answer')));
  }).finally(() => socket.destroy());
}
