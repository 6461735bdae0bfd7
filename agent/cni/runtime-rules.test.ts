import { expect, test } from 'vitest';
import { guessDirectories, onHost, parseCriConfig, rulesOf } from './runtime-rules.ts';

const isInstalled = (): boolean => true;

test.each([
  ['containerd', 'v2.1.0', 'containerd', true],
  ['containerd', 'v2.1.4-k3s1', 'containerd', true],
  ['containerd', '2.10.0', 'containerd', true],
  ['containerd', 'v3.0.0', 'containerd', true],
  ['containerd', 'v2.0.5', 'containerd', false],
  ['containerd', '1.7.27', 'containerd', false],
  ['containerd', 'devel', 'containerd', false],
  ['cri-o', '1.34.0', 'cri-o', false],
  ['docker', '27.0.0', 'containerd', false],
])('%s %s', (name, version, kind, supportsDropIns) => {
  expect(rulesOf({ name, version }, { isInstalled })).toEqual({
    kind,
    supportsDropIns,
    defaultNetwork: null,
    isInstalled,
  });
});

test('what containerd says of itself', () => {
  const text = JSON.stringify({
    PluginDirs: ['/opt/cni/bin'],
    PluginConfDir: '/etc/cni/net.d',
    PluginMaxConfNum: 1,
    Prefix: 'eth',
    Networks: [
      { Config: { Name: 'cni-loopback', CNIVersion: '0.3.1', Source: '{}' }, IFName: 'lo' },
      { Config: { Name: 'kindnet', CNIVersion: '0.3.1', Source: '{"name":"kindnet"}' }, IFName: 'eth0' },
    ],
  });
  expect(parseCriConfig(text)).toEqual({
    confDir: '/etc/cni/net.d',
    binDirs: ['/opt/cni/bin'],
    networks: [
      { name: 'cni-loopback', source: '{}' },
      { name: 'kindnet', source: '{"name":"kindnet"}' },
    ],
  });
  for (const other of ['', '{}', '[]', '{"PluginDirs":[],"PluginConfDir":"/x"}'])
    expect(parseCriConfig(other)).toBe(null);
});

test.each([
  [[], '/etc/cni/net.d', '/opt/cni/bin'],
  [
    ['/var/lib/rancher/k3s/agent/etc/cni/net.d'],
    '/var/lib/rancher/k3s/agent/etc/cni/net.d',
    '/var/lib/rancher/k3s/data/cni',
  ],
  [['/home/kubernetes/bin'], '/etc/cni/net.d', '/home/kubernetes/bin'],
  [
    ['/var/snap/microk8s/current/args/cni-network'],
    '/var/snap/microk8s/current/args/cni-network',
    '/var/snap/microk8s/current/opt/cni/bin',
  ],
])('directories where %s exist', (signs, confDir, binDir) => {
  expect(guessDirectories((nodePath) => (signs as string[]).includes(nodePath))).toMatchObject({
    confDir,
    binDirs: [binDir],
  });
});

test('paths of the node as the agent sees them', () => {
  expect(onHost('/host', '/etc/cni/net.d')).toBe('/host/etc/cni/net.d');
  expect(onHost('/', '/etc/cni/net.d')).toBe('/etc/cni/net.d');
});
