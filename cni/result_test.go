package main

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What the chain before us returned must reach the runtime with every byte as it was, in all versions, whether the pod is
// meshed or not: order, white space, unknown and repeated keys, numbers that no float holds.
func TestPreviousResultIsEchoedByteForByte(t *testing.T) {
	path, inode := newNetns(t)
	for _, version := range []string{"0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"} {
		raw, err := os.ReadFile(filepath.Join("testdata", "results", version+".json"))
		if err != nil {
			t.Fatal(err)
		}
		previous := strings.TrimRight(string(raw), "\n")
		for name, annotations := range map[string]map[string]string{
			"meshed": {annotationMeshed: "heddle"}, "unmeshed": {annotationInject: "disabled"},
		} {
			t.Run(version+" "+name, func(t *testing.T) {
				runDir := t.TempDir()
				agent := startAgent(t, runDir, replies(frame(""), frame(replyMeshed)))
				got := call{
					command: "ADD", containerID: "c1", netns: path, args: podArgs,
					stdin: stdinOptions{version: version, previous: previous, annotations: annotations, runDir: runDir}.String(),
				}.run(t)
				if got.status != 0 || got.stdout != previous {
					t.Fatalf("status %d\n got %q\nwant %q", got.status, got.stdout, previous)
				}
				asked := agent.all()
				if name == "unmeshed" && len(asked) != 0 {
					t.Fatalf("an unmeshed pod asked the agent: %s", asked[0].raw)
				}
				if name == "meshed" && (len(asked) != 1 || asked[0].inode != inode || asked[0].request.NetnsInode != inode) {
					t.Fatalf("expected one request with the namespace %d, got %+v", inode, asked)
				}
			})
		}
	}
}

func TestResult(t *testing.T) {
	for _, one := range []struct {
		name, version, previous, want, failure string
	}{
		{"no version", "1.0.0", `{"ips":[]}`, `{"cniVersion":"1.0.0","ips":[]}`, ""},
		{"no version, empty", "0.4.0", `{ }`, `{"cniVersion":"0.4.0" }`, ""},
		{
			"older version is converted", "1.0.0",
			`{"cniVersion":"0.4.0","ips":[{"version":"4","address":"10.0.0.2/24"}],"dns":{}}`,
			`{"cniVersion":"1.0.0","ips":[{"address":"10.0.0.2/24"}]}`, "",
		},
		{
			"newer version is converted", "0.3.1",
			`{"cniVersion":"1.1.0","ips":[{"address":"10.0.0.2/24"}],"dns":{}}`,
			`{"cniVersion":"0.3.1","ips":[{"version":"4","address":"10.0.0.2/24"}],"dns":{}}`, "",
		},
		{"unknown version", "1.0.0", `{"cniVersion":"9.9.9"}`, "", "convert prevResult"},
		{"absent", "1.0.0", ``, "", "no prevResult"},
		{"null", "1.0.0", `null`, "", "no prevResult"},
		{"no object", "1.0.0", `[1]`, "", "decode prevResult"},
	} {
		t.Run(one.name, func(t *testing.T) {
			got, failure := passResult([]byte(one.previous), one.version)
			if one.failure != "" {
				if failure == nil || !strings.Contains(failure.Msg, one.failure) {
					t.Fatalf("got %q, %v: expected an error with %q", got, failure, one.failure)
				}
				return
			}
			if failure != nil || string(got) != one.want {
				t.Fatalf("got %s, %v: want %s", got, failure, one.want)
			}
		})
	}
}

func TestAddressesReachTheAgent(t *testing.T) {
	path, _ := newNetns(t)
	runDir := t.TempDir()
	agent := startAgent(t, runDir, replies(frame(""), frame(replyMeshed)))
	stdin := stdinOptions{
		previous: plainResult, runDir: runDir,
		annotations: map[string]string{
			annotationMeshed: "heddle", "config.linkerd.io/skip-inbound-ports": "22", "example.com/secret": "x",
			"notlinkerd.io/a": "b",
		},
	}
	got := call{command: "ADD", containerID: "c1", netns: path, args: podArgs, stdin: stdin.String()}.run(t)
	if got.status != 0 {
		t.Fatal(got)
	}
	r := agent.all()[0].request
	if strings.Join(r.IPs, " ") != "10.1.2.3 fd00::3" || r.Pod != (pod{"shop", "web-1", "7f1e0a2c-0000-4000-8000-000000000001"}) ||
		r.Op != "ADD" || r.V != 1 || r.ContainerID != "c1" || r.IfName != "eth0" || r.Network != "k8s" ||
		r.NetnsPath != path || r.DeadlineMs != 10_000 || r.PluginVersion != pluginVersion {
		t.Fatalf("request %+v", r)
	}
	if len(r.Annotations) != 2 || r.Annotations["config.linkerd.io/skip-inbound-ports"] != "22" {
		t.Fatalf("annotations %v: expected the mesh's own", r.Annotations)
	}
}

func TestBadAddress(t *testing.T) {
	path, _ := newNetns(t)
	runDir := t.TempDir()
	startAgent(t, runDir, func(*net.UnixConn) {})
	stdin := stdinOptions{
		previous: `{"cniVersion":"1.0.0","ips":[{"address":"10.1.2.3"}]}`, runDir: runDir,
		annotations: map[string]string{annotationMeshed: "heddle"},
	}
	got := call{command: "ADD", containerID: "c1", netns: path, args: podArgs, stdin: stdin.String()}.run(t).failure(t)
	if got.Code != 7 || !strings.Contains(got.Msg, `prevResult.ips[0].address "10.1.2.3"`) {
		t.Fatalf("got %+v", got)
	}
}
