package main

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestDelNeverFails(t *testing.T) {
	good := func(runDir string) string { return stdinOptions{runDir: runDir}.String() }
	for _, one := range []struct {
		name  string
		call  func(runDir string) call
		begin func(t *testing.T, runDir string)
		// buried: a tombstone of c1 is expected in the run directory.
		buried bool
	}{
		{"agent down", func(d string) call { return call{stdin: good(d)} }, agentFaults["no socket"], true},
		{"agent hung", func(d string) call { return call{stdin: good(d)} }, agentFaults["hung before accept"], true},
		{"agent's queue full", func(d string) call { return call{stdin: good(d)} }, agentFaults["queue full"], true},
		{"garbage from the agent", func(d string) call { return call{stdin: good(d)} }, agentFaults["text"], true},
		{"agent fails", func(d string) call { return call{stdin: good(d)} }, answering(frame(`{"v":1,"code":101,"outcome":"none"}`)), true},
		{"agent well", func(d string) call { return call{stdin: good(d)} }, answering(frame(""), frame(`{"v":1,"code":0,"outcome":"removed"}`)), false},
		{"unknown to the agent", func(d string) call { return call{stdin: good(d)} }, answering(frame(`{"v":1,"code":0,"outcome":"none"}`)), false},
		{"unknown field", func(d string) call {
			return call{stdin: stdinOptions{runDir: d, extra: `"rundir":"/x"`}.String()}
		}, agentFaults["no socket"], true},
		{"bad CNI_ARGS", func(d string) call { return call{stdin: good(d), args: "nonsense"} }, agentFaults["no socket"], true},
		{"bad previous result", func(d string) call {
			return call{stdin: stdinOptions{runDir: d, previous: "[]"}.String()}
		}, agentFaults["no socket"], true},
		{"namespace gone", func(d string) call { return call{stdin: good(d), netns: "/run/netns/gone"} }, agentFaults["no socket"], true},
		{"the node's own namespace", func(d string) call { return call{stdin: good(d), netns: "/proc/self/ns/net"} }, agentFaults["no socket"], true},
		{"run directory is a file", func(d string) call { return call{stdin: good(d)} }, func(t *testing.T, d string) {
			if err := os.Remove(d); err != nil {
				t.Fatal(err)
			}
			touch(t, d)
		}, false},
		{"no container ID", func(d string) call { return call{stdin: good(d), unset: "CNI_CONTAINERID"} }, agentFaults["no socket"], false},
	} {
		t.Run(one.name, func(t *testing.T) {
			runDir := filepath.Join(t.TempDir(), "run")
			if err := os.Mkdir(runDir, 0o700); err != nil {
				t.Fatal(err)
			}
			one.begin(t, runDir)
			c := one.call(runDir)
			c.command, c.containerID = "DEL", "c1"
			if c.args == "" {
				c.args = podArgs
			}
			got := c.run(t)
			if got.status != 0 || got.stdout != "" || got.duration > 1500*time.Millisecond {
				t.Fatalf("got %+v", got)
			}
			if one.buried {
				if left := records(t, runDir)[recordTombstone]; len(left) != 1 || left[0].ContainerID != "c1" {
					t.Fatalf("tombstones %+v", left)
				}
				// Double DEL: the same again.
				if again := c.run(t); again.status != 0 || len(records(t, runDir)[recordTombstone]) != 1 {
					t.Fatalf("second time: %+v", again)
				}
			} else if _, err := os.Stat(filepath.Join(runDir, "tombstones")); err == nil {
				t.Fatalf("tombstones %+v: expected none", records(t, runDir))
			}
		})
	}
}

// Requests that skel refuses before the verb is reached leave their tombstone in the default run directory, since their
// configuration is unknown; here it is enough that they succeed and print nothing.
func TestDelOfAnUnreadableRequest(t *testing.T) {
	for name, stdin := range map[string]string{
		"empty": "", "no JSON": "\x00\x01garbage", "half": `{"cniVersion":"1.0.0","na`, "no name": `{"cniVersion":"1.0.0"}`,
	} {
		t.Run(name, func(t *testing.T) {
			// Without a container ID nothing is written outside the test's own directory.
			got := call{command: "DEL", unset: "CNI_CONTAINERID", stdin: stdin}.run(t)
			if got.status != 0 || got.stdout != "" {
				t.Fatalf("got %+v", got)
			}
		})
	}
}

func TestDelForgetsWhatAddRecorded(t *testing.T) {
	path, _ := newNetns(t)
	runDir := t.TempDir()
	add := stdinOptions{previous: plainResult, runDir: runDir}.String()
	call{command: "ADD", containerID: "c1", netns: path, args: podArgs, stdin: add}.run(t)
	if len(records(t, runDir)[recordMissed]) != 1 {
		t.Fatal("expected a record")
	}
	call{command: "DEL", containerID: "c1", netns: path, args: podArgs, stdin: add}.run(t)
	left := records(t, runDir)
	if len(left[recordMissed]) != 0 || len(left[recordTombstone]) != 1 || left[recordTombstone][0].Pod.Namespace != "shop" {
		t.Fatalf("records %+v", left)
	}
}

func TestRecordsAreBounded(t *testing.T) {
	runDir := t.TempDir()
	folder := filepath.Join(runDir, "tombstones")
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	for i := range recordsMax {
		touch(t, filepath.Join(folder, fmt.Sprintf("c%d.json", i)))
	}
	got := call{command: "DEL", containerID: "more", args: podArgs, stdin: stdinOptions{runDir: runDir}.String()}.run(t)
	if got.status != 0 || !strings.Contains(got.stderr, "expected fewer than 8192 records") {
		t.Fatalf("got %+v", got)
	}
	if entries, err := os.ReadDir(folder); err != nil || len(entries) != recordsMax {
		t.Fatalf("%d entries, %v", len(entries), err)
	}
}

func TestCheck(t *testing.T) {
	path, inode := newNetns(t)
	check := func(t *testing.T, runDir string, annotations map[string]string, previous string) outcome {
		return call{command: "CHECK", containerID: "c1", netns: path, args: podArgs, stdin: stdinOptions{
			previous: previous, annotations: annotations, runDir: runDir,
		}.String()}.run(t)
	}
	stamped := map[string]string{annotationMeshed: "heddle"}
	t.Run("as it was", func(t *testing.T) {
		runDir := t.TempDir()
		agent := startAgent(t, runDir, replies(frame(""), frame(replyMeshed)))
		got := check(t, runDir, stamped, plainResult)
		if got.status != 0 || got.stdout != "" || agent.all()[0].request.Op != "CHECK" || agent.all()[0].inode != inode {
			t.Fatalf("got %+v", got)
		}
	})
	t.Run("drifted", func(t *testing.T) {
		runDir := t.TempDir()
		startAgent(t, runDir, replies(frame(`{"v":1,"code":101,"message":"heddle: link is gone","outcome":"meshed"}`)))
		if got := check(t, runDir, stamped, plainResult).failure(t); got.Code != 101 {
			t.Fatalf("got %+v", got)
		}
	})
	t.Run("agent down", func(t *testing.T) {
		runDir := t.TempDir()
		if got := check(t, runDir, stamped, plainResult).failure(t); got.Code != 11 {
			t.Fatalf("got %+v", got)
		}
		if got := check(t, runDir, nil, plainResult); got.status != 0 {
			t.Fatalf("unmeshed: got %+v", got)
		}
		if err := writeRecord(runDir, record{V: 1, Kind: recordOpen, ContainerID: "c1"}); err != nil {
			t.Fatal(err)
		}
		if got := check(t, runDir, stamped, plainResult); got.status != 0 {
			t.Fatalf("open by policy: got %+v", got)
		}
	})
	t.Run("without the result of ADD", func(t *testing.T) {
		if got := check(t, t.TempDir(), stamped, "").failure(t); got.Code != 7 {
			t.Fatalf("got %+v", got)
		}
	})
}

func TestGC(t *testing.T) {
	gc := func(t *testing.T, runDir, extra string) outcome {
		return call{command: "GC", stdin: stdinOptions{version: "1.1.0", runDir: runDir, extra: extra}.String()}.run(t)
	}
	t.Run("forwards what is valid", func(t *testing.T) {
		runDir := t.TempDir()
		agent := startAgent(t, runDir, replies(frame(""), frame(`{"v":1,"code":0,"outcome":"removed"}`)))
		got := gc(t, runDir, `"cni.dev/valid-attachments":[{"containerID":"a","ifname":"eth0"}],"cni.dev/attachments":[]`)
		var sent struct {
			Network          string           `json:"network"`
			ValidAttachments []map[string]any `json:"validAttachments"`
		}
		if err := json.Unmarshal(agent.all()[0].raw, &sent); err != nil {
			t.Fatal(err)
		}
		if got.status != 0 || sent.Network != "k8s" || fmt.Sprint(sent.ValidAttachments) != "[map[containerId:a ifName:eth0]]" {
			t.Fatalf("got %+v, sent %+v", got, sent)
		}
	})
	t.Run("nothing is valid", func(t *testing.T) {
		runDir := t.TempDir()
		agent := startAgent(t, runDir, replies(frame(`{"v":1,"code":0,"outcome":"none"}`)))
		got := gc(t, runDir, `"cni.dev/valid-attachments":[]`)
		if got.status != 0 || !strings.Contains(string(agent.all()[0].raw), `"validAttachments":[]`) {
			t.Fatalf("got %+v, sent %s", got, agent.all()[0].raw)
		}
	})
	t.Run("refuses to guess", func(t *testing.T) {
		runDir := t.TempDir()
		agent := startAgent(t, runDir, func(*net.UnixConn) {})
		if got := gc(t, runDir, "").failure(t); got.Code != 7 || len(agent.all()) != 0 {
			t.Fatalf("got %+v", got)
		}
	})
	t.Run("agent down: prunes the plugin's own records", func(t *testing.T) {
		runDir := t.TempDir()
		for _, one := range []record{
			{Kind: recordMissed, ContainerID: "dead", Network: "k8s"}, {Kind: recordOpen, ContainerID: "dead", Network: "k8s"},
			{Kind: recordMissed, ContainerID: "living", Network: "k8s"}, {Kind: recordMissed, ContainerID: "foreign", Network: "other"},
		} {
			one.V, one.TimeMs, one.Cause = 1, 1, "test"
			if err := writeRecord(runDir, one); err != nil {
				t.Fatal(err)
			}
		}
		got := gc(t, runDir, `"cni.dev/valid-attachments":[{"containerID":"living","ifname":"eth0"}]`)
		left := records(t, runDir)
		if got.status != 0 || len(left[recordMissed]) != 2 || len(left[recordOpen]) != 0 ||
			hasRecord(runDir, recordMissed, "dead") || !hasRecord(runDir, recordMissed, "living") {
			t.Fatalf("got %+v, left %+v", got, left)
		}
	})
}

func TestStatus(t *testing.T) {
	runDir := t.TempDir()
	status := func(extra string) outcome {
		return call{command: "STATUS", stdin: stdinOptions{version: "1.1.0", runDir: runDir, extra: extra}.String()}.run(t)
	}
	if got := status(""); got.status != 0 || got.stdout != "" {
		t.Fatalf("by default STATUS is well: %+v", got)
	}
	if got := status(`"statusGate":"firstBoot"`).failure(t); got.Code != 50 {
		t.Fatalf("got %+v", got)
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		t.Fatal(err)
	}
	touch(t, filepath.Join(runDir, "ready-"+strings.TrimSpace(string(boot))))
	if got := status(`"statusGate":"firstBoot"`); got.status != 0 {
		t.Fatalf("after the agent was ready: %+v", got)
	}
}

func TestVersion(t *testing.T) {
	got := call{command: "VERSION", stdin: `{"cniVersion":"1.0.0"}`}.run(t)
	var printed struct {
		SupportedVersions []string `json:"supportedVersions"`
	}
	if err := json.Unmarshal([]byte(got.stdout), &printed); err != nil || got.status != 0 {
		t.Fatalf("got %+v, %v", got, err)
	}
	if strings.Join(printed.SupportedVersions, " ") != "0.3.0 0.3.1 0.4.0 1.0.0 1.1.0" {
		t.Fatalf("got %v", printed.SupportedVersions)
	}
	var manifest struct {
		Version string `json:"version"`
	}
	raw, err := os.ReadFile("../package.json")
	if err != nil || json.Unmarshal(raw, &manifest) != nil || manifest.Version != pluginVersion {
		t.Fatalf("package.json says %q (%v), the plugin %q", manifest.Version, err, pluginVersion)
	}
}
