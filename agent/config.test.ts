import { describe, expect, test } from 'vitest';
import { parseConfig } from './config.ts';

describe('agent configuration', () => {
  test('has a default for everything', () => {
    const config = parseConfig(['--node-name', 'n1'], '/opt/heddle');
    expect(config).toMatchObject({
      nodeName: 'n1',
      runDir: '/run/heddle',
      adminListen: { host: '0.0.0.0', port: 4194 },
      bpfObject: '/opt/heddle/build/bpf/heddle.bpf.o',
      workerMemoryBytes: 256 * 1024 * 1024,
      redirect: 'auto',
      policy: {
        address: 'heddle-destination:8090',
        identity: 'heddle-destination.heddle.serviceaccount.identity.heddle.cluster.local',
      },
    });
  });

  test('leaves the CNI configuration alone unless asked', () => {
    expect(parseConfig([], '/opt/heddle').cni).toBeNull();
    const { cni } = parseConfig(
      ['--cni-mode', 'auto', '--cni-host-root', '/host', '--cni-bin-dir', '/b'],
      '/opt/heddle',
    );
    expect(cni).toMatchObject({
      mode: 'auto',
      confDir: '/host/etc/cni/net.d',
      binDir: '/host/b',
      plugin: '/opt/heddle/build/cni/heddle-cni',
      runtime: { name: 'containerd', version: '1.7' },
      isForced: false,
    });
  });

  test('names every fault with its option', () => {
    const wrong = [
      ['--node-name', 'Node_1'],
      ['--run-dir', 'run'],
      ['--source', 'etcd'],
      ['--cluster-networks', '10.0.0.0/8,10.0.0.0/99'],
      ['--redirect', 'iptables'],
      ['--worker-memory-mib', '1'],
      ['--default-inbound-policy', 'open'],
      ['--admin-addr', '0.0.0.0:99999'],
      ['--identity-addr', 'identity'],
      ['--cni-mode', 'insert'],
      ['--cni-conf-dir', 'net.d'],
      ['--cni-runtime', 'containerd'],
    ];
    let message = '';
    try {
      parseConfig(wrong.flat(), '/opt/heddle');
    } catch (error) {
      message = (error as Error).message;
    }
    expect(message.split('\n').map((line) => line.split(':')[0])).toEqual(
      expect.arrayContaining(wrong.map(([option]) => option)),
    );
    expect(message).toContain('"10.0.0.0/99": expected one such as 10.0.0.0/8');
    expect(() => parseConfig(['--no-such-option'], '/opt/heddle')).toThrow('unknown option');
  });
});
