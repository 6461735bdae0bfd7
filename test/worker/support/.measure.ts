import { readFileSync } from 'node:fs';
import { FakeAgent, Issuer } from './agent.ts';
import { API, meshConfig } from './config.ts';
import { cleanUp, Sockets, WorkerUnderTest } from './process.ts';
import { fromRuntime, stageWorker } from './staged.ts';

const runtime = await stageWorker();
const n = Number(process.argv[2] ?? 1);
const pss = (pid: number) => Number(/^Pss:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8'))![1]);
const priv = (pid: number) =>
  Number(/^Private_Dirty:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8'))![1]);
const cpu = (pid: number) => {
  const f = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1].split(' ');
  return (Number(f[11]) + Number(f[12])) * 10;
};
const workers = [];
for (let i = 0; i < n; i++) {
  const issuer = new Issuer();
  const w = new WorkerUnderTest({ ...fromRuntime(runtime, 65536 + i) });
  const a = await FakeAgent.connect(w.sockets.controlPath, issuer);
  const helloCpu = cpu(w.pid);
  a.configure(meshConfig(w.sockets, issuer.anchorsPem));
  await a.whenState('ready');
  workers.push({ w, a });
  if (i < 5)
    console.log(
      'cpu ms at hello',
      helloCpu,
      'at ready',
      cpu(w.pid),
      w.lines.find((l) => l.message === 'ready')?.sinceStartMs,
    );
}
await new Promise((r) => setTimeout(r, 3000));
const all = workers.map(({ w }) => pss(w.pid));
console.log(
  'n',
  n,
  'pss KiB mean',
  Math.round(all.reduce((a, b) => a + b) / n),
  'private dirty',
  workers
    .map(({ w }) => priv(w.pid))
    .slice(0, 3)
    .join(),
);
const c0 = workers.map(({ w }) => cpu(w.pid));
await new Promise((r) => setTimeout(r, 5000));
console.log(
  'idle cpu ms in 5 s',
  workers
    .map(({ w }, i) => cpu(w.pid) - c0[i])
    .slice(0, 5)
    .join(),
);
cleanUp();
process.exit(0);
