package main

import (
	"encoding/binary"
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// agentFaults are the ways in which an agent does not answer. Each must look the same to the runtime.
var agentFaults = map[string]func(t *testing.T, runDir string){
	"no socket": func(*testing.T, string) {},
	"nobody listens": func(t *testing.T, runDir string) {
		listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(runDir, "cni.sock"), Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		listener.SetUnlinkOnClose(false)
		_ = listener.Close()
	},
	"a file instead of a socket": func(t *testing.T, runDir string) { touch(t, filepath.Join(runDir, "cni.sock")) },
	"hung before accept": func(t *testing.T, runDir string) {
		listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(runDir, "cni.sock"), Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = listener.Close() })
	},
	"queue full": func(t *testing.T, runDir string) {
		fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = syscall.Close(fd) })
		path := filepath.Join(runDir, "cni.sock")
		if err := syscall.Bind(fd, &syscall.SockaddrUnix{Name: path}); err != nil {
			t.Fatal(err)
		}
		if err := syscall.Listen(fd, 0); err != nil {
			t.Fatal(err)
		}
		conn, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		if _, err := net.Dial("unix", path); err == nil {
			t.Fatal("expected the queue to be full")
		}
	},
	"closes at once":     func(t *testing.T, runDir string) { startAgent(t, runDir, func(*net.UnixConn) {}) },
	"closes after half":  answering([]byte{0, 0, 0, 9, '{'}),
	"text":               answering([]byte("HTTP/1.1 400 Bad Request\r\n\r\n")),
	"no JSON":            answering(frame("\xff\xfe garbage")),
	"too long a frame":   answering(binary.BigEndian.AppendUint32(nil, messageBytesMax+1)),
	"only accepted":      answering(frame("")),
	"accepted twice":     answering(frame(""), frame("")),
	"another version":    answering(frame(`{"v":2,"code":0,"outcome":"meshed"}`)),
	"no code":            answering(frame(`{"v":1,"outcome":"meshed"}`)),
	"code of words":      answering(frame(`{"v":1,"code":"0","outcome":"meshed"}`)),
	"negative code":      answering(frame(`{"v":1,"code":-1,"outcome":"meshed"}`)),
	"unknown outcome":    answering(frame(`{"v":1,"code":0,"outcome":"perhaps"}`)),
	"two replies in one": answering(frame(replyMeshed + replyMeshed)),
	"internal error":     answering(frame(""), frame(`{"v":1,"code":999,"message":"heddle: x","outcome":"none"}`)),
	"deadline":           answering(frame(""), frame(`{"v":1,"code":104,"message":"heddle: x","outcome":"none"}`)),
}

func answering(frames ...[]byte) func(t *testing.T, runDir string) {
	return func(t *testing.T, runDir string) { startAgent(t, runDir, replies(frames...)) }
}

// atOnce is the bound for a pod that is not the agent's business, with room for a busy machine.
const atOnce = 2500 * time.Millisecond

func TestAddWithoutAnAnswer(t *testing.T) {
	path, inode := newNetns(t)
	for fault, begin := range agentFaults {
		t.Run(fault, func(t *testing.T) {
			t.Parallel()
			runDir := t.TempDir()
			begin(t, runDir)
			add := func(id string, annotations map[string]string) outcome {
				return call{command: "ADD", containerID: id, netns: path, args: podArgs, stdin: stdinOptions{
					previous: plainResult, annotations: annotations, runDir: runDir,
				}.String()}.run(t)
			}
			t.Run("unmeshed", func(t *testing.T) {
				got := add("unmeshed", nil)
				if got.status != 0 || got.stdout != plainResult || got.duration > atOnce {
					t.Fatalf("got %+v", got)
				}
				missed := records(t, runDir)[recordMissed]
				if len(missed) != 1 || missed[0].NetnsInode != inode || missed[0].Pod.Name != "web-1" ||
					missed[0].NetnsPath != path || strings.Join(missed[0].IPs, " ") != "10.1.2.3 fd00::3" {
					t.Fatalf("records %+v", missed)
				}
			})
			t.Run("certainly unmeshed", func(t *testing.T) {
				got := add("certain", map[string]string{annotationInject: "disabled"})
				if got.status != 0 || got.stdout != plainResult || got.duration > 500*time.Millisecond {
					t.Fatalf("got %+v", got)
				}
				if len(records(t, runDir)[recordMissed]) != 1 {
					t.Fatalf("expected no record: %+v", records(t, runDir))
				}
			})
			t.Run("meshed and closed", func(t *testing.T) {
				got := add("closed", map[string]string{annotationMeshed: "heddle"})
				failure := got.failure(t)
				if failure.Code != 11 || failure.CNIVersion != "1.0.0" || got.duration > 5*time.Second {
					t.Fatalf("got %+v in %s", failure, got.duration)
				}
				for _, part := range []string{`pod "shop/web-1" is meshed`, "does not answer", "tries again", annotationOnAgentDown} {
					if !strings.Contains(failure.Msg, part) {
						t.Errorf("message %q: expected %q in it", failure.Msg, part)
					}
				}
			})
			t.Run("meshed and open", func(t *testing.T) {
				got := add("open", map[string]string{annotationMeshed: "heddle", annotationOnAgentDown: "open"})
				open := records(t, runDir)[recordOpen]
				if got.status != 0 || got.stdout != plainResult || len(open) != 1 || open[0].ContainerID != "open" {
					t.Fatalf("got %+v, records %+v", got, open)
				}
			})
		})
	}
}

// The agent that is hung in its loop, and the one that is at work: only the latter is waited for.
func TestAddWaitsForAnAgentAtWork(t *testing.T) {
	path, _ := newNetns(t)
	runDir := t.TempDir()
	startAgent(t, runDir, func(conn *net.UnixConn) {
		_, _ = conn.Write(frame(""))
		time.Sleep(300 * time.Millisecond)
		_, _ = conn.Write(frame(replyMeshed))
	})
	stdin := stdinOptions{previous: plainResult, runDir: runDir, extra: `"timeouts":{"acceptMs":100}`}
	got := call{command: "ADD", containerID: "c1", netns: path, args: podArgs, stdin: stdin.String()}.run(t)
	if got.status != 0 || len(records(t, runDir)) != 0 {
		t.Fatalf("got %+v, records %+v", got, records(t, runDir))
	}
}

func TestOpenIsNeverUnnoticed(t *testing.T) {
	path, _ := newNetns(t)
	runDir := t.TempDir()
	touch(t, filepath.Join(runDir, "open")) // a file where the folder should be
	stdin := stdinOptions{previous: plainResult, runDir: runDir, annotations: map[string]string{
		annotationMeshed: "heddle", annotationOnAgentDown: "open",
	}}
	got := call{command: "ADD", containerID: "c1", netns: path, args: podArgs, stdin: stdin.String()}.run(t).failure(t)
	if got.Code != 11 || !strings.Contains(got.Msg, "record the open pod") {
		t.Fatalf("got %+v", got)
	}
}

func TestUnmeshedPodWithoutARunDirectory(t *testing.T) {
	path, _ := newNetns(t)
	file := touch(t, filepath.Join(t.TempDir(), "file"))
	stdin := stdinOptions{previous: plainResult, runDir: filepath.Join(file, "below-a-file")}
	got := call{command: "ADD", containerID: "c1", netns: path, args: podArgs, stdin: stdin.String()}.run(t)
	if got.status != 0 || got.stdout != plainResult || !strings.Contains(got.stderr, "late enrolment") {
		t.Fatalf("got %+v", got)
	}
}

func TestAgentDecides(t *testing.T) {
	path, _ := newNetns(t)
	for _, one := range []struct {
		name, reply string
		code        int
		message     string
	}{
		{"meshed", replyMeshed, 0, ""},
		{"unmeshed although stamped", `{"v":1,"code":0,"outcome":"unmeshed"}`, 0, ""},
		{"refused", `{"v":1,"code":100,"message":"heddle: node is full: remove pods","outcome":"none"}`, 100, "heddle: node is full: remove pods"},
		{"no token", `{"v":1,"code":101,"message":"load failed","details":"d","outcome":"meshed"}`, 101, "heddle: load failed"},
		{"no reason", `{"v":1,"code":102,"outcome":"meshed"}`, 102, "heddle: the agent gave no reason"},
		{"decided, then failed inside", `{"v":1,"code":999,"message":"heddle: x","outcome":"meshed"}`, 999, "heddle: x"},
		{"try again", `{"v":1,"code":11,"message":"heddle: starting","outcome":"none"}`, 11, "heddle: starting"},
	} {
		for name, annotations := range map[string]map[string]string{"stamped": {annotationMeshed: "heddle"}, "unknown": nil} {
			t.Run(one.name+" "+name, func(t *testing.T) {
				runDir := t.TempDir()
				startAgent(t, runDir, replies(frame(""), frame(one.reply)))
				stdin := stdinOptions{previous: plainResult, annotations: annotations, runDir: runDir}
				got := call{command: "ADD", containerID: "c1", netns: path, args: podArgs, stdin: stdin.String()}.run(t)
				if len(records(t, runDir)) != 0 {
					t.Fatalf("records %+v", records(t, runDir))
				}
				if one.code == 0 {
					if got.status != 0 || got.stdout != plainResult {
						t.Fatalf("got %+v", got)
					}
					return
				}
				if failure := got.failure(t); failure.Code != one.code || failure.Msg != one.message {
					t.Fatalf("got %+v", failure)
				}
			})
		}
	}
}

func TestReplyInPieces(t *testing.T) {
	path, _ := newNetns(t)
	runDir := t.TempDir()
	startAgent(t, runDir, func(conn *net.UnixConn) {
		for _, b := range append(frame(""), frame(`{"v":1,"code":0,"outcome":"meshed","warnings":["beware"]}`)...) {
			_, _ = conn.Write([]byte{b})
		}
	})
	stdin := stdinOptions{previous: plainResult, annotations: map[string]string{annotationMeshed: "h"}, runDir: runDir}
	got := call{command: "ADD", containerID: "c1", netns: path, args: podArgs, stdin: stdin.String()}.run(t)
	if got.status != 0 || got.stdout != plainResult || !strings.Contains(got.stderr, "beware") {
		t.Fatalf("got %+v", got)
	}
}

func TestNamespacesThatAreRefused(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, path := range map[string]string{
		"the node's own": "/proc/self/ns/net", "mount namespace": "/proc/self/ns/mnt", "no path": filepath.Join(dir, "none"),
		"file": touch(t, filepath.Join(dir, "file")), "fifo": fifo, "folder": dir,
	} {
		t.Run(name, func(t *testing.T) {
			runDir := t.TempDir()
			agent := startAgent(t, runDir, replies(frame(""), frame(replyMeshed)))
			stdin := stdinOptions{previous: plainResult, annotations: map[string]string{annotationMeshed: "h"}, runDir: runDir}
			got := call{command: "ADD", containerID: "c1", netns: path, args: podArgs, stdin: stdin.String()}.run(t).failure(t)
			if got.Code != 8 || !strings.Contains(got.Msg, path) || len(agent.all()) != 0 {
				t.Fatalf("got %+v, asked %d times", got, len(agent.all()))
			}
		})
	}
}

func TestLargeRequest(t *testing.T) {
	path, inode := newNetns(t)
	runDir := t.TempDir()
	agent := startAgent(t, runDir, replies(frame(""), frame(replyMeshed)))
	add := func(bytes int) outcome {
		stdin := stdinOptions{previous: plainResult, runDir: runDir, annotations: map[string]string{
			annotationMeshed: "heddle", "config.linkerd.io/long": strings.Repeat("x", bytes),
		}}
		return call{command: "ADD", containerID: "c1", netns: path, args: podArgs, stdin: stdin.String()}.run(t)
	}
	// More than a Unix socket takes at once.
	if got := add(messageBytesMax - 2048); got.status != 0 || len(agent.all()) != 1 || agent.all()[0].inode != inode {
		t.Fatalf("status %d, %s", got.status, got.stdout)
	}
	if got := add(messageBytesMax).failure(t); got.Code != 11 || !strings.Contains(got.Msg, "expected at most 1048576") {
		t.Fatalf("got %+v", got)
	}
}
