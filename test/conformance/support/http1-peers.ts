// nginx and haproxy as reverse proxies with their defaults, each between two Unix sockets: to see how others read the
// bytes of an HTTP/1.1 case.

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import net from 'node:net';
import path from 'node:path';

interface Program {
  argv: string[];
  /** The configuration's file name and text. */
  file: string;
  config(sockets: { listen: string; origin: string }): string;
}

const PROGRAMS: Record<PeerName, Program> = {
  nginx: {
    argv: ['/usr/sbin/nginx', '-e', 'stderr', '-p', '.', '-c', 'nginx.conf'],
    file: 'nginx.conf',
    config: ({ listen, origin }) => `
      daemon off;
      master_process off;
      pid nginx.pid;
      events { worker_connections 64; }
      http {
        access_log off;
        client_body_temp_path nginx-body;
        proxy_temp_path nginx-proxy;
        fastcgi_temp_path nginx-fastcgi;
        uwsgi_temp_path nginx-uwsgi;
        scgi_temp_path nginx-scgi;
        client_header_timeout 1s;
        client_body_timeout 1s;
        server {
          listen unix:${listen};
          location / {
            proxy_pass http://unix:${origin};
            proxy_http_version 1.1;
            proxy_set_header Host $http_host;
            # A client that has sent everything may say so and still wants its answers.
            proxy_ignore_client_abort on;
          }
        }
      }`,
  },
  haproxy: {
    argv: ['/usr/sbin/haproxy', '-db', '-q', '-f', 'haproxy.cfg'],
    file: 'haproxy.cfg',
    config: ({ listen, origin }) =>
      [
        'global',
        '  nbthread 1',
        '  maxconn 64',
        'defaults',
        '  mode http',
        '  timeout connect 2s',
        '  timeout client 1s',
        '  timeout server 1s',
        'listen cases',
        `  bind unix@${listen}`,
        `  server origin unix@${origin}`,
        '',
      ].join('\n'),
  },
};

export type PeerName = 'nginx' | 'haproxy';
export const PEER_NAMES: readonly PeerName[] = ['nginx', 'haproxy'];

export class Peer {
  readonly listenPath: string;
  readonly #child: ChildProcess;
  #output = '';

  private constructor(name: PeerName, directory: string, originPath: string) {
    const { argv, file, config } = PROGRAMS[name];
    this.listenPath = path.join(directory, `${name}.sock`);
    writeFileSync(path.join(directory, file), config({ listen: this.listenPath, origin: originPath }));
    const [command, ...args] = argv;
    this.#child = spawn(command!, args, { cwd: directory, stdio: ['ignore', 'pipe', 'pipe'] });
    for (const stream of [this.#child.stdout!, this.#child.stderr!]) {
      stream.setEncoding('utf8').on('data', (text: string) => {
        this.#output = (this.#output + text).slice(-20_000);
      });
    }
  }

  /** Resolves when it listens. Its origin is asked for at the first request. */
  static async start(name: PeerName, directory: string, originPath: string): Promise<Peer> {
    const peer = new Peer(name, directory, originPath);
    const deadlineMs = performance.now() + 10_000;
    while (!(await canConnect(peer.listenPath))) {
      if (performance.now() > deadlineMs || peer.#child.exitCode !== null) {
        await peer.stop();
        throw new Error(`start ${name}: expected it to listen within 10 s: ${peer.#output}`);
      }
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    return peer;
  }

  async stop(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const gone = once(this.#child, 'exit');
    this.#child.kill('SIGKILL');
    await gone;
  }
}

async function canConnect(socketPath: string): Promise<boolean> {
  const socket = net.connect(socketPath);
  const isConnected = await once(socket, 'connect').then(
    () => true,
    () => false,
  );
  socket.destroy();
  return isConnected;
}
