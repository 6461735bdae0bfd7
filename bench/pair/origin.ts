// The origin of a pair benchmark: nginx answering 100 bytes, one worker process.

import { mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { type Program, startProgram } from '../program.ts';

export const ORIGIN_PORT = 8080;

/** Starts nginx on all addresses of the namespace. */
export function startOrigin(netns: string, directory: string): Promise<Program> {
  mkdirSync(path.join(directory, 'tmp'), { recursive: true });
  const file = path.join(directory, 'nginx.conf');
  writeFileSync(
    file,
    `daemon off; master_process off; worker_processes 1; pid ${directory}/nginx.pid; error_log stderr crit;
events { worker_connections 20000; }
http {
  access_log off; keepalive_requests 100000000; keepalive_timeout 600s;
  client_body_temp_path ${directory}/tmp/body; proxy_temp_path ${directory}/tmp/proxy;
  fastcgi_temp_path ${directory}/tmp/fastcgi; uwsgi_temp_path ${directory}/tmp/uwsgi; scgi_temp_path ${directory}/tmp/scgi;
  server { listen 0.0.0.0:${ORIGIN_PORT} backlog=4096; location / { return 200 "${'x'.repeat(100)}"; } }
}
`,
  );
  return startProgram({
    name: 'nginx',
    netns,
    argv: ['nginx', '-c', file, '-e', 'stderr'],
    listens: { host: '0.0.0.0', port: ORIGIN_PORT },
  });
}
