// The origin of a pair benchmark: nginx answering 100 bytes in one process, HTTP/1.1 and, on a port of its own, HTTP/2
// without TLS. A third port is HTTP/1.1 again, which the mesh is told to take for opaque bytes.

import { mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { type Program, startProgram } from '../program.ts';
import { ROUTES } from './system.ts';

export const ORIGIN_PORT = ROUTES.http.originPort;
export const ORIGIN_BODY = 'x'.repeat(100);

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
  server {
    listen 0.0.0.0:${ORIGIN_PORT} backlog=4096;
    listen 0.0.0.0:${ROUTES.opaque.originPort} backlog=4096;
    listen 0.0.0.0:${ROUTES.http2.originPort} http2 backlog=4096;
    location / { return 200 "${ORIGIN_BODY}"; }
  }
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
