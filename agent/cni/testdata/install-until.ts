// Installs once in a process of its own, and kills that process at a named point: what a power cut or the kernel's
// out-of-memory killer does. Arguments: configuration directory, binary directory, source, mode, point (or "none").

import { silentLog } from '#lib/log.ts';
import { pluginSection } from '../conflist.ts';
import { CniInstaller } from '../install.ts';
import type { InstallMode } from '../install-plan.ts';

const [confDir, binDir, source, mode, until] = process.argv.slice(2) as [string, string, string, string, string];
const points: string[] = [];
const installer = new CniInstaller({
  confDir,
  binDir,
  source,
  mode: mode as InstallMode,
  runtime: { kind: 'containerd', supportsDropIns: true, defaultNetwork: null, isInstalled: () => true },
  section: pluginSection(),
  log: silentLog,
  faultPoint: (point) => {
    points.push(point);
    if (point === until) process.kill(process.pid, 'SIGKILL');
  },
});
const state = await installer.install();
process.stdout.write(JSON.stringify({ state, points }));
